// SPDX-License-Identifier: Apache-2.0
#include "daemon/flow_syslog.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <tuple>
#include <utility>

#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

namespace tapgate::daemon {

Result<std::unique_ptr<FlowSyslog>> FlowSyslog::open(boost::asio::io_context& context,
                                                     const std::string& path) {
    std::unique_ptr<FlowSyslog> log(new FlowSyslog(context, path));
    if (const auto connected = log->connect(); !connected)
        return fail(connected.error());
    return log;
}

FlowSyslog::FlowSyslog(boost::asio::io_context& context, std::string path)
    : path_(std::move(path)), head_(fmt::format("<{}>tapgate-flow[{}]: ", LOG_DAEMON | LOG_INFO, ::getpid())),
      socket_(context) {}

Result<void> FlowSyslog::connect() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    TAPGATE_ASSERT(path_.size() < sizeof address.sun_path);
    std::memcpy(address.sun_path, path_.data(), path_.size());
    UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return fail_errno(fmt::format("connect to the syslog socket {}", path_));
    boost::system::error_code error;
    socket_.close(error);
    if (socket_.assign(socket.get(), error); error)
        return fail(ErrorCode::kIo, fmt::format("watch the syslog socket {}: {}", path_, error.message()));
    std::ignore = socket.release();
    return {};
}

Result<bool> FlowSyslog::send(const std::string& message) {
    const auto try_once = [&] {
        return ::send(socket_.native_handle(), message.data(), message.size(), MSG_NOSIGNAL) >= 0;
    };
    if (try_once())
        return true;
    if (errno != EAGAIN) {
        // The reader that there was is gone. Another may listen on a new socket of that path.
        if (const auto connected = connect(); !connected)
            return fail(connected.error());
        if (try_once())
            return true;
    }
    if (errno == EAGAIN)
        return false;
    return fail_errno(fmt::format("write to the syslog socket {}", path_));
}

Result<void> FlowSyslog::append(const std::string& record) {
    std::string message = head_ + record;
    if (waiting_.empty()) {
        const auto sent = send(message);
        if (!sent)
            return fail(sent.error());
        if (*sent)
            return {};
    }
    if (waiting_octets_ + message.size() > kMostWaiting)
        return fail(ErrorCode::kUnavailable,
                    fmt::format("the reader of the syslog socket {} is too slow", path_));
    waiting_octets_ += message.size();
    waiting_.push_back(std::move(message));
    if (waiting_.size() == 1)
        wait_for_room();
    return {};
}

void FlowSyslog::wait_for_room() {
    socket_.async_wait(boost::asio::posix::descriptor_base::wait_write,
                       [this](boost::system::error_code error) {
                           if (error != boost::asio::error::operation_aborted)
                               send_waiting();
                       });
}

void FlowSyslog::send_waiting() {
    while (!waiting_.empty()) {
        const auto sent = send(waiting_.front());
        if (!sent) {
            count_lost(waiting_.size(), sent.error());
            waiting_.clear();
            waiting_octets_ = 0;
            return;
        }
        if (!*sent) {
            wait_for_room();
            return;
        }
        waiting_octets_ -= waiting_.front().size();
        waiting_.pop_front();
    }
}

} // namespace tapgate::daemon
