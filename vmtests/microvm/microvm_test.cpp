// SPDX-License-Identifier: Apache-2.0
#include "harness/daemon.hpp"
#include "harness/packets.hpp"
#include "harness/process.hpp"
#include "harness/sandbox.hpp"
#include "harness/services.hpp"
#include "harness/tcp_server.hpp"
#include "harness/topology.hpp"
#include "harness/wait.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>

// The promises of tests/netns behind a real tap, with a guest kernel of its own: frames arrive with a
// virtio-net header, unfinished checksums and segments larger than the MTU, as no veth delivers them.
namespace tapgate::test {
namespace {

constexpr unsigned kSite = 10;
constexpr unsigned kOther = 11;
constexpr unsigned kBulk = 20;
constexpr std::uint16_t kBulkPort = 7003;
constexpr int kLimitSeconds = 600;
constexpr std::uint16_t kEtherArp = 0x0806;
constexpr std::uint8_t kProtocolIcmpv6 = 58;

// curl's exit codes (man curl, EXIT CODES).
constexpr int kCouldNotResolve = 6;
constexpr int kTlsHandshakeFailed = 35;

/// How a command of the guest ended.
struct Entry {
    int code = -1;
    std::string output;
};

using Report = std::map<std::string, Entry>;

Report read_report(const std::filesystem::path& file) {
    Report report;
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string what;
        Entry entry;
        words >> what >> entry.code;
        std::getline(words >> std::ws, entry.output);
        report[what] = entry;
    }
    return report;
}

std::string text_of(const std::filesystem::path& file) {
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    return text.str();
}

DaemonConfig daemon_config(const std::string& splice) {
    DaemonConfig config;
    config.daemon = fmt::format("workers = 2\nsplice = \"{}\"", splice);
    config.policy = policy_text({"allow@www.allowed.test:tcp:443", "allow@bulk.test:tcp:7003"});
    // An emulated guest takes its time before it says hello, and is not to be taken for one that waits for
    // the server: what it says would be judged on its way, and not be spliced.
    config.timers = "server_first_ms = 5000";
    return config;
}

void make_tap(const Topology& topology) {
    must_run({"ip", "tuntap", "add", "tap0", "mode", "tap", "vnet_hdr"}, &topology.host());
    ip_batch(topology.host(), "link set tap0 address 02:00:00:00:01:01 up\n"
                              "address add 192.0.2.1/28 dev tap0\n"
                              "address add 2001:db8:1::1/64 dev tap0 nodad\n");
}

struct TopologyWithTap : Topology {
    TopologyWithTap() : Topology(0) { make_tap(*this); }
};

/// What a guest is to do (microvm/guest), and with which offloads of its card (microvm/boot).
struct Boot {
    std::string scenario = "promises";
    std::string offloads = "all";
};

/// What a guest did, before its reboot if that was part of it and then.
struct Reports {
    Report before_reboot;
    Report report;
};

/// The internet and the host, with a tap in place of the guest's veth.
class Host {
  public:
    explicit Host(const std::string& splice) : daemon_(topology_, daemon_config(splice)) {}

    /// Deletes the tap and makes it again.
    void renew_tap() const {
        ip_batch(topology_.host(), "link delete tap0\n");
        make_tap(topology_);
    }

    /// Boots the guest, lets it do all it does, and gives its reports; empty if it did not come to an end.
    [[nodiscard]] Reports boot(const Boot& boot) const {
        const auto folder = scratch_dir() / fmt::format("microvm-{}-{}", boot.scenario, boot.offloads);
        std::filesystem::remove_all(folder);
        std::filesystem::create_directories(folder);
        std::filesystem::copy_file(web_.ca_file(), folder / "ca.pem");
        std::filesystem::copy_file(TAPGATE_MICROVM_HOSTILE, folder / "hostile");
        const Completed booted =
            run_program({TAPGATE_MICROVM_BOOT, "--kernel", "6.12", "--tap", "tap0", "--mac",
                         "02:00:00:00:00:02", "--offloads", boot.offloads, "--scenario", boot.scenario,
                         "--limit", fmt::format("{}", kLimitSeconds), folder},
                        &topology_.host(), std::chrono::seconds(kLimitSeconds + 60));
        EXPECT_EQ(booted.exit_code, 0) << booted.err;
        Reports reports{read_report(folder / "report-before-reboot"), read_report(folder / "report")};
        if (reports.report.empty())
            std::cerr << "the guest's console:\n" << text_of(folder / "console.log");
        std::cout << text_of(folder / "report-before-reboot") << text_of(folder / "report");
        return reports;
    }

