// SPDX-License-Identifier: Apache-2.0
#include "program_fixture.hpp"

namespace tapgate::test {}
