// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/object.hpp>

#include <string>

// The daemon's replies as text. Every string in a reply may have come from a guest and is escaped; a member
// that is missing (an older daemon) shows as "-".
namespace tapgate::cli {

[[nodiscard]] std::string render_status(const boost::json::object& reply);
[[nodiscard]] std::string render_guests(const boost::json::object& reply);
/// One guest in full: the `guest` of a `guest add` reply, or an element of `guests`.
[[nodiscard]] std::string render_guest(const boost::json::object& guest);
[[nodiscard]] std::string render_policies(const boost::json::object& reply);
/// One element of `policies` in full, with its rules if they are there.
[[nodiscard]] std::string render_policy(const boost::json::object& policy);
/// What a load or rollback has done, or would do, and to which live flows.
[[nodiscard]] std::string render_reload(const boost::json::object& reply);
[[nodiscard]] std::string render_load(const boost::json::object& reply);
[[nodiscard]] std::string render_history(const boost::json::object& reply);
[[nodiscard]] std::string render_flows(const boost::json::object& reply);
[[nodiscard]] std::string render_bindings(const boost::json::object& reply);
[[nodiscard]] std::string render_dns_stats(const boost::json::object& reply);
/// What `event show` found, and what it cannot know.
[[nodiscard]] std::string render_events(const boost::json::object& reply);
/// The steps of the walk, one below the other, and what comes out of them.
[[nodiscard]] std::string render_why(const boost::json::object& reply);
/// One line of `event monitor`.
[[nodiscard]] std::string render_event(const boost::json::object& event);

} // namespace tapgate::cli
