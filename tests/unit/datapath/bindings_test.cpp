// SPDX-License-Identifier: Apache-2.0
#include "datapath_fixture.hpp"
#include "harness/wait.hpp"

#include <atomic>
#include <map>
#include <string_view>
#include <thread>

namespace tapgate::datapath {
namespace {

using std::chrono::seconds;
using Names = std::vector<std::string>;

/// The wire form of dotted text.
std::vector<std::uint8_t> wire(std::string_view text) {
    std::vector<std::uint8_t> out;
    while (!text.empty()) {
        const std::size_t dot = std::min(text.find('.'), text.size());
        out.push_back(static_cast<std::uint8_t>(dot));
        out.insert(out.end(), text.begin(), text.begin() + static_cast<std::ptrdiff_t>(dot));
        text.remove_prefix(std::min(dot + 1, text.size()));
    }
    out.push_back(0);
    return out;
}

/// What the daemon records, without a packet in sight.
class BindingsTest : public DatapathTest {
  protected:
    void SetUp() override {
        DatapathTest::SetUp();
        if (!HasFatalFailure())
            open();
    }

    static unsigned tap() { return ::if_nametoindex("tap0"); }

    GuestId attach_with(std::uint32_t bindings, const char* interface = "tap0",
                        const char* address = "192.0.2.2") {
        GuestSpec spec;
        spec.ifindex = ::if_nametoindex(interface);
        spec.policy = "web";
        spec.addresses = {*IpAddress::parse(address)};
        spec.caps.bindings = bindings;
        const auto id = datapath_->attach_guest(spec);
        EXPECT_TRUE(id) << id.error().message();
        return id ? *id : 0;
    }

    static Recording answer(GuestId id, std::string_view name, const Names& addresses,
                            const Names& aliases = {}, std::uint32_t ttl_seconds = 300) {
        Recording recording;
        recording.guest = id;
        recording.name = wire(name);
        for (const std::string& alias : aliases)
            recording.aliases.push_back(wire(alias));
        for (const std::string& address : addresses)
            recording.addresses.push_back({*IpAddress::parse(address), ttl_seconds});
        return recording;
    }

    [[nodiscard]] Result<void> record(const Recording& recording, const char* interface = "tap0") {
        return datapath_->record_answer(::if_nametoindex(interface), recording);
    }

    void told(GuestId id, std::string_view name, const Names& addresses, const Names& aliases = {},
              std::uint32_t ttl_seconds = 300) {
        const auto recorded = record(answer(id, name, addresses, aliases, ttl_seconds));
        ASSERT_TRUE(recorded) << recorded.error().message();
    }

    /// A recording that only meets entries about to be removed is refused, so that its answer is not
    /// delivered.
    void told_at_last(GuestId id, std::string_view name) {
        EXPECT_TRUE(test::wait_until([&] { return record(answer(id, name, {"203.0.113.5"})).has_value(); }));
    }

    template <typename Value, typename Key>
    static std::optional<Value> look_up(const std::string& name, const Key& key) {
        Value value{};
        if (::bpf_map_lookup_elem(map(name).get(), &key, &value) != 0)
            return std::nullopt;
        return value;
    }

    /// Lets all names and chains look as if they had been told long ago.
    void settle() {
        const auto age = [](const std::string& name, auto key, auto value) {
            const UniqueFd fd = map(name);
            std::vector<decltype(key)> keys;
            for (const void* last = nullptr; ::bpf_map_get_next_key(fd.get(), last, &key) == 0;
                 last = &keys.back())
                keys.push_back(key);
            for (const auto& found : keys) {
                ASSERT_EQ(::bpf_map_lookup_elem(fd.get(), &found, &value), 0);
                value.told_ns = 0;
                ASSERT_EQ(::bpf_map_update_elem(fd.get(), &found, &value, BPF_EXIST), 0);
            }
        };
        age("names", tg_name_key{}, tg_name{});
        age("chains", tg_chain_key{}, tg_chain{});
    }

