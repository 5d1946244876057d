// SPDX-License-Identifier: Apache-2.0
#include "datapath/libbpf_log.hpp"
#include "datapath_fixture.hpp"

#include <poll.h>

namespace tapgate::datapath {
namespace {

TEST_F(DatapathTest, open_pins_maps_and_cleanup_leaves_nothing) {
    open();
    EXPECT_TRUE(holds("hash_key", std::uint32_t{0}));
    attach();
    datapath_.reset();
    EXPECT_TRUE(std::filesystem::exists(kPins + "/maps/bindings")) << "the guest stays confined";
    EXPECT_TRUE(Datapath::cleanup(kPins));
    EXPECT_FALSE(std::filesystem::exists(kPins));
    EXPECT_TRUE(Datapath::cleanup(kPins)) << "nothing to do is no error";
}

TEST_F(DatapathTest, bpffs_is_mounted_if_it_is_missing) {
    ASSERT_EQ(::umount2("/sys/fs/bpf", MNT_DETACH), 0);
    while (::umount2("/sys/fs/bpf", MNT_DETACH) == 0) {
    }
    open();
    EXPECT_TRUE(std::filesystem::exists(kPins + "/maps/abi"));
}

TEST_F(DatapathTest, a_second_daemon_is_refused) {
    open();
    const auto second = Datapath::open(settings_);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code(), ErrorCode::kExists);
    EXPECT_NE(second.error().message().find("another tapgated uses"), std::string::npos);
    const auto cleaned = Datapath::cleanup(kPins);
    ASSERT_FALSE(cleaned);
    EXPECT_EQ(cleaned.error().code(), ErrorCode::kExists);
}

TEST_F(DatapathTest, a_pin_dir_outside_bpffs_is_refused) {
    for (const char* path : {"/tmp/tapgate-no-bpffs", "relative", "", "/"}) {
        settings_.pin_dir = path;
        const auto opened = Datapath::open(settings_);
        ASSERT_FALSE(opened) << path;
        EXPECT_EQ(opened.error().code(), ErrorCode::kInvalid) << opened.error().message();
    }
    EXPECT_FALSE(std::filesystem::exists("/tmp/tapgate-no-bpffs"));
}

TEST_F(DatapathTest, maps_of_another_abi_are_not_adopted) {
    open();
    datapath_.reset();

    struct {
        std::uint32_t version, pad;
        std::uint64_t cookie;
    } record{TG_ABI_VERSION + 1, 0, 0};

    store("abi", std::uint32_t{0}, record);
    const auto opened = Datapath::open(settings_);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code(), ErrorCode::kInvalid);
    EXPECT_NE(opened.error().message().find("tapgated --cleanup"), std::string::npos);
    EXPECT_TRUE(std::filesystem::exists(kPins + "/maps/guests")) << "nothing that was there is removed";
}

TEST_F(DatapathTest, maps_of_another_network_namespace_are_not_adopted) {
    open();
    datapath_.reset();
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    const auto opened = Datapath::open(settings_);
    ASSERT_FALSE(opened);
    EXPECT_NE(opened.error().message().find("another network namespace"), std::string::npos);
}

TEST_F(DatapathTest, a_failed_open_leaves_nothing) {
    run("mkdir -p " + kPins + "/maps/guests"); // where a map has to be pinned
    ASSERT_FALSE(Datapath::open(settings_));
    run("rmdir " + kPins + "/maps/guests " + kPins + "/maps " + kPins);
}

TEST_F(DatapathTest, both_programs_are_attached_and_detached_by_every_kind_the_kernel_has) {
    std::vector<AttachKind> kinds = {AttachKind::kClsact};
    if (has_tcx())
        kinds.push_back(AttachKind::kTcx);
    for (const AttachKind kind : kinds) {
        settings_.attach = kind;
        open();
        EXPECT_EQ(datapath_->attach_kind(), kind == AttachKind::kTcx ? "tcx" : "clsact");
        attach();
        EXPECT_TRUE(datapath_->is_guest(::if_nametoindex("tap0")));
        datapath_.reset();
        EXPECT_EQ(programs_on("tap0"), 2U);
        open();
        EXPECT_TRUE(datapath_->detach_guest(::if_nametoindex("tap0")));
        EXPECT_EQ(programs_on("tap0"), 0U);
        EXPECT_EQ(datapath_->detach_guest(::if_nametoindex("tap0")).error().code(), ErrorCode::kNotFound);
    }
}

