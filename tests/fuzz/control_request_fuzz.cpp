// SPDX-License-Identifier: Apache-2.0
#include "control/protocol.hpp"

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include <algorithm>
#include <string>
#include <string_view>

namespace {

bool has_fractions(const boost::json::value& value) {
    if (const auto* const array = value.if_array())
        return std::ranges::any_of(*array, has_fractions);
    if (const auto* const object = value.if_object())
        return std::ranges::any_of(*object, [](const auto& member) { return has_fractions(member.value()); });
    return value.is_double();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace tapgate;
    using namespace tapgate::control;
    const std::string_view line(reinterpret_cast<const char*>(data), size);
    const auto request = parse_request(line);
    if (!request) {
        // What is wrong is said in a line that the client reads as that error.
        std::string reply = reply_line(error_reply(request.error()));
        TAPGATE_ASSERT(reply.find('\n') == reply.size() - 1);
        reply.pop_back();
        const auto told = parse_reply(reply);
        TAPGATE_ASSERT(!told && told.error().code() == request.error().code() &&
                       told.error().message() == request.error().message());
        return 0;
    }
    TAPGATE_ASSERT(!request->command.empty());
    // No command takes fractions, which Boost.JSON 1.81 does not write and read back to the last bit.
    if (has_fractions(request->args))
        return 0;
    std::string written = request_line(request->command, request->args);
    TAPGATE_ASSERT(written.find('\n') == written.size() - 1);
    written.pop_back();
    const auto again = parse_request(written);
    TAPGATE_ASSERT(again && again->command == request->command && again->args == request->args);
    return 0;
}