    [[nodiscard]] seconds lifetime(GuestId id, std::string_view address) const {
        for (const Binding& binding : datapath_->bindings(id))
            if (binding.address == *IpAddress::parse(address))
                return std::chrono::round<seconds>(binding.expires - BootClock::now());
        return seconds(0);
    }
};

TEST_F(BindingsTest, an_answer_over_tcp_is_recorded_with_its_aliases) {
    const GuestId id = attach();
    const auto before = BootClock::now();
    Recording recording = answer(id, "WWW.allowed.test", {"203.0.113.5", "2001:db8:7::5", "203.0.113.5"},
                                 {"cdn.Example.net", "edge.example.org"});
    recording.resolver = *IpAddress::parse("192.0.2.53");
    ASSERT_TRUE(record(recording));
    for (const char* address : {"203.0.113.5", "2001:db8:7::5"})
        EXPECT_EQ(names_of(id, address), Names{"www.allowed.test<cdn.example.net<edge.example.org"});
    const auto bindings = datapath_->bindings(id);
    ASSERT_EQ(bindings.size(), 2U);
    EXPECT_EQ(bindings[0].aliases, (Names{"cdn.example.net", "edge.example.org"}));
    EXPECT_EQ(bindings[0].resolver, IpAddress::parse("192.0.2.53"));
    EXPECT_GE(bindings[0].told, before);
    EXPECT_LE(bindings[0].told, BootClock::now());
    EXPECT_EQ(lifetime(id, "203.0.113.5"), seconds(300));
    const tg_guest_state counted = state(guest().slot);
    EXPECT_EQ(counted.bindings, 2U);
    EXPECT_EQ(counted.names, 3U);
    EXPECT_EQ(counted.chains, 1U);
    ASSERT_TRUE(record(recording)) << "once more";
    EXPECT_EQ(state(guest().slot).bindings, 2U);
    EXPECT_EQ(state(guest().slot).names, 3U);
}

// An attacker's name that once led through an allowed zone must not carry that to its other addresses.
TEST_F(BindingsTest, aliases_belong_to_a_name_at_an_address_and_not_to_the_name) {
    const GuestId id = attach();
    told(id, "evil.test", {"203.0.113.5"}, {"good.allowed.test"});
    told(id, "evil.test", {"203.0.113.66"});
    EXPECT_EQ(names_of(id, "203.0.113.5"), Names{"evil.test<good.allowed.test"});
    EXPECT_EQ(names_of(id, "203.0.113.66"), Names{"evil.test"});
    told(id, "evil.test", {"203.0.113.66"}, {"other.test"});
    EXPECT_EQ(names_of(id, "203.0.113.66"), (Names{"evil.test", "evil.test<other.test"}));
    EXPECT_EQ(names_of(id, "203.0.113.5"), Names{"evil.test<good.allowed.test"});
}

TEST_F(BindingsTest, a_binding_without_its_chain_or_an_alias_binds_nothing) {
    const GuestId id = attach();
    told(id, "www.allowed.test", {"203.0.113.5"}, {"cdn.test"});
    const auto binding = look_up<tg_binding>("bindings", binding_key(id, "203.0.113.5"));
    ASSERT_TRUE(binding);
    const tg_chain_key key{id, binding->names[0].chain_id};
    const auto chain = look_up<tg_chain>("chains", key);
    ASSERT_TRUE(chain);
    EXPECT_EQ(chain->alias_count, 1U);
    const tg_name_key alias{id, chain->alias_ids[0]};
    ASSERT_EQ(::bpf_map_delete_elem(map("names").get(), &alias), 0);
    EXPECT_EQ(names_of(id, "203.0.113.5"), Names{});
    told(id, "www.allowed.test", {"203.0.113.5"}, {"cdn.test"});
    EXPECT_EQ(names_of(id, "203.0.113.5"), Names{"www.allowed.test<cdn.test"}) << "told again";
    ASSERT_EQ(::bpf_map_delete_elem(map("chains").get(), &key), 0);
    EXPECT_EQ(names_of(id, "203.0.113.5"), Names{});
}

TEST_F(BindingsTest, only_the_guest_that_is_there_now_is_recorded_for) {
    const GuestId id = attach();
    EXPECT_EQ(record(answer(id + 1, "allowed.test", {"203.0.113.5"})).error().code(), ErrorCode::kNotFound);
    EXPECT_EQ(record(answer(id, "allowed.test", {"203.0.113.5"}), "far0").error().code(),
              ErrorCode::kNotFound);
    EXPECT_TRUE(datapath_->bindings(std::nullopt).empty());
}

TEST_F(BindingsTest, B43_256_addresses_are_recorded_and_one_more_is_refused_whole) {
    const GuestId id = attach();
    Recording recording = answer(id, "large.allowed.test", {});
    for (std::uint32_t i = 0; i < TG_RECORDING_ADDRESSES_MAX; ++i)
        recording.addresses.push_back({IpAddress::from_v4(0xc6120000 + i), 300});
    ASSERT_TRUE(record(recording));
    EXPECT_EQ(datapath_->bindings(id).size(), std::size_t{TG_RECORDING_ADDRESSES_MAX});
    datapath_->flush_bindings(id, std::nullopt);
    recording.addresses.push_back({IpAddress::from_v4(0xc6130000), 300});
    EXPECT_EQ(record(recording).error().code(), ErrorCode::kInvalid);
    EXPECT_TRUE(datapath_->bindings(id).empty());
}

TEST_F(BindingsTest, the_longest_names_and_the_longest_chain_are_recorded_and_one_more_alias_is_not) {
    const GuestId id = attach();
    const std::string label(61, 'x');
    const auto longest = [&](int i) {
        return label + "." + label + "." + label + "." + label.substr(3) + "." + std::to_string(10 + i) +
               ".t";
    };
    Names aliases;
    for (int i = 0; i < TG_DNS_ALIASES_MAX; ++i)
        aliases.push_back(longest(i));
    told(id, longest(80), {"203.0.113.5"}, aliases);
    const auto bound = datapath_->bound_names(id, *IpAddress::parse("203.0.113.5")).value();
    ASSERT_EQ(bound.size(), 1U);
    EXPECT_EQ(bound[0].name, longest(80));
    EXPECT_EQ(bound[0].aliases, aliases);
    aliases.emplace_back("one.more.test");
    EXPECT_EQ(record(answer(id, "a.test", {"203.0.113.6"}, aliases)).error().code(), ErrorCode::kInvalid);
    EXPECT_EQ(record(answer(id, "", {"203.0.113.6"}, {std::string(64, 'x')})).error().code(),
              ErrorCode::kInvalid)
        << "not a name";
}

TEST_F(BindingsTest, B37_lifetimes_are_clamped_unless_they_are_to_be_exact) {
    GuestId id = attach();
    for (const auto& [ttl, expected] : {std::pair(0U, 60), std::pair(59U, 60), std::pair(61U, 61),
                                        std::pair(86400U, 86400), std::pair(0x7fffffffU, 86400)}) {
        told(id, "allowed.test", {"203.0.113.5"}, {}, ttl);
        EXPECT_EQ(lifetime(id, "203.0.113.5"), seconds(expected)) << ttl;
        datapath_->flush_bindings(id, std::nullopt);
    }
    settings_.min_ttl = seconds(0);
    open();
    id = attach();
    for (const auto& [ttl, expected] : {std::pair(0U, 1), std::pair(1U, 1), std::pair(5U, 5)}) {
        told(id, "allowed.test", {"203.0.113.5"}, {}, ttl);
        EXPECT_EQ(lifetime(id, "203.0.113.5"), seconds(expected)) << ttl;
        datapath_->flush_bindings(id, std::nullopt);
    }
}

TEST_F(BindingsTest, at_its_cap_a_guest_is_refused_and_counted_and_no_other_guest_is) {
    const GuestId id = attach_with(2);
    const GuestId other = attach_with(100, "far0", "192.0.2.9");
    told(id, "one.test", {"203.0.113.1", "203.0.113.2"});
    const auto refused = record(answer(id, "two.test", {"203.0.113.3"}));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::kLimit);
    const auto drops = datapath_->drops(tap());
    ASSERT_EQ(drops.size(), 1U);
    EXPECT_EQ(drops[0].reason, TG_DROP_DNS_BINDING_CAP);
    EXPECT_EQ(drops[0].packets, 1U);
    EXPECT_TRUE(record(answer(other, "two.test", {"203.0.113.3"}), "far0"));
    EXPECT_TRUE(record(answer(id, "one.test", {"203.0.113.1"}))) << "what is known is prolonged";
}

// B34: aliases are the attacker's to make up, so they count as well.
TEST_F(BindingsTest, B34_aliases_cannot_fill_the_tables_beyond_what_the_cap_of_bindings_allows) {
    const GuestId id = attach_with(20);
    int recorded = 0;
    for (int i = 0; i < 20; ++i) {
        Names aliases;
        for (int k = 0; k < TG_DNS_ALIASES_MAX; ++k)
            aliases.push_back("a" + std::to_string(i) + "x" + std::to_string(k) + ".test");
        const auto result = record(
            answer(id, "n" + std::to_string(i) + ".test", {"203.0.113." + std::to_string(i)}, aliases));
        recorded += result ? 1 : 0;
        EXPECT_TRUE(result || result.error().code() == ErrorCode::kLimit);
    }
    EXPECT_EQ(recorded, 2);
    EXPECT_LE(state(guest().slot).names, 20U * TG_NAMES_PER_BINDING);
    EXPECT_LE(state(guest().slot).chains, 20U);
    // Eviction gives their places back.
    settle();
    datapath_->evict_bindings(id, 20);
    EXPECT_EQ(state(guest().slot).names, 0U);
    EXPECT_EQ(state(guest().slot).chains, 0U);
    told(id, "late.test", {"203.0.113.99"}, {"alias.test"});
}

TEST_F(BindingsTest, eviction_takes_the_least_recently_used_of_one_guest_alone) {
    const GuestId id = attach_with(4);
    const GuestId other = attach_with(4, "far0", "192.0.2.9");
    for (const char* address : {"203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"})
        told(id, "n.test", {address}, {std::string("alias") + address[10] + ".test"});
    ASSERT_TRUE(record(answer(other, "old.test", {"203.0.113.1"}), "far0"));
    told(id, "n.test", {"203.0.113.1"}, {"alias1.test"}); // used again
    EXPECT_EQ(record(answer(id, "new.test", {"203.0.113.9"})).error().code(), ErrorCode::kLimit);
    settle();
    EXPECT_EQ(datapath_->evict_bindings(id, 2), 2U);
    EXPECT_EQ(names_of(id, "203.0.113.1"), Names{"n.test<alias1.test"});
    EXPECT_EQ(names_of(id, "203.0.113.2"), Names{});
    EXPECT_EQ(names_of(id, "203.0.113.3"), Names{});
    EXPECT_EQ(names_of(id, "203.0.113.4"), Names{"n.test<alias4.test"});
    EXPECT_EQ(names_of(other, "203.0.113.1"), Names{"old.test"});
    EXPECT_EQ(datapath_->guest_use(tap()).evicted, 2U);
    EXPECT_EQ(datapath_->guest_use(::if_nametoindex("far0")).evicted, 0U);
    EXPECT_EQ(datapath_->guest_use(tap()).bindings, 2U);
    EXPECT_EQ(datapath_->guest_use(~0U).bindings, 0U) << "no such guest";
    const tg_guest_state counted = state(guest().slot);
    EXPECT_EQ(counted.bindings, 2U);
    EXPECT_EQ(counted.names, 3U) << "a name and two aliases that are still bound";
    EXPECT_EQ(counted.chains, 2U);
    datapath_->sweep();
    std::map<std::string_view, std::size_t> fills;
    for (const TableFill& fill : datapath_->table_fills())
        fills[fill.table] = fill.entries;
    EXPECT_EQ(fills.at("bindings"), 3U) << "of both guests";
    EXPECT_EQ(fills.at("names"), 4U);
    EXPECT_EQ(fills.at("chains"), 2U);
    EXPECT_EQ(fills.at("guests"), 2U);
    EXPECT_EQ(fills.at("policies"), 1U);
    told(id, "new.test", {"203.0.113.9"});
}

TEST_F(BindingsTest, names_told_just_now_are_not_taken_for_unused) {
    const GuestId id = attach();
    told(id, "a.test", {"203.0.113.1"}, {"alias.test"});
    EXPECT_EQ(datapath_->evict_bindings(id, 1), 1U);
    EXPECT_EQ(state(guest().slot).names, 2U) << "their bindings may be about to be written";
}

// B36: an address that outlives its TTL while a flow uses it.
TEST_F(BindingsTest, B36_a_binding_in_use_is_kept_with_its_names) {
    const GuestId id = attach();
    told(id, "a.test", {"203.0.113.1"}, {"alias.test"}, 60);
    told(id, "b.test", {"203.0.113.1"}, {}, 60);
    const IpAddress address = *IpAddress::parse("203.0.113.1");
    const auto until = BootClock::now() + seconds(600);
    datapath_->keep_binding(id, address, "a.test", until);
    datapath_->keep_binding(id, address, "c.test", until);
    datapath_->keep_binding(id, *IpAddress::parse("203.0.113.2"), "a.test", until);
    const auto bindings = datapath_->bindings(id);
    ASSERT_EQ(bindings.size(), 2U) << "nothing new";
    for (const Binding& binding : bindings) {
        const bool kept = binding.name == "a.test";
        EXPECT_EQ(std::chrono::round<seconds>(binding.expires - BootClock::now()), seconds(kept ? 600 : 60));
    }
    const auto binding = look_up<tg_binding>("bindings", binding_key(id, "203.0.113.1"));
    ASSERT_TRUE(binding);
    const tg_bound_name& slot =
        binding->names[0].chain_id != 0 ? binding->names[0] : binding->names[TG_NAMES_PER_ADDRESS - 1];
    ASSERT_NE(slot.chain_id, 0U);
    const auto chain = look_up<tg_chain>("chains", tg_chain_key{id, slot.chain_id});
    ASSERT_TRUE(chain);
    EXPECT_GE(chain->expires_ns, to_abi_time(until));
    for (const std::uint64_t name : {std::uint64_t{slot.name_id}, std::uint64_t{chain->alias_ids[0]}}) {
        const auto entry = look_up<tg_name>("names", tg_name_key{id, name});
        ASSERT_TRUE(entry);
        EXPECT_GE(entry->expires_ns, to_abi_time(until));
    }
    datapath_->keep_binding(id, address, "a.test", BootClock::now() + seconds(5));
    EXPECT_GE(lifetime(id, "203.0.113.1"), seconds(60)) << "never shortened";
}

TEST_F(BindingsTest, what_is_over_cannot_be_kept) {
    const GuestId id = attach();
    store_name(id, 7, "a.test");
    store_binding(id, "203.0.113.1", {{7, in(seconds(-1))}});
    datapath_->keep_binding(id, *IpAddress::parse("203.0.113.1"), "a.test", BootClock::now() + seconds(60));
    EXPECT_EQ(names_of(id, "203.0.113.1"), Names{});
}

TEST_F(BindingsTest, who_answered_is_noted_with_a_question_in_flight_alone) {
    const GuestId id = attach();
    const IpAddress resolver = *IpAddress::parse("2001:db8::53");
    DnsFlow question;
    question.guest = id;
    question.client = {*IpAddress::parse("192.0.2.2"), 5555};
    question.server = *IpAddress::parse("198.51.100.7");
    question.id = 0x1234;
    EXPECT_FALSE(datapath_->set_resolver(question, resolver));
    tg_dns_key key{};
    key.guest_id = id;
    key.guest_address = to_abi(question.client.address);
    key.server_address = to_abi(question.server);
    key.guest_port = htons(5555);
    key.id = htons(0x1234);
    store("dns_pending", key, tg_dns_question{7, in(seconds(9)), 1, {}, {}});
    EXPECT_TRUE(datapath_->set_resolver(question, resolver));
    const auto entry = look_up<tg_dns_question>("dns_pending", key);
    ASSERT_TRUE(entry);
    EXPECT_EQ(from_abi(entry->resolver), resolver);
    EXPECT_EQ(entry->name_id, 7U);
    question.id = 0x1235;
    EXPECT_FALSE(datapath_->set_resolver(question, resolver));
}

// Who looked an entry up just before it was removed may not write to what is no longer in the table. How that
// is noticed is tested on entries made for it (B42 in tests/prog_run); here removing and recording run side
// by side.
TEST_F(BindingsTest, nothing_that_was_recorded_is_lost_to_others_that_are_removed_beside_it) {
    const GuestId id = attach();
    std::atomic<bool> done = false;
    std::thread remover([&] {
        while (!done)
            datapath_->flush_bindings(id, "other.test");
    });
    int lost = 0;
    for (int round = 0; round < 300; ++round) {
        told_at_last(id, "other.test");
        told_at_last(id, "kept.test");
        const Names names = names_of(id, "203.0.113.5");
        lost += std::ranges::count(names, "kept.test") == 1 ? 0 : 1;
        datapath_->flush_bindings(id, "kept.test");
    }
    done = true;
    remover.join();
    EXPECT_EQ(lost, 0);
    datapath_->flush_bindings(id, std::nullopt);
    EXPECT_EQ(state(guest().slot).bindings, 0U) << "and every slot was counted once";
}

} // namespace
} // namespace tapgate::datapath