TEST_F(DatapathTest, changing_the_kind_leaves_one_pair_of_programs_and_the_guest_id) {
    if (!has_tcx())
        GTEST_SKIP() << "there is one kind only: no tcx before Linux 6.6";
    open();
    const GuestId id = attach();
    for (const AttachKind kind : {AttachKind::kClsact, AttachKind::kTcx}) {
        settings_.attach = kind;
        open();
        EXPECT_EQ(attach(), id);
        EXPECT_EQ(programs_on("tap0"), 2U);
    }
}

TEST_F(DatapathTest, a_restart_keeps_the_guest_and_its_bindings) {
    open();
    const GuestId id = attach();
    store_name(id, 7, "allowed.test");
    store_binding(id, "203.0.113.5", {{7, in(std::chrono::seconds(60))}});
    open();
    EXPECT_EQ(attach(), id);
    EXPECT_EQ(names_of(id, "203.0.113.5"), std::vector<std::string>{"allowed.test"});
}

TEST_F(DatapathTest, other_addresses_or_a_new_interface_make_another_guest) {
    open();
    const GuestId first = attach();
    const GuestId second = attach("tap0", "192.0.2.3");
    EXPECT_GT(second, first);
    const unsigned ifindex = ::if_nametoindex("tap0");
    datapath_.reset();
    run("ip link del tap0; ip link add tap0 index " + std::to_string(ifindex) + " type veth peer name far0");
    open();
    EXPECT_GT(attach("tap0", "192.0.2.3"), second) << "the index is the same, the interface is not";
    EXPECT_EQ(programs_on("tap0"), 2U);
}

TEST_F(DatapathTest, a_guest_whose_interface_went_while_no_daemon_ran_is_forgotten) {
    open();
    attach();
    const unsigned ifindex = ::if_nametoindex("tap0");
    datapath_.reset();
    run("ip link del tap0");
    open();
    EXPECT_FALSE(datapath_->is_guest(ifindex));
    EXPECT_TRUE(std::filesystem::is_empty(kPins + "/links"));
}

TEST_F(DatapathTest, two_guests_cannot_share_an_address_and_a_missing_interface_is_named) {
    open();
    attach();
    GuestSpec spec;
    spec.ifindex = ::if_nametoindex("far0");
    spec.policy = "web";
    spec.addresses = {*IpAddress::parse("192.0.2.2")};
    EXPECT_EQ(datapath_->attach_guest(spec).error().code(), ErrorCode::kExists);
    spec.ifindex = 99999;
    spec.addresses = {*IpAddress::parse("192.0.2.9")};
    EXPECT_EQ(datapath_->attach_guest(spec).error().code(), ErrorCode::kNotFound);
    EXPECT_FALSE(datapath_->is_guest(99999));
}

TEST_F(DatapathTest, guests_of_one_policy_share_it_and_a_swap_replaces_it_in_place) {
    open();
    attach();
    attach("far0", "192.0.2.9");
    const std::uint32_t slot = guest().policy;
    EXPECT_EQ(guest(::if_nametoindex("far0")).policy, slot);
    EXPECT_EQ(generation_in(slot), generation_);
    install("web", "rules = [\"allow@any:tcp:443\"]");
    EXPECT_EQ(guest().policy, slot);
    EXPECT_EQ(generation_in(slot), generation_);
    install("other", "");
    EXPECT_EQ(generation_in(slot), generation_ - 1) << "another policy has a place of its own";
}

TEST_F(DatapathTest, a_guest_without_a_policy_is_not_attached) {
    open();
    GuestSpec spec;
    spec.ifindex = ::if_nametoindex("tap0");
    spec.policy = "nowhere";
    spec.addresses = {*IpAddress::parse("192.0.2.2")};
    const auto attached = datapath_->attach_guest(spec);
    ASSERT_FALSE(attached);
    EXPECT_EQ(attached.error().code(), ErrorCode::kNotFound);
    EXPECT_EQ(programs_on("tap0"), 0U);
}

