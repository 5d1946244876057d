// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bpf/libbpf.h>

#include <cerrno>
#include <cstdlib>

// The generated struct is called `tapgate`, which C++ cannot tell from our namespace; it becomes
// `tapgate_skeleton`. Its functions keep their names: tapgate__open() and so on.
#define tapgate tapgate_skeleton
#include "tapgate.skel.h"
#undef tapgate
