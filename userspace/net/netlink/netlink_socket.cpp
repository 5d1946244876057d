// SPDX-License-Identifier: Apache-2.0
#include "net/netlink/netlink_socket.hpp"

#include <fmt/format.h>

#include <cerrno>

#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/time.h>

namespace tapgate::net {

namespace {

// The kernel answers within the system call; this only keeps a surprise from hanging the daemon.
constexpr timeval kAnswerTimeout{5, 0};
// Bursts of link events (hundreds of taps at boot) should fit; beyond it we dump again.
constexpr int kReceiveBufferBytes = 1 << 20;

struct Datagram {
    ByteView bytes;
    bool from_kernel = false;
    bool truncated = false;
};

Result<Datagram> read_datagram(int fd, std::vector<std::uint8_t>& buffer, int flags) {
    sockaddr_nl sender{};
    iovec vector{buffer.data(), buffer.size()};
    msghdr message{};
    message.msg_name = &sender;
    message.msg_namelen = sizeof(sender);
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    ssize_t length = 0;
    do {
        length = ::recvmsg(fd, &message, flags);
    } while (length < 0 && errno == EINTR);
    if (length < 0)
        return fail_errno("receive from rtnetlink");
    Datagram datagram;
    datagram.bytes = ByteView(buffer).first(static_cast<std::size_t>(length));
    datagram.from_kernel = sender.nl_pid == 0;
    datagram.truncated = (message.msg_flags & MSG_TRUNC) != 0;
    return datagram;
}

} // namespace

Result<NetlinkSocket> NetlinkSocket::open(std::uint32_t groups) {
    UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    if (!fd)
        return fail_errno("open a rtnetlink socket");
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = groups;
    // Strict checking makes dumps honour their filters. The buffer size is a wish.
    constexpr int kOn = 1;
    ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &kOn, sizeof(kOn));
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBufferBytes, sizeof(kReceiveBufferBytes));
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kAnswerTimeout, sizeof(kAnswerTimeout)) != 0 ||
        ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
        return fail_errno("set up a rtnetlink socket");
    return NetlinkSocket(std::move(fd));
}

Result<void> NetlinkSocket::request(const NetlinkRequest& request, std::string_view operation) {
    return exchange(request, operation, [](const NetlinkMessage&) {});
}

Result<void> NetlinkSocket::query(const NetlinkRequest& request, std::string_view operation,
                                  const Sink& sink) {
    return exchange(request, operation, sink);
}

/// Sends, then reads until the acknowledgement, the end of the dump or an error.
Result<void> NetlinkSocket::exchange(const NetlinkRequest& request, std::string_view operation,
                                     const Sink& sink) {
    const std::uint32_t sequence = ++sequence_;
    const std::vector<std::uint8_t> bytes = request.finish(sequence);
    if (::send(fd_.get(), bytes.data(), bytes.size(), 0) < 0)
        return fail_errno(operation);
    bool inconsistent = false;
    for (;;) {
        const auto datagram = read_datagram(fd_.get(), buffer_, 0);
        if (!datagram)
            return fail(datagram.error().with_context(operation));
        if (!datagram->from_kernel)
            continue;
        if (datagram->truncated)
            return fail(ErrorCode::kIo,
                        fmt::format("{}: an answer of more than {} bytes", operation, buffer_.size()));
        for (const NetlinkMessage& message : split_messages(datagram->bytes)) {
            if (message.header.nlmsg_seq != sequence)
                continue;
            inconsistent = inconsistent || (message.header.nlmsg_flags & NLM_F_DUMP_INTR) != 0;
            if (message.header.nlmsg_type != NLMSG_ERROR && message.header.nlmsg_type != NLMSG_DONE) {
                sink(message);
                continue;
            }
            // Both begin with 0 or a negative errno.
            const auto status = message.family<std::int32_t>();
            if (!status)
                return fail(ErrorCode::kIo, fmt::format("{}: a truncated answer", operation));
            if (*status != 0)
                return fail(Error::from_errno(-*status, operation));
            if (inconsistent)
                return fail(Error::from_errno(EAGAIN, operation));
            return {};
        }
    }
}

Result<NetlinkSocket::Received> NetlinkSocket::receive(const Sink& sink) {
    const auto datagram = read_datagram(fd_.get(), buffer_, MSG_DONTWAIT);
    if (!datagram) {
        const int error = datagram.error().errno_value();
        if (error == EAGAIN)
            return Received::kNothing;
        if (error == ENOBUFS)
            return Received::kOverrun;
        return fail(datagram.error());
    }
    if (datagram->truncated)
        return Received::kOverrun;
    if (datagram->from_kernel) {
        for (const NetlinkMessage& message : split_messages(datagram->bytes))
            sink(message);
    }
    return Received::kMessages;
}

} // namespace tapgate::net