TEST_F(DatapathTest, B46_a_new_daemon_leaves_guests_under_their_policy_until_it_attaches_them) {
    open();
    attach();
    const std::uint32_t before = guest().policy;
    const std::uint64_t generation = generation_;
    open("rules = [\"allow@any:tcp:443\"]");
    EXPECT_GE(datapath_->last_generation(), generation);
    EXPECT_EQ(guest().policy, before);
    EXPECT_EQ(generation_in(before), generation) << "what the new daemon loads goes elsewhere";
    datapath_->drop_unused_policies();
    EXPECT_EQ(generation_in(before), generation) << "a guest refers to it";
    attach();
    EXPECT_NE(guest().policy, before);
    EXPECT_EQ(generation_in(guest().policy), generation_);
    datapath_->drop_unused_policies();
    EXPECT_EQ(generation_in(before), 0U);
    EXPECT_EQ(generation_in(guest().policy), generation_);
}

TEST_F(DatapathTest, the_policy_that_an_earlier_daemon_has_left_keeps_place_and_generation) {
    open();
    install("same", "default_egress = \"allow\"");
    attach();
    const std::uint32_t slot = guest().policy;
    const std::uint64_t generation = generation_in(slot);
    open();
    EXPECT_EQ(generation_, generation);
    attach();
    datapath_->drop_unused_policies();
    EXPECT_EQ(guest().policy, slot);
    EXPECT_EQ(generation_in(slot), generation);
    install("web", "default_egress = \"allow\"");
    EXPECT_GT(generation_in(slot), generation) << "whatever is loaded later is a generation of its own";
}

TEST_F(DatapathTest, another_text_with_the_same_blocks_is_another_generation) {
    open();
    attach();
    const std::uint32_t slot = guest().policy;
    open("default_egress = \"allow\" # as they say");
    attach();
    EXPECT_NE(guest().policy, slot);
}

TEST_F(DatapathTest, the_addresses_of_the_host_are_replaced) {
    open();
    const IpAddress first = *IpAddress::parse("192.0.2.1");
    const IpAddress second = *IpAddress::parse("2001:db8::1");
    ASSERT_TRUE(datapath_->set_host_addresses({first, second}));
    EXPECT_TRUE(holds("host_addresses", to_abi(first)));
    ASSERT_TRUE(datapath_->set_host_addresses({second}));
    EXPECT_FALSE(holds("host_addresses", to_abi(first)));
    EXPECT_TRUE(holds("host_addresses", to_abi(second)));
}

TEST_F(DatapathTest, detach_removes_all_state_of_the_guest_and_of_no_other) {
    open();
    const GuestId id = attach();
    const GuestId other = attach("far0", "192.0.2.9");
    for (const GuestId owner : {id, other}) {
        store_name(owner, 7, "allowed.test");
        store("chains", tg_chain_key{owner, 5}, tg_chain{});
        store_binding(owner, "203.0.113.5", {{7, in(std::chrono::seconds(60))}});
    }
    store("pending", flow_key(), tg_pending{id, in(std::chrono::seconds(0)), guest().slot, 2, {}});
    tg_dns_key question{};
    question.guest_id = id;
    store("dns_pending", question, tg_dns_question{7, in(std::chrono::seconds(9)), 1, {}, {}});
    ASSERT_TRUE(datapath_->detach_guest(::if_nametoindex("tap0")));
    EXPECT_TRUE(datapath_->bindings(id).empty());
    EXPECT_FALSE(holds("names", tg_name_key{id, 7}));
    EXPECT_FALSE(holds("chains", tg_chain_key{id, 5}));
    EXPECT_FALSE(holds("bindings", binding_key(id, "203.0.113.5")));
    EXPECT_FALSE(holds("pending", flow_key()));
    EXPECT_FALSE(holds("dns_pending", question));
    EXPECT_EQ(datapath_->bindings(std::nullopt).size(), 1U);
    EXPECT_TRUE(holds("names", tg_name_key{other, 7}));
    EXPECT_TRUE(holds("chains", tg_chain_key{other, 5}));
}

