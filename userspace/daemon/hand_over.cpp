// SPDX-License-Identifier: Apache-2.0
#include "daemon/hand_over.hpp"

#include "base/log.hpp"
#include "base/version.hpp"
#include "control/args.hpp"
#include "control/client.hpp"
#include "daemon/commands.hpp"
#include "daemon/daemon.hpp"
#include "daemon/reply_json.hpp"
#include "net/async.hpp"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include <unistd.h>

namespace tapgate::daemon {

namespace asio = boost::asio;
namespace json = boost::json;

namespace {

using Clock = std::chrono::steady_clock;

/// How long a handshake may take that the daemon before has begun, and a query that it has in flight.
constexpr std::chrono::seconds kHandshakeTime{3};
/// How long the daemon that takes over may need until it serves.
constexpr std::chrono::seconds kTakeOverTime{60};
constexpr std::chrono::milliseconds kHandOverStep{100};

json::object guest_json(const GuestConfig& guest) {
    json::object object;
    object["name"] = guest.name;
    object["interface"] = guest.interface;
    object["addresses"] = addresses_json(guest.addresses);
    object["gateways"] = addresses_json(guest.gateways);
    object["mac"] = guest.mac ? format_mac(*guest.mac) : "";
    object["policy"] = guest.policy;
    return object;
}

Result<PolicyInForce> policy_of(const json::object& object) {
    const auto name = control::required_string(object, "name");
    const auto file = control::required_string(object, "file");
    const auto text = control::optional_string(object, "text");
    const auto superseded = control::optional_string(object, "superseded");
    if (const Error* error = control::first_error(name, file, text, superseded))
        return fail(*error);
    return PolicyInForce{*name, *file, text->value_or(""), *superseded};
}

/// Reads the objects of a list by `read`.
template <typename Value>
Result<void> read_list(const json::object& reply, std::string_view key,
                       Result<Value> (*read)(const json::object&), std::vector<Value>& into) {
    const json::value* list = reply.if_contains({key.data(), key.size()});
    if (list == nullptr || !list->is_array())
        return fail(ErrorCode::kInvalid, fmt::format("the running daemon did not name its {}", key));
    for (const json::value& element : list->get_array()) {
        if (!element.is_object())
            return fail(ErrorCode::kInvalid, fmt::format("the running daemon names its {} wrongly", key));
        auto value = read(element.get_object());
        if (!value)
            return fail(value.error().with_context(fmt::format("{} of the running daemon", key)));
        into.push_back(std::move(*value));
    }
    return {};
}

/// The same as `theirs`, or what to do.
template <typename Value>
Result<void> check_same(const json::object& reply, std::string_view key, const Value& ours) {
    const json::value* theirs = reply.if_contains({key.data(), key.size()});
    if (theirs != nullptr && *theirs == json::value(ours))
        return {};
    return fail(ErrorCode::kInvalid,
                fmt::format("the running daemon has another daemon.{}: stop it first", key));
}

Reply hand_over_show(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {}); !known)
        return fail(known.error());
    return daemon.in_force();
}

Reply hand_over_take(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {"state"}); !known)
        return fail(known.error());
    const auto state = control::required_string(args, "state");
    if (!state)
        return fail(state.error());
    if (const auto handed = daemon.hand_over(*state); !handed)
        return fail(handed.error());
    return json::object();
}

} // namespace

Result<std::optional<Predecessor>> Predecessor::find(const Config& config) {
    auto client = control::Client::connect(config.daemon.control_socket);
    if (!client && client.error().code() == ErrorCode::kUnavailable)
        return std::optional<Predecessor>();
    if (!client)
        return fail(client.error());
    const auto reply = client->call("hand-over show", {});
    if (!reply)
        return fail(reply.error().with_context("take over from the running daemon"));
    if (auto same = check_same(*reply, "pin_dir", config.daemon.pin_dir); !same)
        return fail(same.error());
    if (auto same = check_same(*reply, "mark", config.daemon.mark); !same)
        return fail(same.error());
    if (auto same = check_same(*reply, "route_table", config.daemon.route_table); !same)
        return fail(same.error());
    Predecessor predecessor(config.daemon.control_socket);
    if (auto read = predecessor.read(*reply); !read)
        return fail(read.error());
    return std::optional(std::move(predecessor));
}

