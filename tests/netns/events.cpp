// SPDX-License-Identifier: Apache-2.0
#include "netns/events.hpp"

#include "harness/wait.hpp"

#include <cstdio>
#include <ctime>
#include <stdexcept>
#include <string>
#include <string_view>

namespace tapgate::test {

EventMonitor::EventMonitor(const Daemon& daemon)
    : process_({cli_program(), "-j", "-s", daemon.control_socket(), "event", "monitor"}) {
    if (!wait_until([this] { return process_.out().find("\"monitoring\":true") != std::string::npos; }))
        throw std::runtime_error("the event monitor does not start: " + process_.err());
}

std::vector<boost::json::object> EventMonitor::events() const {
    const std::string text = process_.out();
    std::vector<boost::json::object> events;
    std::size_t begin = 0;
    for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
        boost::json::object line = boost::json::parse(text.substr(begin, end - begin)).as_object();
        if (line.contains("type"))
            events.push_back(std::move(line));
        begin = end + 1;
    }
    return events;
}

std::optional<boost::json::object> EventMonitor::wait_for(const Condition& condition) const {
    std::optional<boost::json::object> found;
    static_cast<void>(wait_until([&] {
        for (boost::json::object& event : events()) {
            if (condition(event)) {
                found = std::move(event);
                return true;
            }
        }
        return false;
    }));
    return found;
}

std::chrono::milliseconds time_of(const boost::json::object& event) {
    const std::string text(event.at("time").as_string());
    std::tm fields{};
    const char* fraction = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &fields);
    if (fraction == nullptr)
        throw std::runtime_error("not a time: " + text);
    return std::chrono::seconds(::timegm(&fields)) + std::chrono::milliseconds(std::stoi(fraction + 1));
}

bool is(const boost::json::object& event, std::string_view key, std::string_view value) {
    const boost::json::value* member = event.if_contains({key.data(), key.size()});
    return member != nullptr && member->is_string() && member->as_string() == value;
}

} // namespace tapgate::test