TEST_F(DatapathTest, taking_a_pending_flow_works_once_and_gives_its_unit_back) {
    open();
    const GuestId id = attach();
    const unsigned ifindex = ::if_nametoindex("tap0");
    tg_guest_state counters{};
    counters.half_open = 3;
    set_state(guest().slot, counters);
    store("pending", flow_key(), tg_pending{id, in(std::chrono::seconds(0)), guest().slot, ifindex, {}});
    const FlowTuple flow{*Endpoint::parse("192.0.2.2:40000"), *Endpoint::parse("203.0.113.5:443")};
    const auto taken = datapath_->take_pending(flow);
    ASSERT_TRUE(taken);
    EXPECT_EQ(taken->guest, id);
    EXPECT_EQ(taken->ifindex, ifindex);
    EXPECT_FALSE(datapath_->take_pending(flow));
    EXPECT_EQ(state(guest().slot).half_open, 2U);
}

TEST_F(DatapathTest, sessions_have_a_cap_and_end_with_their_daemon) {
    open();
    const GuestId id = attach();
    const unsigned ifindex = ::if_nametoindex("tap0");
    EXPECT_TRUE(datapath_->take_session(id, 2));
    EXPECT_TRUE(datapath_->take_session(id, 2));
    EXPECT_FALSE(datapath_->take_session(id, 2));
    EXPECT_EQ(datapath_->guest_use(ifindex).sessions, 2U);
    datapath_->give_back_session(id);
    EXPECT_EQ(state(guest().slot).sessions, 1U);
    EXPECT_FALSE(datapath_->take_session(id + 1, 2)) << "no such guest";
    datapath_.reset();
    open();
    EXPECT_EQ(datapath_->guest_use(ifindex).sessions, 0U);
}

TEST_F(DatapathTest, units_that_a_killed_daemon_took_with_it_come_back) {
    open();
    const GuestId id = attach();
    // Killed between removing entries and giving their units back.
    tg_guest_state counters{};
    counters.half_open = 3;
    counters.dns_pending = 1;
    set_state(guest().slot, counters);
    store("pending", flow_key(), tg_pending{id, in(std::chrono::seconds(0)), guest().slot, 2, {}});
    open();
    EXPECT_EQ(attach(), id);
    EXPECT_EQ(state(guest().slot).half_open, 1U);
    EXPECT_EQ(state(guest().slot).dns_pending, 0U);
    // Never more than what is there: a counter below its entries would wrap.
    counters.half_open = 0;
    set_state(guest().slot, counters);
    open();
    EXPECT_EQ(state(guest().slot).half_open, 0U);
}