    [[nodiscard]] const Daemon& daemon() const { return daemon_; }

    [[nodiscard]] const NetNs& internet() const { return topology_.internet(); }

  private:
    TopologyWithTap topology_;
    Resolver resolver_{topology_.internet(),
                       {dual_stack("www.allowed.test", kSite), dual_stack("www.denied.test", kSite),
                        dual_stack("bulk.test", kBulk)}};
    WebServer web_{topology_.internet(), {kSite, kOther}, {"www.allowed.test", "www.denied.test"}};
    TcpServer echo4_{topology_.internet(), {ipv4().server(kBulk), kBulkPort}, echo};
    TcpServer echo6_{topology_.internet(), {ipv6().server(kBulk), kBulkPort}, echo};
    Daemon daemon_;
};

/// The guest's card has these offloads (microvm/boot) and no others, for sending and for receiving.
void expect_offloads(Report report, const std::string& offloads) {
    const std::string bits = report["features"].output;
    ASSERT_GE(bits.size(), 13U);
    for (const std::size_t checksum : {0U, 1U}) // VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM
        EXPECT_EQ(bits[checksum], offloads == "none" ? '0' : '1') << bits;
    for (const std::size_t segmentation : {7U, 8U, 11U, 12U}) // ..._GUEST_TSO4, 6, ..._HOST_TSO4, 6
        EXPECT_EQ(bits[segmentation], offloads == "all" ? '1' : '0') << bits;
}

void expect_promises(Report report, const Host& host) {
    for (const std::string family : {"4", "6"}) {
        SCOPED_TRACE("IPv" + family);
        EXPECT_EQ(report["allowed-" + family].code, 0) << report["allowed-" + family].output;
        EXPECT_EQ(report["allowed-" + family].output, "served www.allowed.test");
        EXPECT_EQ(report["denied-" + family].code, kCouldNotResolve) << report["denied-" + family].output;
        EXPECT_EQ(report["other-sni-" + family].code, kTlsHandshakeFailed)
            << report["other-sni-" + family].output;
        EXPECT_NE(report["unresolved-" + family].code, 0) << report["unresolved-" + family].output;
        EXPECT_EQ(report["bulk-" + family].code, 0) << report["bulk-" + family].output;
    }
    if (testing::Test::HasFailure())
        std::cerr << "the daemon's log:\n" << host.daemon().log();
}

/// What carried the connections that have ended, told from the events: how many there were of each.
std::map<std::string, unsigned> carriers(const Host& host) {
    std::map<std::string, unsigned> carriers;
    const boost::json::object reply = host.daemon().ask({"event", "show", "--verdict", "allow"});
    for (const boost::json::value& event : reply.at("events").as_array()) {
        if (event.at("type").as_string() == "flow-end")
            ++carriers[std::string(event.at("splice").as_string())];
    }
    return carriers;
}

const IpPrefix kLinkLocal = IpPrefix::parse("fe80::/10").value();

/// The guest's addresses, the link-local one of its MAC too.
bool is_guest(const IpAddress& address) {
    for (const char* prefix : {"192.0.2.0/24", "2001:db8:1::/48", "fe80::ff:fe00:2/128"}) {
        if (IpPrefix::parse(prefix).value().contains(address))
            return true;
    }
    return false;
}

class MicroVm : public testing::Test {
  protected:
    Host host_{"auto"};
};

/// The same with the daemon out of the way once a connection is allowed: the frames of the guest's card go
/// out of the uplink, and back, as BPF has rewritten them.
class SplicedMicroVm : public testing::Test {
  protected:
    /// A fetch and a transfer both ways, for each IP version, at each `promises`.
    void expect_spliced(unsigned promises) const {
        const std::map<std::string, unsigned> wanted = {{"kernel", 4 * promises}};
        // An end is told when the flow is looked at next.
        EXPECT_TRUE(wait_until([&] { return carriers(host_) == wanted; }))
            << testing::PrintToString(carriers(host_));
    }

