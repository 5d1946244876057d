// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "daemon/config.hpp"

#include <boost/json/object.hpp>

#include <optional>
#include <string>
#include <vector>

// One daemon taking over from another that runs. What the two say to each other goes over the control socket
// of the one that runs:
//
//     hand-over show                  its policies in force and the guests added by command -> a `state`
//     hand-over take {state}          only if that is still so: it lets go of everything that one daemon
//                                     alone may have, and drains
namespace tapgate::daemon {

/// A policy as it is in force.
struct PolicyInForce {
    std::string name;
    std::string file;
    std::string text;
    /// What its watched file says, if that was loaded and is not in force any more.
    std::optional<std::string> superseded;
};

/// The daemon that runs, for the one that takes over.
class Predecessor {
  public:
    /// Asks it what is in force; nothing if nobody answers on the control socket. kUnsupported: it is too old
    /// to hand over; kInvalid: it has another pin_dir, mark or route_table than `config`.
    static Result<std::optional<Predecessor>> find(const Config& config);

    [[nodiscard]] const std::vector<PolicyInForce>& policies() const { return policies_; }

    /// Those that were added by command.
    [[nodiscard]] const std::vector<GuestConfig>& guests() const { return guests_; }

    /// When this returns it accepts no control client and changes nothing in the kernel any more; it goes on
    /// serving what is steered to it. On failure it goes on as it was. kUnavailable: what is in force has
    /// changed since find().
    Result<void> hand_over() const;

  private:
    explicit Predecessor(std::string socket) : socket_(std::move(socket)) {}

    Result<void> read(const boost::json::object& reply);

    std::string socket_;
    std::string state_;
    std::vector<PolicyInForce> policies_;
    std::vector<GuestConfig> guests_;
};

} // namespace tapgate::daemon
