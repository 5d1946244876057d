// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "net/netlink/netlink_message.hpp"

#include <cstdint>
#include <functional>
#include <string_view>

namespace tapgate::net {

/// A rtnetlink socket (rtnetlink(7)). One thread.
class NetlinkSocket {
  public:
    using Sink = std::function<void(const NetlinkMessage&)>;

    /// `groups` are RTMGRP_ bits whose notifications it receives; a socket with groups is for receive(), one
    /// without for request() and query().
    static Result<NetlinkSocket> open(std::uint32_t groups = 0);

    [[nodiscard]] int fd() const { return fd_.get(); }

    /// Sends a request and waits for its acknowledgement. Errors carry the kernel's errno; `operation` words
    /// them.
    Result<void> request(const NetlinkRequest& request, std::string_view operation);
    /// Sends a request for one object (flag NLM_F_ACK) or all (NLM_F_DUMP) and hands on each message of the
    /// answer. kUnavailable when the kernel says that a dump is inconsistent because things changed
    /// meanwhile.
    Result<void> query(const NetlinkRequest& request, std::string_view operation, const Sink& sink);

    enum class Received : std::uint8_t {
        kMessages, ///< handed on
        kNothing,  ///< none waits
        kOverrun,  ///< notifications were lost
    };
    /// One datagram of notifications, without waiting. Only the kernel's are handed on.
    Result<Received> receive(const Sink& sink);

  private:
    explicit NetlinkSocket(UniqueFd fd) : fd_(std::move(fd)), buffer_(kBufferBytes) {}

    Result<void> exchange(const NetlinkRequest& request, std::string_view operation, const Sink& sink);

    // The kernel's dumps use at most 32 KiB a datagram.
    static constexpr std::size_t kBufferBytes = 65536;

    UniqueFd fd_;
    std::vector<std::uint8_t> buffer_;
    std::uint32_t sequence_ = 0;
};

} // namespace tapgate::net