    Host host_{"kernel"};
};

TEST_F(SplicedMicroVm, every_offload_combination_keeps_every_promise) {
    unsigned promises = 0;
    for (const std::string offloads : {"checksum", "none"}) {
        SCOPED_TRACE("offloads: " + offloads);
        const Report report = host_.boot({"promises", offloads}).report;
        expect_offloads(report, offloads);
        expect_promises(report, host_);
        expect_spliced(++promises);
    }
}

TEST_F(SplicedMicroVm, a_guest_that_reboots_on_its_tap_is_served_as_before_with_all_offloads) {
    const Reports reports = host_.boot({"reboot", "all"});
    expect_promises(reports.before_reboot, host_);
    expect_offloads(reports.report, "all");
    expect_promises(reports.report, host_);
    expect_spliced(2);
}

TEST_F(MicroVm, what_no_kernel_sends_is_dropped_for_its_reason_and_nothing_of_it_leaves) {
    const auto drops = [this] {
        std::map<std::string, std::uint64_t> counts;
        for (const boost::json::value& row : host_.daemon().guest().at("drops").as_array())
            counts[std::string(row.at("reason").as_string())] = row.at("packets").to_number<std::uint64_t>();
        return counts;
    };
    PacketTap uplink(host_.internet(), "eth0");
    Report report = host_.boot({"hostile", "all"}).report;
    for (const std::string what : {"before", "allowed-4", "allowed-6"})
        EXPECT_EQ(report[what].output, "served www.allowed.test") << what;

    ASSERT_EQ(report["hostile"].code, 0) << report["hostile"].output;
    std::istringstream sent(report["hostile"].output);
    std::map<std::string, std::uint64_t> counted = drops();
    std::string reason;
    std::uint64_t count = 0;
    unsigned reasons = 0;
    for (std::string bar; sent >> reason >> count; sent >> bar, ++reasons) {
        if (reason == "nd") // the guest's own kernel asks for routers
            EXPECT_GE(counted[reason], count) << reason;
        else
            EXPECT_EQ(counted[reason], count) << reason;
    }
    EXPECT_EQ(reasons, 15U);

    unsigned allowed = 0;
    for (const Seen& seen : uplink.drain()) {
        EXPECT_TRUE(seen.ethertype == kEtherIpv4 || seen.ethertype == kEtherIpv6 ||
                    seen.ethertype == kEtherArp)
            << seen.to_string();
        if (!seen.from)
            continue;
        EXPECT_FALSE(is_guest(seen.from->address)) << seen.to_string();
        if (kLinkLocal.contains(seen.from->address)) // the ends of the uplink to each other
            continue;
        EXPECT_TRUE(seen.protocol == kProtocolTcp || seen.protocol == kProtocolUdp ||
                    seen.protocol == kProtocolIcmpv6)
            << seen.to_string();
        if (seen.tcp_flags != kTcpSyn)
            continue;
        EXPECT_EQ(seen.to->port, 443) << seen.to_string();
        ++allowed;
    }
    EXPECT_EQ(allowed, 3U) << "only the three fetches may have dialled";
}

TEST_F(MicroVm, a_tap_that_was_removed_and_made_again_is_served) {
    host_.renew_tap();
    expect_promises(host_.boot({}).report, host_);
}

} // namespace
} // namespace tapgate::test
