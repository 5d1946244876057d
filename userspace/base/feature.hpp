// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace tapgate {

/// Something of the kernel that tapgate uses where it is there, as probing found it: by doing it, never by
/// the kernel's version.
struct Feature {
    std::string name; ///< a stable word: "tcx"
    std::string text; ///< what it is and when it came: "tcx links (Linux 6.6)"
    bool present = false;
    std::string instead; ///< what is used where it is missing; empty: tapgated does not start without it
    std::string detail;  ///< why it is not to be had, where the kernel says so

    [[nodiscard]] bool required() const { return instead.empty(); }
};

} // namespace tapgate
