// SPDX-License-Identifier: Apache-2.0
#include "control/event_filter.hpp"

#include "base/log.hpp"
#include "control/args.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace tapgate::control {

namespace json = boost::json;

namespace {

constexpr std::array<std::string_view, 3> kVerdicts = {"allow", "deny", "defer"};
/// Where events of the several types say why.
constexpr std::array<std::string_view, 4> kReasonKeys = {"reason", "basis", "outcome", "how"};
constexpr std::array<std::string_view, 2> kEndpointKeys = {"source", "destination"};

/// The member's text; empty if it is none.
std::string_view text(const json::object& event, std::string_view key) {
    const json::value* value = event.if_contains({key.data(), key.size()});
    if (value == nullptr || !value->is_string())
        return {};
    return {value->get_string().data(), value->get_string().size()};
}

std::string lower(std::string_view name) {
    std::string result(name.substr(0, name.size() - (name.ends_with('.') ? 1 : 0)));
    std::ranges::transform(result, result.begin(), [](char c) {
        return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    return result;
}

/// True if `name` is `zone` or below it.
bool is_within(std::string_view name, std::string_view zone) {
    const std::string wanted = lower(name);
    return wanted == zone || (wanted.size() > zone.size() && wanted.ends_with(zone) &&
                              wanted[wanted.size() - zone.size() - 1] == '.');
}

} // namespace

Result<EventFilter> EventFilter::parse(const json::object& args) {
    auto guest = optional_string(args, "guest");
    const auto name = optional_string(args, "name");
    const auto address = optional_string(args, "address");
    auto verdict = optional_string(args, "verdict");
    auto reason = optional_string(args, "reason");
    if (const Error* error = first_error(guest, name, address, verdict, reason))
        return fail(*error);
    EventFilter filter;
    filter.guest_ = std::move(*guest);
    if (*name) {
        filter.name_ = lower(**name);
        if (filter.name_->empty())
            return fail(ErrorCode::kInvalid, "argument \"name\" is empty");
    }
    if (*address) {
        filter.address_ = IpAddress::parse(**address);
        if (!filter.address_)
            return fail(ErrorCode::kInvalid,
                        fmt::format("'{}' is not an IP address", printable(**address, 80)));
    }
    filter.verdict_ = std::move(*verdict);
    if (filter.verdict_ && std::ranges::find(kVerdicts, *filter.verdict_) == kVerdicts.end())
        return fail(ErrorCode::kInvalid, fmt::format("'{}' is not a verdict: allow, deny or defer",
                                                     printable(*filter.verdict_, 80)));
    filter.reason_ = std::move(*reason);
    return filter;
}

bool EventFilter::matches(const json::object& event) const {
    if (text(event, "type") == "lost")
        return true;
    if (guest_ && text(event, "guest") != *guest_)
        return false;
    if (name_ && !is_within(text(event, "name"), *name_))
        return false;
    if (address_ && std::ranges::none_of(kEndpointKeys, [&](std::string_view key) {
            const auto endpoint = Endpoint::parse(text(event, key));
            return endpoint && endpoint->address == *address_;
        }))
        return false;
    if (verdict_) {
        const bool is_drop = text(event, "type") == "drop" && text(event, "verdict").empty();
        if ((is_drop ? "deny" : text(event, "verdict")) != *verdict_)
            return false;
    }
    return !reason_ || std::ranges::any_of(
                           kReasonKeys, [&](std::string_view key) { return text(event, key) == *reason_; });
}

} // namespace tapgate::control
