// SPDX-License-Identifier: Apache-2.0
#include "daemon/service_manager.hpp"

#include "base/log.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace tapgate::daemon {

namespace {

std::string_view variable(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? std::string_view() : value;
}

/// Empty if nobody is there.
UniqueFd connect_to(std::string_view path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() < 2 || path.size() >= sizeof address.sun_path)
        return {};
    std::memcpy(address.sun_path, path.data(), path.size());
    if (path.front() == '@') // the abstract namespace, unix(7)
        address.sun_path[0] = '\0';
    UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
    if (!socket || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
        spdlog::warn("NOTIFY_SOCKET {}: nobody is there to be told", printable(path, 120));
        return {};
    }
    return socket;
}

} // namespace

ServiceManager ServiceManager::from_environment() {
    ServiceManager manager;
    if (const std::string_view path = variable("NOTIFY_SOCKET"); !path.empty())
        manager.socket_ = connect_to(path);
    const std::string_view process = variable("WATCHDOG_PID");
    pid_t pid = ::getpid();
    std::from_chars(process.data(), process.data() + process.size(), pid);
    manager.watched_ = !variable("WATCHDOG_USEC").empty() && pid == ::getpid();
    return manager;
}

void ServiceManager::stopping(std::chrono::seconds time) const {
    tell("STOPPING=1");
    tell(fmt::format("EXTEND_TIMEOUT_USEC={}", std::chrono::microseconds(time).count()));
}

void ServiceManager::tell(std::string_view state) const {
    if (socket_ && ::send(socket_.get(), state.data(), state.size(), MSG_NOSIGNAL) < 0)
        spdlog::debug("the service manager was not told {}", state);
}

} // namespace tapgate::daemon
