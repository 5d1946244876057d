// SPDX-License-Identifier: Apache-2.0
#include "policy/public_suffix.hpp"

#include <libpsl.h>

namespace tapgate::policy {

bool is_public_suffix(const Name& name) {
    const psl_ctx_t* list = ::psl_builtin(); // inside the library: no file is read
    return list != nullptr && ::psl_is_public_suffix(list, name.text().c_str()) != 0;
}

Name registrable_domain(const Name& name) {
    const psl_ctx_t* list = ::psl_builtin();
    const char* domain = list == nullptr ? nullptr : ::psl_registrable_domain(list, name.text().c_str());
    return domain == nullptr ? name : Name::from_wire(domain).value_or(name);
}

} // namespace tapgate::policy
