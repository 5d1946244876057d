// SPDX-License-Identifier: Apache-2.0
#include "harness/dns_tcp.hpp"
#include "harness/wait.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <mutex>
#include <set>
#include <thread>

// What the policy's [dns] limits leave of a tunnel that puts its data into questions (B15).
namespace tapgate::test {
namespace {

constexpr std::uint16_t kDns = 53;
constexpr unsigned kNamesPerZone = 8;
constexpr unsigned kMaxLabel = 30;
constexpr unsigned kMaxName = 60;

/// The name server of the tunnel's zone behind the trusted resolver: remembers every name it is asked.
class TunnelEnd {
  public:
    TunnelEnd(const NetNs& ns, const Endpoint& at)
        : responder_(ns, at, [this](const UdpSocket& socket, const Datagram& query) {
              if (const auto question = question_of(query.bytes)) {
                  const std::lock_guard lock(mutex_);
                  names_.insert(question->name);
              }
              socket.send(query.from, make_answer(query.bytes, {}));
          }) {}

    void forget() {
        const std::lock_guard lock(mutex_);
        names_.clear();
    }

    /// Distinct names that arrived, and the octets of data in them.
    [[nodiscard]] std::set<std::string> names() {
        const std::lock_guard lock(mutex_);
        return names_;
    }

  private:
    std::mutex mutex_;
    std::set<std::string> names_; // guarded by mutex_
    UdpResponder responder_;
};

class DnsLimits : public testing::TestWithParam<const Family*> {
  protected:
    void SetUp() override {
        DaemonConfig config;
        config.policy = policy_text({"allow@*.tunnel.test:tcp:443", "allow@*.calm.test"},
                                    fmt::format("[dns]\nmax_label = {}\nmax_name = {}\nnames_per_zone = {}\n",
                                                kMaxLabel, kMaxName, kNamesPerZone));
        config.dns = fmt::format("upstreams = [\"{}\"]", Endpoint{family().resolver, kDns}.to_string());
        config.guests.push_back({"vm1", "tap1", Topology::guest_addresses(1)});
        daemon_ = std::make_unique<Daemon>(topology_, config);
    }

    void TearDown() override {
        if (HasFailure() && daemon_)
            std::cerr << "the daemon's log:\n" << daemon_->log();
    }

    static const Family& family() { return *GetParam(); }

    static Endpoint gateway() { return {family().gateway, kDns}; }

    const NetNs& guest(unsigned number = 0) { return topology_.guest(number).ns; }

    std::optional<DnsReply> ask_gateway(const std::string& name, const std::string& type = "A") {
        return ask(guest(), gateway(), name, type, kPatience);
    }

