// SPDX-License-Identifier: Apache-2.0
#include "daemon/config.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <thread>

namespace tapgate::daemon {
namespace {

using namespace std::chrono_literals;

Config parse(std::string_view text, std::string_view file = "/etc/tapgate/tapgate.toml") {
    auto config = parse_config(text, file);
    if (!config) {
        ADD_FAILURE() << config.error().message();
        return {};
    }
    return std::move(*config);
}

IpAddress address(std::string_view text) {
    return IpAddress::parse(text).value();
}

GuestConfig guest_on(std::string name, std::string interface, std::vector<IpAddress> addresses = {}) {
    GuestConfig guest;
    guest.name = std::move(name);
    guest.interface = std::move(interface);
    guest.addresses = std::move(addresses);
    return guest;
}

/// The members of the file's tables, but for the number of workers, which is the machine's.
void expect_defaults(const Config& config) {
    EXPECT_EQ(config.daemon.control_socket, "/run/tapgate/control.sock");
    EXPECT_EQ(config.daemon.pin_dir, "/sys/fs/bpf/tapgate");
    EXPECT_EQ(config.daemon.mark, 0x7461U);
    EXPECT_EQ(config.daemon.route_table, 29793U);
    EXPECT_EQ(config.daemon.metrics_listen, (Endpoint{address("127.0.0.1"), 9664}));
    EXPECT_EQ(config.log.level, "info");
    EXPECT_EQ(config.log.format, LogFormat::kText);
    EXPECT_EQ(config.log.flows.file, "");
    EXPECT_EQ(config.log.flows.bytes, 64U << 20U);
    EXPECT_EQ(config.log.flows.files, 8U);
    EXPECT_EQ(config.log.flows.syslog, "");
    EXPECT_EQ(config.daemon.splice, policy::Splice::kAuto);
    EXPECT_TRUE(config.daemon.sandbox);
    EXPECT_TRUE(config.dns.upstreams.empty());
    EXPECT_EQ(config.dns.resolv_conf, "/etc/resolv.conf");
    EXPECT_EQ(config.dns.min_ttl, 60s);
    EXPECT_EQ(config.dns.max_ttl, 24h);
    EXPECT_EQ(config.dns.timeout, 2s);
    EXPECT_EQ(config.limits.sessions, 2048U);
    EXPECT_EQ(config.limits.half_open, 1024U);
    EXPECT_EQ(config.limits.bindings, 8192U);
    EXPECT_EQ(config.limits.dns_qps, 200U);
    EXPECT_EQ(config.limits.dns_connections, 16U);
    EXPECT_EQ(config.limits.dns_in_flight, 512U);
    EXPECT_EQ(config.timers.peek, 5s);
    EXPECT_EQ(config.timers.server_first, 300ms);
    EXPECT_EQ(config.timers.connect, 10s);
    EXPECT_EQ(config.timers.idle, 1h);
    EXPECT_EQ(config.timers.half_closed, 5min);
    EXPECT_EQ(config.timers.drain, 10s);
    EXPECT_EQ(config.timers.dns_idle, 10s);
    EXPECT_EQ(config.timers.peek_bytes, 65536U);
    EXPECT_TRUE(config.guests.empty());
    EXPECT_TRUE(config.policies.empty());
}

TEST(Config, an_empty_file_gives_the_defaults) {
    const Config config = parse("");
    EXPECT_EQ(config.daemon.workers, std::clamp(std::thread::hardware_concurrency(), 1U, 64U));
    expect_defaults(config);
}

TEST(Config, the_file_that_is_installed_shows_the_defaults) {
    std::ifstream file(TAPGATE_EXAMPLE_CONFIG);
    std::string settings; // without the # before them
    for (std::string line; std::getline(file, line);)
        settings += (line.starts_with("#") && !line.starts_with("# ") ? line.substr(1) : line) + "\n";
    EXPECT_NE(settings.find("\npin_dir"), std::string::npos);
    expect_defaults(parse(settings));
}

TEST(Config, metrics_can_be_switched_off) {
    EXPECT_FALSE(parse("[daemon]\nmetrics_listen = \"\"\n").daemon.metrics_listen.has_value());
}

TEST(Config, every_key_is_read) {
    const Config config = parse(R"(
[daemon]
workers = 3
control_socket = "/run/test.sock"
control_group = "operators"
pin_dir = "/sys/fs/bpf/test"
mark = 0x1234
route_table = 100
metrics_listen = "[::1]:9000"
splice = "copy"
sandbox = false

[log]
level = "debug"
format = "json"
flow_file = "/var/log/flows"
flow_file_mib = 2
flow_files = 3
flow_syslog = "/run/log"

[dns]
upstreams = ["192.0.2.53", "192.0.2.54:5353", "2001:db8::53", "[2001:db8::54]", "[2001:db8::55]:5353"]
resolv_conf = "/run/resolv.conf"
min_ttl = 0
max_ttl = 600
timeout_ms = 500

[limits]
sessions = 10
half_open = 11
bindings = 12
dns_qps = 13
dns_connections = 3
dns_in_flight = 14

[timers]
peek_ms = 100
server_first_ms = 50
connect_ms = 200
idle_s = 300
half_closed_s = 400
drain_s = 0
dns_idle_ms = 2500
peek_bytes = 4096

[groups]
corp = ["10.20.0.0/16"]
public = ["198.51.100.0/24", "2001:db8:2::/48"]

[[guest]]
name = "vm1"
interface = "tap0"
addresses = ["192.0.2.2", "2001:db8:1::2"]
gateways = ["192.0.2.1", "2001:db8:1::1"]
mac = "02:00:5E:00:53:01"
policy = "web"

[[guest]]
name = "ci-%i"
interface = "ci*"
addresses = ["192.0.2.3"]
policy = "web"

[policy.web]
file = "policies/web.toml"
watch = true

[policy.abs]
file = "/srv/abs.json"
)");
    EXPECT_EQ(config.daemon.workers, 3U);
    EXPECT_EQ(config.daemon.control_socket, "/run/test.sock");
    EXPECT_EQ(config.daemon.pin_dir, "/sys/fs/bpf/test");
    EXPECT_EQ(config.daemon.mark, 0x1234U);
    EXPECT_EQ(config.daemon.route_table, 100U);
    EXPECT_EQ(config.daemon.metrics_listen, (Endpoint{address("::1"), 9000}));
    EXPECT_EQ(config.log.level, "debug");
    EXPECT_EQ(config.log.format, LogFormat::kJson);
    EXPECT_EQ(config.log.flows.file, "/var/log/flows");
    EXPECT_EQ(config.log.flows.bytes, 2U << 20U);
    EXPECT_EQ(config.log.flows.files, 3U);
    EXPECT_EQ(config.log.flows.syslog, "/run/log");
    EXPECT_EQ(config.daemon.splice, policy::Splice::kCopy);
    EXPECT_FALSE(config.daemon.sandbox);
    EXPECT_EQ(config.daemon.control_group, "operators");
    const std::vector<Endpoint> upstreams = {{address("192.0.2.53"), 53},
                                             {address("192.0.2.54"), 5353},
                                             {address("2001:db8::53"), 53},
                                             {address("2001:db8::54"), 53},
                                             {address("2001:db8::55"), 5353}};
    EXPECT_EQ(config.dns.upstreams, upstreams);
    EXPECT_EQ(config.dns.resolv_conf, "/run/resolv.conf");
    EXPECT_EQ(config.dns.min_ttl, 0s);
    EXPECT_EQ(config.dns.max_ttl, 10min);
    EXPECT_EQ(config.dns.timeout, 500ms);
    EXPECT_EQ(config.limits.sessions, 10U);
    EXPECT_EQ(config.limits.half_open, 11U);
    EXPECT_EQ(config.limits.bindings, 12U);
    EXPECT_EQ(config.limits.dns_qps, 13U);
    EXPECT_EQ(config.limits.dns_connections, 3U);
    EXPECT_EQ(config.limits.dns_in_flight, 14U);
    EXPECT_EQ(config.timers.peek, 100ms);
    EXPECT_EQ(config.timers.server_first, 50ms);
    EXPECT_EQ(config.timers.connect, 200ms);
    EXPECT_EQ(config.timers.idle, 300s);
    EXPECT_EQ(config.timers.half_closed, 400s);
    EXPECT_EQ(config.timers.drain, 0s);
    EXPECT_EQ(config.timers.dns_idle, 2500ms);
    EXPECT_EQ(config.timers.peek_bytes, 4096U);
    ASSERT_EQ(config.groups.size(), 2U);
    EXPECT_EQ(config.groups.at("corp").at(0).to_string(), "10.20.0.0/16");
    EXPECT_EQ(config.groups.at("public").size(), 2U);
    ASSERT_EQ(config.guests.size(), 2U);
    const GuestConfig& guest = config.guests[0];
    EXPECT_EQ(guest.name, "vm1");
    EXPECT_EQ(guest.interface, "tap0");
    EXPECT_EQ(guest.addresses, (std::vector{address("192.0.2.2"), address("2001:db8:1::2")}));
    EXPECT_EQ(guest.gateways, (std::vector{address("192.0.2.1"), address("2001:db8:1::1")}));
    EXPECT_EQ(format_mac(guest.mac.value()), "02:00:5e:00:53:01");
    EXPECT_EQ(guest.policy, "web");
    EXPECT_FALSE(config.guests[1].mac.has_value());
    ASSERT_EQ(config.policies.size(), 2U);
    EXPECT_EQ(config.policies[0].name, "abs");
    EXPECT_EQ(config.policies[0].file, "/srv/abs.json");
    EXPECT_FALSE(config.policies[0].watch);
    EXPECT_EQ(config.policies[1].file, "/etc/tapgate/policies/web.toml");
    EXPECT_TRUE(config.policies[1].watch);
}

TEST(Config, policy_files_are_relative_to_the_configuration) {
    EXPECT_EQ(parse("[policy.a]\nfile = \"a.toml\"", "tapgate.toml").policies.at(0).file, "a.toml");
    EXPECT_EQ(parse("[policy.a]\nfile = \"../a.toml\"", "/etc/x/tapgate.toml").policies.at(0).file,
              "/etc/a.toml");
}

TEST(Config, a_mapped_address_is_its_ipv4_form) {
    const Config config = parse("[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\n"
                                "addresses = [\"::ffff:192.0.2.2\"]\npolicy = \"p\"");
    EXPECT_EQ(config.guests.at(0).addresses.at(0).to_string(), "192.0.2.2");
}

TEST(GuestConfig, a_name_matches_only_itself) {
    const GuestConfig guest = guest_on("a", "tap0");
    EXPECT_FALSE(guest.is_glob());
    EXPECT_TRUE(guest.matches("tap0"));
    EXPECT_FALSE(guest.matches("tap01"));
    EXPECT_FALSE(guest.matches("tap"));
    EXPECT_EQ(guest.name_on("tap0"), "a");
}

TEST(GuestConfig, a_glob_matches_whole_names) {
    const auto matches = [](std::string_view glob, std::string_view name) {
        const GuestConfig guest = guest_on("x-%i", std::string(glob));
        EXPECT_TRUE(guest.is_glob());
        return guest.matches(name);
    };
    EXPECT_TRUE(matches("tap*", "tap"));
    EXPECT_TRUE(matches("tap*", "tap12"));
    EXPECT_FALSE(matches("tap*", "vtap1"));
    EXPECT_TRUE(matches("tap?", "tap1"));
    EXPECT_FALSE(matches("tap?", "tap"));
    EXPECT_FALSE(matches("tap?", "tap12"));
    EXPECT_TRUE(matches("v*-*0", "vm-a-b0"));
    EXPECT_FALSE(matches("v*-*0", "vm-a-b1"));
    EXPECT_TRUE(matches("*tap", "taptap"));
    EXPECT_FALSE(matches("t*?p", "tp"));
    EXPECT_TRUE(matches("t**p?", "tap1"));
}

TEST(GuestConfig, the_interface_replaces_its_mark_in_the_name) {
    const GuestConfig guest = guest_on("vm-%i.test", "tap*");
    EXPECT_EQ(guest.name_on("tap7"), "vm-tap7.test");
}

TEST(MakeGuest, takes_the_same_fields_as_the_file) {
    GuestFields fields;
    fields.name = "vm1";
    fields.interface = "tap0";
    fields.addresses = {"192.0.2.2", "2001:db8::2"};
    fields.gateways = {"192.0.2.1"};
    fields.mac = "02:00:5e:00:53:01";
    fields.policy = "web";
    const auto guest = make_guest(fields);
    ASSERT_TRUE(guest) << guest.error().message();
    EXPECT_EQ(guest->addresses.size(), 2U);
    EXPECT_EQ(guest->gateways.size(), 1U);
    EXPECT_TRUE(guest->mac.has_value());

    fields.mac.clear();
    fields.addresses = {"192.0.2.2/24"};
    const auto refused = make_guest(fields);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().message(),
              "address: '192.0.2.2/24' is a block; write the address alone, \"192.0.2.2\"");
    fields.addresses.clear();
    EXPECT_EQ(make_guest(fields).error().message(),
              "'addresses' is missing; write for example addresses = [\"192.0.2.2\", \"2001:db8::2\"]");
}

TEST(MakeGuest, two_guests_must_differ_in_name_interface_and_addresses) {
    const GuestConfig one = guest_on("a", "tap0", {address("192.0.2.2")});
    GuestConfig other = guest_on("b", "tap1", {address("192.0.2.3")});
    EXPECT_TRUE(check_distinct(one, other));
    other.addresses.push_back(address("192.0.2.2"));
    EXPECT_EQ(check_distinct(other, one).error().code(), ErrorCode::kExists);
    other = guest_on("a", "tap1");
    EXPECT_EQ(check_distinct(other, one).error().message(), "there is a guest 'a' already");
}

TEST(Mac, is_read_and_written) {
    EXPECT_EQ(format_mac(parse_mac("02:00:5e:AB:cd:ff").value()), "02:00:5e:ab:cd:ff");
    for (const auto* text : {"", "02:00:5e:00:53", "02:00:5e:00:53:01:02", "02-00-5e-00-53-01",
                             "02:00:5e:00:53:0g", "2:00:5e:00:53:001", "01:00:5e:00:00:01",
                             "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "02:00:5e:00:53:-1"})
        EXPECT_FALSE(parse_mac(text)) << text;
}

} // namespace
} // namespace tapgate::daemon
