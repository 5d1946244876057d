// SPDX-License-Identifier: Apache-2.0
//
// Asserts: TCP_REPAIR gives the sequence numbers of a connection that lives on, and is left without sending
// anything (TCP_REPAIR_OFF_NO_WP; TCP_REPAIR_OFF sends a window probe); a socket closed in repair mode sends
// neither FIN nor RST; TCP_TIMESTAMP is the clock that stands in the segments on the wire.
//
// The design needs it for the hand-off to the kernel splice (DESIGN 9.1, steps 4 to 6): the numbers must be
// exact, and a packet of the old socket after the hand-off would break the flow.
#include "attach.hpp"
#include "harness/tcp_server.hpp"
#include "harness/topology.hpp"
#include "harness/wait.hpp"
#include "traffic.skel.h"

#include <bpf/bpf.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <thread>

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace tapgate::assumptions {
namespace {

using namespace std::chrono_literals;

struct Unload {
    void operator()(traffic* bpf) const { traffic::destroy(bpf); }
};

// Long enough for what would be sent at once to be seen.
constexpr auto kQuiet = 300ms;

class TcpRepair : public testing::Test {
  protected:
    void SetUp() override {
        ASSERT_NE(bpf_, nullptr);
        attach_clsact(topology_.host(), "wan0", Direction::kEgress, ::bpf_program__fd(bpf_->progs.watch_tcp));
        stream_.emplace(test::TcpStream::connect(topology_.host(), server_.endpoint()).value());
        ASSERT_EQ(stream_->send("0123456789"), 0);
        ASSERT_EQ(stream_->receive(10).bytes, "0123456789");
        settle();
    }

    /// Waits until the kernel has acknowledged what it has to.
    void settle() const {
        for (std::uint64_t before = segments() - 1; before != segments();) {
            before = segments();
            std::this_thread::sleep_for(kQuiet);
        }
    }

    [[nodiscard]] std::uint64_t segments() const { return bpf_->bss->tcp_segments; }

    void set(int option, int value) const {
        ASSERT_EQ(::setsockopt(stream_->fd(), IPPROTO_TCP, option, &value, sizeof value), 0);
    }

    [[nodiscard]] std::uint32_t get(int option) const {
        std::uint32_t value = 0;
        socklen_t length = sizeof value;
        EXPECT_EQ(::getsockopt(stream_->fd(), IPPROTO_TCP, option, &value, &length), 0);
        return value;
    }

    [[nodiscard]] std::uint32_t sequence_of(int queue) const {
        set(TCP_REPAIR_QUEUE, queue);
        return get(TCP_QUEUE_SEQ);
    }

    test::Topology topology_;
    std::unique_ptr<traffic, Unload> bpf_{traffic::open_and_load()};
    test::TcpServer server_{topology_.internet(), {test::ipv4().server(9), 9}, test::echo};
    std::optional<test::TcpStream> stream_;
};

TEST_F(TcpRepair, sequence_numbers_are_read_and_nothing_is_sent) {
    const std::uint64_t before = segments();
    set(TCP_REPAIR, TCP_REPAIR_ON);
    const std::uint32_t sent = sequence_of(TCP_SEND_QUEUE);
    const std::uint32_t received = sequence_of(TCP_RECV_QUEUE);
    set(TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
    std::this_thread::sleep_for(kQuiet);
    EXPECT_EQ(segments(), before);
    EXPECT_EQ(sent, bpf_->bss->last_sequence_end);

    // The connection lives on, and the numbers with it.
    ASSERT_EQ(stream_->send("abcde"), 0);
    ASSERT_EQ(stream_->receive(5).bytes, "abcde");
    settle();
    set(TCP_REPAIR, TCP_REPAIR_ON);
    EXPECT_EQ(sequence_of(TCP_SEND_QUEUE), sent + 5);
    EXPECT_EQ(sequence_of(TCP_RECV_QUEUE), received + 5);
    set(TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
}

TEST_F(TcpRepair, the_plain_way_out_sends_a_window_probe) {
    const std::uint64_t before = segments();
    set(TCP_REPAIR, TCP_REPAIR_ON);
    set(TCP_REPAIR, TCP_REPAIR_OFF);
    EXPECT_TRUE(test::wait_until([&] { return segments() > before; }));
}

TEST_F(TcpRepair, a_socket_closed_in_repair_mode_is_silent) {
    const std::uint64_t before = segments();
    set(TCP_REPAIR, TCP_REPAIR_ON);
    stream_->close();
    std::this_thread::sleep_for(kQuiet);
    EXPECT_EQ(segments(), before);
}

TEST_F(TcpRepair, the_timestamp_clock_is_the_one_on_the_wire) {
    const std::uint32_t before = get(TCP_TIMESTAMP);
    ASSERT_EQ(stream_->send("x"), 0);
    ASSERT_EQ(stream_->receive(1).bytes, "x");
    settle();
    const std::uint32_t after = get(TCP_TIMESTAMP);
    const std::uint32_t wire = bpf_->bss->last_timestamp;
    // Modulo 2^32, in milliseconds.
    EXPECT_LE(wire - before, after - before) << before << " <= " << wire << " <= " << after;
}

} // namespace
} // namespace tapgate::assumptions