    Topology topology_{2};
    TunnelEnd end_{topology_.internet(), {family().resolver, kDns}};
    std::unique_ptr<Daemon> daemon_;
};

/// `octets` of data as base32 would put them, different for each `number`.
std::string label_of(unsigned number, std::size_t octets) {
    std::string label = fmt::format("d{:05x}", number);
    label.resize(octets, 'q');
    return label;
}

TEST_P(DnsLimits, B15_a_tunnel_in_question_names_moves_less_than_a_kilobyte_a_minute) {
    const std::array<std::string, 4> types = {"TXT", "A", "CNAME", "MX"};
    const UdpSocket client(guest(), {family().guest, 0});
    // Well within the minute; a sliding minute lets no more through later.
    for (unsigned i = 0; i < 2000; ++i) {
        // As iodine and dnscat do: as many labels as fit, data in each.
        const std::string data = label_of(i, kMaxLabel);
        client.send(gateway(),
                    make_query(static_cast<std::uint16_t>(i), data + "." + label_of(i, 16) + ".tunnel.test",
                               types.at(i % types.size())));
        // And as one that knows the limits, so that some names do get through.
        client.send(gateway(),
                    make_query(static_cast<std::uint16_t>(i), label_of(i, 24) + ".tunnel.test", "TXT"));
        // NULL records are refused whatever the name.
        client.send(gateway(),
                    make_query(static_cast<std::uint16_t>(i), label_of(i, 12) + ".tunnel.test", "NULL"));
    }
    EXPECT_TRUE(wait_until([&] { return daemon_->drops("dns-limit") > 0; }));
    // Over TCP it is the same.
    for (unsigned i = 0; i < 20; ++i)
        ask_over_tcp(guest(), gateway(), label_of(50000 + i, 24) + ".tunnel.test", "TXT");
    std::size_t octets = 0;
    for (const std::string& name : end_.names())
        octets += name.ends_with(".tunnel.test") ? name.size() : 0;
    EXPECT_GT(octets, 0U) << "the zone is allowed";
    EXPECT_LE(end_.names().size(), kNamesPerZone + 1) << "and the probe's";
    EXPECT_LT(octets, 1000U);
}

TEST_P(DnsLimits, B15_long_labels_and_names_never_leave) {
    const std::uint64_t before = daemon_->drops("dns-limit");
    const auto label = ask_gateway(std::string(kMaxLabel + 1, 'a') + ".tunnel.test");
    EXPECT_TRUE(label && label->rcode == kNxDomain);
    std::string name = "tunnel.test";
    while (name.size() <= kMaxName)
        name.insert(0, "abcdefgh.");
    const auto whole = ask_gateway(name);
    EXPECT_TRUE(whole && whole->rcode == kNxDomain);
    EXPECT_EQ(daemon_->drops("dns-limit"), before + 2);
    EXPECT_EQ(end_.names(), std::set<std::string>{});
    const auto fits = ask_gateway(std::string(kMaxLabel, 'a') + ".tunnel.test");
    EXPECT_TRUE(fits && fits->rcode == kNoError);
}

TEST_P(DnsLimits, B15_a_zone_at_its_limit_does_not_keep_others_from_being_asked) {
    for (unsigned i = 0; i < kNamesPerZone; ++i) {
        const auto reply = ask_gateway(label_of(i, 8) + ".tunnel.test");
        EXPECT_TRUE(reply && reply->rcode == kNoError) << i;
    }
    const auto over = ask_gateway("more.tunnel.test");
    EXPECT_TRUE(over && over->rcode == kNxDomain);
    const auto known = ask_gateway(label_of(0, 8) + ".tunnel.test");
    EXPECT_TRUE(known && known->rcode == kNoError) << "asked before";
    const auto elsewhere = ask_gateway("www.calm.test");
    EXPECT_TRUE(elsewhere && elsewhere->rcode == kNoError);
    const Endpoint others{
        IpAddress::parse(family().name == "IPv4" ? "192.0.2.17" : "2001:db8:1:1::1").value(), kDns};
    const auto other_guest = ask(guest(1), others, "more.tunnel.test", "A", kPatience);
    EXPECT_TRUE(other_guest && other_guest->rcode == kNoError) << "each guest has its own";
    const boost::json::value counters = daemon_->guest().at("dns");
    EXPECT_EQ(counters.at("limited").to_number<unsigned>(), 1U);
    EXPECT_EQ(counters.at("answered").to_number<unsigned>(), kNamesPerZone + 2);
}

TEST_P(DnsLimits, a_flood_of_distinct_names_leaves_the_other_guest_alone) {
    std::atomic<bool> is_over{false};
    std::thread flood([&] {
        const UdpSocket client(guest(), {family().guest, 0});
        for (unsigned i = 0; !is_over; ++i)
            client.send(gateway(),
                        make_query(static_cast<std::uint16_t>(i), label_of(i, 20) + ".tunnel.test", "A"));
    });
    const Endpoint others{
        IpAddress::parse(family().name == "IPv4" ? "192.0.2.17" : "2001:db8:1:1::1").value(), kDns};
    unsigned answered = 0;
    for (unsigned i = 0; i < 50; ++i) {
        const auto reply = ask(guest(1), others, fmt::format("n{}.calm.test", i % kNamesPerZone), "A",
                               std::chrono::seconds(1));
        answered += reply && reply->rcode == kNoError ? 1 : 0;
    }
    is_over = true;
    flood.join();
    EXPECT_EQ(answered, 50U);
    EXPECT_GT(daemon_->drops("dns-rate") + daemon_->drops("dns-limit"), 0U);
}

INSTANTIATE_TEST_SUITE_P(Family, DnsLimits, families(), family_name);

} // namespace
} // namespace tapgate::test