Result<void> Predecessor::read(const json::object& reply) {
    auto state = control::required_string(reply, "state");
    if (!state)
        return fail(state.error());
    state_ = std::move(*state);
    if (auto read = read_list(reply, "policies", policy_of, policies_); !read)
        return read;
    return read_list(reply, "guests", guest_of, guests_);
}

Result<void> Predecessor::hand_over() const {
    auto client = control::Client::connect(socket_);
    if (!client)
        return fail(client.error());
    json::object args;
    args["state"] = state_;
    if (const auto reply = client->call("hand-over take", args); !reply)
        return fail(reply.error().with_context("take over from the running daemon"));
    return {};
}

// --- the daemon that runs ------------------------------------------------------------------------------

json::object Daemon::in_force() const {
    json::array policies;
    for (const auto& [name, loaded] : policies_->all()) {
        json::object policy;
        policy["name"] = name;
        policy["file"] = loaded.current().file;
        policy["text"] = *loaded.current().text;
        if (const auto superseded = watcher_->superseded(name))
            policy["superseded"] = *superseded;
        policies.push_back(std::move(policy));
    }
    json::array guests;
    for (const GuestRegistry::Declared& declared : guests_->declared()) {
        if (std::ranges::find(config_.guests, declared.config) == config_.guests.end())
            guests.push_back(guest_json(declared.config));
    }
    json::object reply;
    reply["version"] = version();
    reply["pin_dir"] = config_.daemon.pin_dir;
    reply["mark"] = config_.daemon.mark;
    reply["route_table"] = config_.daemon.route_table;
    reply["policies"] = std::move(policies);
    reply["guests"] = std::move(guests);
    reply["state"] = fmt::format("{}-{:x}", policies_->next_generation(),
                                 std::hash<std::string>()(json::serialize(reply)));
    return reply;
}

Result<void> Daemon::hand_over(const std::string& state) {
    if (drain_deadline_)
        return fail(ErrorCode::kUnavailable, "the running daemon is stopping");
    if (in_force().at("state").as_string() != state)
        return fail(ErrorCode::kUnavailable,
                    "policies or guests of the running daemon have changed meanwhile; try again");
    is_handed_over_ = true;
    // What one daemon alone may do: following links, files and events, and being found.
    boost::system::error_code ignored;
    link_socket_->close(ignored);
    drop_events_->close(ignored);
    watcher_->watch({});
    metrics_.reset();
    for (const auto& log : flow_logs_)
        log->stop_rotating();
    leave_splices();
    steering_->leave_in_place();
    control_->stop_accepting();
    datapath_->let_go();
    net::spawn(context_.get_executor(), "hand-over", drain_after_hand_over());
    return {};
}

asio::awaitable<void> Daemon::drain_after_hand_over() {
    asio::steady_timer pause(context_);
    const auto last = Clock::now() + kTakeOverTime;
    drain_deadline_ = last;
    spdlog::info("stopping: another daemon takes over, {} sessions go on", session_count());
    // Until the other one serves, what guests begin still comes here; its control socket says that it does.
    bool serves = false;
    while (!serves && Clock::now() < last) {
        pause.expires_after(kHandOverStep);
        co_await pause.async_wait(net::kAsTuple);
        control_->stop(); // whoever asked for this has its answer by now
        serves = ::access(config_.daemon.control_socket.c_str(), F_OK) == 0;
    }
    if (!serves) {
        // Guests notice nothing so far. That this ends with an error makes a service manager start it again.
        spdlog::error("the daemon that took over does not serve after {} s", kTakeOverTime.count());
        has_failed_ = true;
    }
    const std::chrono::seconds time = std::max(config_.timers.drain, kHandshakeTime);
    service_manager_.stopping(time + kStopTime);
    const auto handshakes_end = Clock::now() + kHandshakeTime;
    drain_deadline_ = Clock::now() + time;
    while (Clock::now() < *drain_deadline_ && (Clock::now() < handshakes_end || session_count() > 0)) {
        // Swaps happen elsewhere by now. Guest sees, if its policy or the guest itself changes: resets.
        guests_->drop_outdated();
        pause.expires_after(kHandOverStep);
        co_await pause.async_wait(net::kAsTuple);
    }
    end_drain();
}

void add_hand_over_commands(control::Server& server, Daemon& daemon) {
    add_command(server, daemon, "hand-over show", hand_over_show);
    add_command(server, daemon, "hand-over take", hand_over_take);
}

} // namespace tapgate::daemon
