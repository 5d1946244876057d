// SPDX-License-Identifier: Apache-2.0
#include "base/version.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace tapgate {

std::string_view version() {
    return TAPGATE_VERSION;
}

std::string version_text(std::string_view program, const std::vector<std::string>& features) {
    std::string text = fmt::format("{} {}\nbuilt with: {}", program, version(), fmt::join(features, ", "));
    if constexpr (!std::string_view(TAPGATE_SANITIZE).empty())
        text += ", sanitizers " TAPGATE_SANITIZE;
    return text + "\n";
}

} // namespace tapgate