TEST_F(DatapathTest, sweep_removes_what_is_overdue_and_keeps_counters_exact) {
    open();
    const GuestId id = attach();
    tg_guest_state counters{};
    counters.half_open = 2;
    counters.dns_pending = 2;
    counters.bindings = 4;
    counters.names = 2;
    counters.chains = 2;
    set_state(guest().slot, counters);
    const std::uint64_t past = in(std::chrono::seconds(-1));
    const std::uint64_t future = in(std::chrono::seconds(60));
    tg_flow fresh = flow_key();
    fresh.guest_port = htons(40001);
    store("pending", flow_key(), tg_pending{id, in(std::chrono::seconds(-31)), guest().slot, 2, {}});
    store("pending", fresh, tg_pending{id, in(std::chrono::seconds(-1)), guest().slot, 2, {}});
    tg_dns_key late{};
    late.guest_id = id;
    tg_dns_key waiting = late;
    waiting.id = 1;
    store("dns_pending", late, tg_dns_question{7, past, 1, {}, {}});
    store("dns_pending", waiting, tg_dns_question{7, future, 1, {}, {}});
    store_binding(id, "203.0.113.5", {{7, past}, {8, past}});
    store_binding(id, "203.0.113.6", {{8, past}, {9, future}});
    store_name(id, 7, "name7.test", std::chrono::seconds(-1));
    store_name(id, 9, "name9.test");
    store("chains", tg_chain_key{id, 1}, tg_chain{past, past, 1, 0, {}});
    store("chains", tg_chain_key{id, 2}, tg_chain{future, past, 1, 0, {}});

    for (int i = 0; i < 4; ++i)
        datapath_->sweep();
    EXPECT_FALSE(holds("pending", flow_key()));
    EXPECT_TRUE(holds("pending", fresh));
    EXPECT_FALSE(holds("dns_pending", late));
    EXPECT_TRUE(holds("dns_pending", waiting));
    EXPECT_FALSE(holds("bindings", binding_key(id, "203.0.113.5")));
    EXPECT_TRUE(holds("bindings", binding_key(id, "203.0.113.6")));
    EXPECT_FALSE(holds("names", tg_name_key{id, 7}));
    EXPECT_TRUE(holds("names", tg_name_key{id, 9}));
    EXPECT_FALSE(holds("chains", tg_chain_key{id, 1}));
    EXPECT_TRUE(holds("chains", tg_chain_key{id, 2}));
    EXPECT_EQ(names_of(id, "203.0.113.6"), std::vector<std::string>{"name9.test"});
    const tg_guest_state after = state(guest().slot);
    EXPECT_EQ(after.half_open, 1U);
    EXPECT_EQ(after.dns_pending, 1U);
    EXPECT_EQ(after.bindings, 1U) << "slots that are over count no more, even beside live ones";
    EXPECT_EQ(after.names, 1U);
    EXPECT_EQ(after.chains, 1U);
}

TEST_F(DatapathTest, flush_removes_one_name_or_all) {
    open();
    const GuestId id = attach();
    tg_guest_state counters{};
    counters.bindings = 3;
    set_state(guest().slot, counters);
    store_name(id, 7, "seven.test");
    store_name(id, 8, "eight.test");
    store_binding(id, "203.0.113.5", {{7, in(std::chrono::seconds(60))}, {8, in(std::chrono::seconds(60))}});
    store_binding(id, "2001:db8::5", {{7, in(std::chrono::seconds(60))}});
    EXPECT_EQ(datapath_->flush_bindings(id, "other.test"), 0U);
    EXPECT_EQ(datapath_->flush_bindings(id, "seven.test"), 2U);
    EXPECT_EQ(names_of(id, "203.0.113.5"), std::vector<std::string>{"eight.test"});
    EXPECT_FALSE(holds("names", tg_name_key{id, 7}));
    EXPECT_EQ(state(guest().slot).bindings, 1U);
    EXPECT_EQ(datapath_->flush_bindings(id, std::nullopt), 1U);
    EXPECT_TRUE(datapath_->bindings(id).empty());
    EXPECT_EQ(state(guest().slot).bindings, 0U);
}

TEST_F(DatapathTest, listeners_of_all_kinds_are_taken_and_closing_withdraws_them) {
    open();
    for (const auto& [kind, family, type] : {std::tuple(TG_LISTENER_TCP4, AF_INET, SOCK_STREAM),
                                             std::tuple(TG_LISTENER_TCP6, AF_INET6, SOCK_STREAM),
                                             std::tuple(TG_LISTENER_DNS4, AF_INET, SOCK_DGRAM),
                                             std::tuple(TG_LISTENER_DNS6, AF_INET6, SOCK_DGRAM)}) {
        UniqueFd socket(::socket(family, type | SOCK_CLOEXEC, 0));
        sockaddr_storage address{};
        const unsigned length =
            Endpoint{*IpAddress::parse(family == AF_INET ? "127.0.0.1" : "::1"), 0}.to_sockaddr(address);
        ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
        if (type == SOCK_STREAM) {
            ASSERT_EQ(::listen(socket.get(), 1), 0);
        }
        const auto set = datapath_->set_listener(1, kind, socket.get());
        ASSERT_TRUE(set) << set.error().message();
        const std::uint32_t index = TG_LISTENER_KINDS + kind;
        EXPECT_TRUE(holds("listeners", index));
        socket.reset();
        EXPECT_FALSE(holds("listeners", index));
    }
}

