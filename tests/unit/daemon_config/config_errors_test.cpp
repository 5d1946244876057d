// SPDX-License-Identifier: Apache-2.0
#include "daemon/config.hpp"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace tapgate::daemon {
namespace {

struct BadConfig {
    std::string_view text;
    std::string_view message; ///< behind "t.toml:"
};

constexpr BadConfig kBadConfigs[] = {
    {"[daemon", "1:8: Error while parsing table header: encountered end-of-file; the file is cut short"},
    {"[daemon]\nworkers = 1\nworkers = 2\n",
     "3:11: Error while parsing key-value pair: cannot redefine existing integer 'workers'; keep one"},
    {"[demon]\n", "1:2: unknown key 'demon'; did you mean 'daemon'? valid: daemon, log, dns, limits, timers, "
                  "groups, guest, policy"},
    {"daemon = 3\n", "1:10: daemon: a number where a table is expected"},
    {"[daemon]\nworker = 4\n",
     "2:1: daemon: unknown key 'worker'; did you mean 'workers'? valid: workers, "
     "control_socket, control_group, pin_dir, mark, route_table, metrics_listen, splice, sandbox"},
    {"[daemon]\nworkers = 0\n", "2:11: daemon: workers: 0 is out of range (1 to 64)"},
    {"[daemon]\nworkers = 65\n", "2:11: daemon: workers: 65 is out of range (1 to 64)"},
    {"[daemon]\nworkers = \"2\"\n",
     "2:11: daemon: workers: a string where a whole number from 1 to 64 is expected"},
    {"[daemon]\nworkers = 1.5\n",
     "2:11: daemon: workers: a fraction where a whole number from 1 to 64 is expected"},
    {"[daemon]\nmark = 0\n", "2:8: daemon: mark: 0 is out of range (1 to 4294967295)"},
    {"[daemon]\nmark = 0x100000000\n", "2:8: daemon: mark: 4294967296 is out of range (1 to 4294967295)"},
    {"[daemon]\nroute_table = 254\n", "2:15: daemon: route_table: 254 is one of the kernel's own tables "
                                      "(default, main, local); choose another, such as 29793"},
    {"[daemon]\nroute_table = 0\n", "2:15: daemon: route_table: 0 is out of range (1 to 4294967295)"},
    {"[daemon]\nmetrics_listen = \"localhost:9664\"\n",
     "2:18: daemon: metrics_listen: 'localhost:9664' is not an address with a port; write "
     "\"127.0.0.1:9664\", or "
     "\"\" to serve no metrics"},
    {"[daemon]\nmetrics_listen = \"127.0.0.1\"\n",
     "2:18: daemon: metrics_listen: '127.0.0.1' is not an address with a port; write \"127.0.0.1:9664\", or "
     "\"\" to "
     "serve no metrics"},
    {"[daemon]\ncontrol_socket = \"control.sock\"\n",
     "2:18: daemon: control_socket: 'control.sock' is not an absolute path"},
    {"[daemon]\ncontrol_socket = "
     "\"/"
     "sssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss"
     "sssss\"\n",
     "2:18: daemon: control_socket: the path has 109 bytes; at most 107 are possible"},
    {"[daemon]\npin_dir = \"\"\n", "2:11: daemon: pin_dir: the string is empty"},
    {"[daemon]\npin_dir = \"/a\\u0000b\"\n",
     "2:11: daemon: pin_dir: the string has control characters or more than 4096 bytes"},
    {"[log]\nlevel = \"verbose\"\n",
     "2:9: log: level: unknown level 'verbose'; valid: debug, info, warn, error"},
    {"[log]\nformat = \"xml\"\n", "2:10: log: format: unknown format 'xml'; valid: text, json"},
    {"[log]\nflow_file = \"flows\"\n", "2:13: log: flow_file: 'flows' is not an absolute path"},
    {"[log]\nflow_syslog = \"log\"\n", "2:15: log: flow_syslog: 'log' is not an absolute path"},
    {"[log]\nflow_file_mib = 0\n", "2:17: log: flow_file_mib: 0 is out of range (1 to 4096)"},
    {"[daemon]\nsplice = \"pipes\"\n",
     "2:10: daemon: splice: unknown way to splice 'pipes'; valid: auto, kernel, uring, copy"},
    {"[dns]\nupstreams = \"192.0.2.53\"\n",
     "2:13: dns: upstreams: a string where a list of strings is expected"},
    {"[dns]\nupstreams = [\"192.0.2.53\", \"dns.example.com\"]\n",
     "2:28: dns: upstreams: 'dns.example.com' is not a resolver's address; a host name cannot be used here, "
     "write \"192.0.2.53\" or \"[2001:db8::53]:5353\""},
    {"[dns]\nupstreams = [\"dns.example.com:53\"]\n",
     "2:14: dns: upstreams: 'dns.example.com:53' is not a resolver's address; a host name cannot be used "
     "here, write \"192.0.2.53\" or \"[2001:db8::53]:5353\""},
    {"[dns]\nupstreams = [\"192.0.2.53:0\"]\n", "2:14: dns: upstreams: '192.0.2.53:0' has port 0"},
    {"[dns]\nupstreams = [\"192.0.2.53:65536\"]\n",
     "2:14: dns: upstreams: '192.0.2.53:65536' is not a resolver's address; a host name cannot be used here, "
     "write \"192.0.2.53\" or \"[2001:db8::53]:5353\""},
    {"[dns]\nupstreams = [\"0.0.0.0\"]\n", "2:14: dns: upstreams: 0.0.0.0 cannot be a resolver's address"},
    {"[dns]\nupstreams = [\n  \"192.0.2.53\",\n  \"192.0.2.53:53\",\n]\n",
     "4:3: dns: upstreams: 192.0.2.53:53 is listed twice"},
    {"[dns]\nupstreams = [53]\n", "2:14: dns: upstreams: a number where a string is expected"},
    {"[dns]\nupstream = []\n", "2:1: dns: unknown key 'upstream'; did you mean 'upstreams'? valid: "
                               "upstreams, resolv_conf, min_ttl, max_ttl, timeout_ms"},
    {"[dns]\nmin_ttl = 600\nmax_ttl = 60\n", "1:1: dns: min_ttl (600 s) is longer than max_ttl (60 s)"},
    {"[dns]\nmin_ttl = -1\n", "2:11: dns: min_ttl: -1 is out of range (0 to 604800)"},
    {"[dns]\nresolv_conf = \"resolv.conf\"\n",
     "2:15: dns: resolv_conf: 'resolv.conf' is not an absolute path"},
    {"[dns]\ntimeout_ms = 10\n", "2:14: dns: timeout_ms: 10 is out of range (50 to 30000)"},
    {"[limits]\nsessions = 0\n", "2:12: limits: sessions: 0 is out of range (1 to 65536)"},
    {"[limits]\nbindings = 262145\n", "2:12: limits: bindings: 262145 is out of range (1 to 262144)"},
    {"[limits]\nsession = 5\n", "2:1: limits: unknown key 'session'; did you mean 'sessions'? valid: "
                                "sessions, half_open, bindings, dns_qps, dns_in_flight, dns_connections"},
    {"[timers]\npeek_ms = 60001\n", "2:11: timers: peek_ms: 60001 is out of range (1 to 60000)"},
    {"[timers]\nidle_s = 0\n", "2:10: timers: idle_s: 0 is out of range (1 to 2592000)"},
    {"[timers]\npeek_bytes = 10\n", "2:14: timers: peek_bytes: 10 is out of range (1024 to 262144)"},
    {"[timers]\nidle_ms = 10\n", "2:1: timers: unknown key 'idle_ms'; did you mean 'idle_s'? valid: "
                                 "peek_ms, server_first_ms, connect_ms, idle_s, half_closed_s, dns_idle_ms, "
                                 "drain_s, peek_bytes"},
    {"[timers]\ndrain_s = 3601\n", "2:11: timers: drain_s: 3601 is out of range (0 to 3600)"},
    {"[groups]\ncorp = \"10.0.0.0/8\"\n", "2:8: groups: corp: a string where a list of strings is expected"},
    {"[groups]\ncorp = [\"10.0.0.1/8\"]\n",
     "2:9: groups: corp: 10.0.0.1/8 has host bits set; the network is 10.0.0.0/8"},
    {"[groups]\ncorp = [\"corp.example\"]\n", "2:9: groups: corp: 'corp.example' is not an IP address"},
    {"[groups]\nCorp = [\"10.0.0.0/8\"]\n",
     "2:1: groups: 'Corp' cannot name a group; a group name is a lower-case letter, then letters, digits, "
     "'-' and '_', at most 63 in all"},
    {"[groups]\nany = [\"10.0.0.0/8\"]\n",
     "2:1: groups: 'any' cannot name a group; the word has a meaning of its own in rules"},
    {"[policy.p]\nfile = \"p\"\nwatch = \"yes\"\n",
     "3:9: policy: p: watch: a string where true or false is expected"},
    {"[guest]\nname = \"a\"\n", "1:1: guest: a table where [[guest]], in double brackets, is expected"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\ninterface = \"tap0\"\naddresses = [\"192.0.2.2\"]\npolicy = "
     "\"p\"\n",
     "3:1: guest: 'name' is missing; write for example name = \"vm1\""},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\naddresses = [\"192.0.2.2\"]\npolicy = \"p\"\n",
     "3:1: guest: 'interface' is missing; write for example interface = \"tap0\""},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\npolicy = \"p\"\n",
     "3:1: guest: 'addresses' is missing; write for example addresses = [\"192.0.2.2\", \"2001:db8::2\"]"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = [\"192.0.2.2\"]\n",
     "3:1: guest: 'policy' is missing; write for example policy = \"default\" (with a section "
     "[policy.default])"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = []\npolicy = "
     "\"p\"\n",
     "3:1: guest: 'addresses' is missing; write for example addresses = [\"192.0.2.2\", \"2001:db8::2\"]"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = "
     "[\"192.0.2.300\"]\npolicy = \"p\"\n",
     "6:14: guest: addresses: '192.0.2.300' is not an IP address"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = "
     "[\"192.0.2.2/24\"]\npolicy = \"p\"\n",
     "6:14: guest: addresses: '192.0.2.2/24' is a block; write the address alone, \"192.0.2.2\""},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = [\"192.0.2.2\", "
     "\"::ffff:192.0.2.2\"]\npolicy = \"p\"\n",
     "6:27: guest: addresses: 192.0.2.2 is listed twice"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = "
     "[\"127.0.0.1\"]\npolicy = \"p\"\n",
     "6:14: guest: addresses: 127.0.0.1 cannot be the address of a guest or its gateway; a unicast address "
     "is expected"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = "
     "[\"224.0.0.1\"]\npolicy = \"p\"\n",
     "6:14: guest: addresses: 224.0.0.1 cannot be the address of a guest or its gateway; a unicast address "
     "is expected"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = [\"::\"]\npolicy "
     "= \"p\"\n",
     "6:14: guest: addresses: :: cannot be the address of a guest or its gateway; a unicast address is "
     "expected"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = [\"192.0.2.2\", "
     "\"192.0.2.3\", \"192.0.2.4\", \"192.0.2.5\", \"192.0.2.6\", \"192.0.2.7\", \"192.0.2.8\", "
     "\"192.0.2.9\", \"192.0.2.10\"]\npolicy = \"p\"\n",
     "6:118: guest: addresses: more than 8 addresses"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\ngateways = [\"192.0.2.2\"]\n",
     "3:1: guest: 192.0.2.2 is both an address and a gateway of guest 'a'"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\ngateway = [\"192.0.2.1\"]\n",
     "8:1: guest: unknown key 'gateway'; did you mean 'gateways'? valid: name, interface, addresses, "
     "gateways, mac, policy"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a b\"\ninterface = \"tap0\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\n",
     "4:8: guest: name: 'a b' cannot name a guest; use 1 to 63 letters, digits, '-', '_' and '.', not "
     "beginning with '-' or '.'"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"-a\"\ninterface = \"tap0\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\n",
     "4:8: guest: name: '-a' cannot name a guest; use 1 to 63 letters, digits, '-', '_' and '.', not "
     "beginning with '-' or '.'"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = "
     "\"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn\"\ninterface = \"tap0\"\naddresses "
     "= [\"192.0.2.2\"]\npolicy = \"p\"\n",
     "4:8: guest: name: 'nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn' cannot name a "
     "guest; use 1 to 63 letters, digits, '-', '_' and '.', not beginning with '-' or '.'"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"sixteen-letters-\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\n",
     "5:13: guest: interface: 'sixteen-letters-' cannot name an interface; use 1 to 15 printable characters "
     "without '/' and spaces"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap/0\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\n",
     "5:13: guest: interface: 'tap/0' cannot name an interface; use 1 to 15 printable characters without '/' "
     "and spaces"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"lo\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\n",
     "5:13: guest: interface: 'lo' cannot be a guest's interface; name the tap of the microVM"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"*\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\n",
     "5:13: guest: interface: '*' matches every interface of the host; begin it with what the taps' names "
     "have in common, such as \"tap*\""},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap*\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\n",
     "3:1: guest: the name of a guest on interfaces 'tap*' must contain %i, which stands for the interface; "
     "write for example \"a-%i\""},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a-%i\"\ninterface = \"tap0\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\n",
     "3:1: guest: the name 'a-%i' contains %i, but its interface 'tap0' is not a glob"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"%i-%i\"\ninterface = \"tap*\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\n",
     "4:8: guest: name: '%i-%i' contains %i more than once"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\nmac = \"02:00:5e:00:53\"\n",
     "8:7: guest: mac: '02:00:5e:00:53' is not a MAC address; write it like \"02:00:5e:00:53:01\""},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\nmac = \"ff:ff:ff:ff:ff:ff\"\n",
     "8:7: guest: mac: ff:ff:ff:ff:ff:ff is not the address of one machine; its first byte must be even and "
     "not all may be zero"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"q\"\n",
     "7:10: guest: policy: unknown policy 'q'; valid: p"},
    {"[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = [\"192.0.2.2\"]\npolicy = \"p\"\n",
     "5:10: guest: policy: there is no policy 'p'; add [policy.p] with file = \"p.toml\""},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap1\"\naddresses = "
     "[\"192.0.2.3\"]\npolicy = \"p\"\n",
     "8:1: guest: there is a guest 'a' already (the other is at line 3)"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\n[[guest]]\nname = \"b\"\ninterface = \"tap0\"\naddresses = "
     "[\"192.0.2.3\"]\npolicy = \"p\"\n",
     "8:1: guest: guest 'b': interface tap0 belongs to guest 'a' already (the other is at line 3)"},
    {"[policy.p]\nfile = \"p\"\n[[guest]]\nname = \"a\"\ninterface = \"tap0\"\naddresses = "
     "[\"192.0.2.2\"]\npolicy = \"p\"\n[[guest]]\nname = \"b\"\ninterface = \"tap1\"\naddresses = "
     "[\"192.0.2.3\", \"192.0.2.2\"]\npolicy = \"p\"\n",
     "8:1: guest: guest 'b': address 192.0.2.2 belongs to guest 'a' already (the other is at line 3)"},
    {"[policy]\nweb = \"web.toml\"\n", "2:7: policy: web: a string where a table is expected"},
    {"[policy.web]\n", "1:9: policy: web: 'file' is missing; write for example file = \"web.toml\""},
    {"[policy.web]\npath = \"web.toml\"\n",
     "2:1: policy: web: unknown key 'path'; did you mean 'watch'? valid: file, watch"},
    {"[policy.\"a/b\"]\nfile = \"x\"\n", "1:9: policy: 'a/b' cannot name a policy; use 1 to 63 letters, "
                                         "digits, '-', '_' and '.', not beginning with '-' or '.'"},
    {"policy = \"web.toml\"\n",
     "1:10: policy: a string where [policy.NAME] with file = \"NAME.toml\" is expected"},
};

TEST(ConfigErrors, say_where_and_what_would_be_right) {
    for (const BadConfig& bad : kBadConfigs) {
        const auto config = parse_config(bad.text, "t.toml");
        ASSERT_FALSE(config) << bad.text;
        EXPECT_EQ(config.error().code(), ErrorCode::kInvalid) << bad.text;
        EXPECT_EQ(config.error().message(), "t.toml:" + std::string(bad.message)) << bad.text;
    }
}

TEST(ConfigErrors, a_file_that_is_too_large_is_refused) {
    const std::string text((std::size_t{4} << 20U) + 1, '\n');
    const auto config = parse_config(text, "t.toml");
    ASSERT_FALSE(config);
    EXPECT_EQ(config.error().message(),
              "t.toml: 4194305 bytes are too many for a configuration (at most 4194304)");
}

TEST(ConfigErrors, more_guests_than_the_kernel_side_holds_are_refused) {
    std::string text = "[policy.p]\nfile = \"p\"\n";
    for (int i = 0; i <= 4096; ++i)
        text += "[[guest]]\n";
    const auto config = parse_config(text, "t.toml");
    ASSERT_FALSE(config);
    EXPECT_EQ(config.error().message(), "t.toml:3:1: guest: more than 4096 guests");
}

TEST(ConfigErrors, bytes_that_are_not_utf8_are_refused) {
    EXPECT_FALSE(parse_config("[log]\nlevel = \"\xff\"\n", "t.toml"));
    EXPECT_FALSE(parse_config(std::string_view("[daemon]\n\0", 10), "t.toml"));
}

} // namespace
} // namespace tapgate::daemon
