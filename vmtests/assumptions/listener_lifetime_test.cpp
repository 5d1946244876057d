// SPDX-License-Identifier: Apache-2.0
//
// Asserts: when the process that owns the listener is killed, the listener leaves the sockmap by itself, so
// that the (still attached) program finds none; and a new process can put its own into the same slot.
//
// The design needs it for invariant I5 (B46): without a daemon, new flows are refused by the programs that
// stay, with no watchdog and no clean-up; and a restarted daemon serves again.
#include "child.hpp"
#include "harness/tcp_stream.hpp"
#include "harness/wait.hpp"
#include "steered_host.hpp"
#include "steering.h"
#include "steering.skel.h"

#include <bpf/bpf.h>
#include <gtest/gtest.h>

#include <cerrno>

#include <sys/socket.h>
#include <unistd.h>

namespace tapgate::assumptions {
namespace {

using namespace std::chrono_literals;

TEST(ListenerLifetime, a_killed_process_leaves_no_listener_behind_and_the_next_one_serves) {
    SteeredHost host;
    const std::uint32_t slot = STEER_TCP4;
    const auto has_listener = [&] {
        std::uint64_t cookie = 0;
        return ::bpf_map_lookup_elem(::bpf_map__fd(host.bpf().maps.listeners), &slot, &cookie) == 0;
    };
    const auto listen_for_good = [&] {
        UniqueFd listener = host.open_socket(test::ipv4(), SOCK_STREAM);
        host.set_listener(slot, listener.get());
        static_cast<void>(listener.release());
    };
    const auto connects = [&](std::chrono::milliseconds time) {
        return test::TcpStream::connect(host.topology().guest().ns, {test::ipv4().server(9), 443}, time)
            .has_value();
    };

    Child daemon(listen_for_good);
    EXPECT_TRUE(has_listener());
    EXPECT_TRUE(connects(test::kPatience));
    EXPECT_EQ(host.count(STEER_NO_LISTENER), 0U);

    daemon.kill();
    EXPECT_TRUE(test::wait_until([&] { return !has_listener(); }));
    EXPECT_FALSE(connects(500ms));
    EXPECT_GE(host.count(STEER_NO_LISTENER), 1U);

    const Child next(listen_for_good);
    EXPECT_TRUE(connects(test::kPatience));
}

} // namespace
} // namespace tapgate::assumptions
