// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "base/result.hpp"

#include <boost/json/object.hpp>

#include <optional>
#include <string>

namespace tapgate::control {

/// Which events somebody asks for. An event has to meet every word that was given:
///
///     guest    its name
///     name     the name that the guest wanted, or one above it
///     address  either end of the flow
///     verdict  "allow", "deny" or "defer"; a drop without a verdict counts as denied
///     reason   the drop reason, the basis of the verdict, the outcome of the query or how the flow ended
///
/// Notes of lost events are for everybody.
class EventFilter {
  public:
    /// Lets everything pass.
    EventFilter() = default;

    /// Reads the arguments of these names; others are the caller's business. kInvalid says which is wrong.
    static Result<EventFilter> parse(const boost::json::object& args);

    [[nodiscard]] bool matches(const boost::json::object& event) const;

    [[nodiscard]] const std::optional<std::string>& guest() const { return guest_; }

  private:
    std::optional<std::string> guest_;
    std::optional<std::string> name_; ///< lower case, without the trailing dot
    std::optional<IpAddress> address_;
    std::optional<std::string> verdict_;
    std::optional<std::string> reason_;
};

} // namespace tapgate::control
