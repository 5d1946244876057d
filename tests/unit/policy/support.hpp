// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/compile.hpp"
#include "policy/decide.hpp"
#include "policy/parse.hpp"

#include <stdexcept>
#include <string>
#include <string_view>

// Short spellings for tests; what cannot be made ends the test with the library's message.
namespace tapgate::policy::test {

inline Name name(std::string_view text) {
    const auto result = Name::from_user(text);
    return result ? *result : throw std::runtime_error(result.error().message());
}

inline IpAddress address(std::string_view text) {
    const auto result = IpAddress::parse(text);
    return result ? *result : throw std::runtime_error("no address: " + std::string(text));
}

inline Policy parsed(std::string_view text) {
    const auto result = parse(text, "p");
    return result ? *result : throw std::runtime_error(result.error().message());
}

inline std::shared_ptr<const CompiledPolicy> compiled(Policy policy, const GroupTable& groups = {}) {
    const auto result = CompiledPolicy::compile(std::move(policy), groups);
    return result ? *result : throw std::runtime_error(result.error().message());
}

inline std::shared_ptr<const CompiledPolicy> compiled(std::string_view text, const GroupTable& groups = {}) {
    return compiled(parsed(text), groups);
}

} // namespace tapgate::policy::test