TEST_F(DatapathTest, refusals_of_userspace_are_counted_with_the_guest_and_in_total) {
    open();
    attach();
    const unsigned ifindex = ::if_nametoindex("tap0");
    datapath_->count_drop(ifindex, TG_DROP_POLICY);
    datapath_->count_drop(std::nullopt, TG_DROP_POLICY);
    open();
    const auto total = datapath_->drops(std::nullopt);
    ASSERT_FALSE(total.empty());
    EXPECT_EQ(total.back().reason, TG_DROP_POLICY);
    EXPECT_EQ(total.back().packets, 2U);
    const auto own = datapath_->drops(ifindex);
    ASSERT_FALSE(own.empty());
    EXPECT_EQ(own.back().packets, 1U);
}

TEST_F(DatapathTest, a_dropped_packet_is_reported_and_counted) {
    open();
    const GuestId id = attach();
    run("ip link set far0 up");
    const UniqueFd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    sockaddr_ll far{};
    far.sll_family = AF_PACKET;
    far.sll_ifindex = static_cast<int>(::if_nametoindex("far0"));
    std::array<std::uint8_t, 60> frame{2, 0, 0, 0, 0, 1,    2,
                                       0, 0, 0, 0, 2, 0x88, 0xb5}; // IEEE 802 experimental
    ASSERT_EQ(
        ::sendto(socket.get(), frame.data(), frame.size(), 0, reinterpret_cast<sockaddr*>(&far), sizeof(far)),
        60);
    // far0 itself sends neighbour discovery too, so other events may come first.
    bool reported = false;
    for (int round = 0; round < 50 && !reported; ++round) {
        pollfd wait{datapath_->event_fd(), POLLIN, 0};
        ::poll(&wait, 1, 100);
        const auto dropped = [&](const DropEvent& event) {
            reported = reported || (event.reason == TG_DROP_ETHERTYPE && event.guest == id &&
                                    event.ifindex == ::if_nametoindex("tap0"));
        };
        datapath_->read_events(dropped, {});
    }
    EXPECT_TRUE(reported);
    const auto counts = datapath_->drops(::if_nametoindex("tap0"));
    EXPECT_TRUE(std::ranges::any_of(counts, [](const DropCount& count) {
        return count.reason == TG_DROP_ETHERTYPE && count.packets == 1;
    }));
    EXPECT_EQ(datapath_->events_lost(), 0U);
}

TEST_F(DatapathTest, the_mac_is_the_configured_or_the_learned_one) {
    open();
    attach();
    const unsigned ifindex = ::if_nametoindex("tap0");
    EXPECT_FALSE(datapath_->guest_mac(ifindex));
    tg_guest_state learned{};
    learned.mac = 0x060504030201;
    set_state(guest().slot, learned);
    EXPECT_EQ(datapath_->guest_mac(ifindex), (MacAddress{1, 2, 3, 4, 5, 6}));
}

TEST(LibbpfLogTest, the_line_that_says_why_is_found) {
    EXPECT_EQ(failure_line(
                  "libbpf: prog 'x': BPF program load failed\nlibbpf: prog 'x': -- BEGIN PROG LOAD LOG --\n"
                  "0: (95) exit\nR0 !read_ok\nprocessed 1 insns (limit 1000000)\n-- END PROG LOAD LOG --\n"
                  "libbpf: failed to load object\n"),
              "R0 !read_ok");
    EXPECT_EQ(failure_line("first\nlast\n\n"), "last");
    EXPECT_EQ(failure_line(""), "");
}

TEST(DropReasonTest, every_reason_has_a_word_and_a_sentence) {
    EXPECT_EQ(drop_reason_name(TG_DROP_FRAGMENT), "fragment");
    EXPECT_EQ(drop_reason_text(TG_DROP_POLICY), "denied by the policy once the first flight was seen");
    EXPECT_EQ(drop_reason_name(static_cast<tg_drop_reason>(127)), "unknown");
}

} // namespace
} // namespace tapgate::datapath
