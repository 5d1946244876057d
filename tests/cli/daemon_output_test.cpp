// SPDX-License-Identifier: Apache-2.0
#include "cli/run.hpp"
#include "fake_daemon.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <mutex>
#include <sstream>
#include <streambuf>
#include <thread>

// What each command prints for a reply of the daemon.
namespace tapgate::cli {
namespace {

namespace json = boost::json;

/// The text printed for `reply`, with a newline in front so that tests can write it as it looks.
std::string shown(const std::string& command, const std::string& reply, std::vector<std::string> words) {
    FakeDaemon daemon({{command, reply}});
    words.insert(words.begin(), {"-s", daemon.socket()});
    const Outcome outcome = run_cli(words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return "\n" + outcome.out;
}

/// `event monitor` on a thread of its own. Its output can be read while it runs.
class Monitor : private std::streambuf {
  public:
    explicit Monitor(std::vector<std::string> words)
        : outcome_(std::async(std::launch::async, [this, words = std::move(words)] {
              std::ostream out(this);
              return run(words, out, err_);
          })) {}

    /// What was printed once it ends with `end`, or at the deadline.
    std::string wait_for(std::string_view end) {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        for (;;) {
            {
                const std::lock_guard lock(mutex_);
                if (text_.ends_with(end) || std::chrono::steady_clock::now() > deadline)
                    return text_;
            }
            std::this_thread::yield();
        }
    }

    /// Waits for the command to return.
    int exit_code() { return outcome_.get(); }

    /// After exit_code().
    [[nodiscard]] std::string err() const { return err_.str(); }

  private:
    int overflow(int c) override {
        const char character = traits_type::to_char_type(c);
        return xsputn(&character, 1) == 1 ? c : traits_type::eof();
    }

    std::streamsize xsputn(const char* bytes, std::streamsize count) override {
        const std::lock_guard lock(mutex_);
        text_.append(bytes, static_cast<std::size_t>(count));
        return count;
    }

    std::mutex mutex_;
    std::string text_; // guarded by mutex_
    std::ostringstream err_;
    std::future<int> outcome_; // last: its thread uses the others
};

constexpr auto kGuests = R"({"guests":[
  {"name":"vm1","interface":"tap0","ifindex":7,"id":3,"state":"attached","mac":"02:00:5e:00:53:01",
   "addresses":["192.0.2.2","2001:db8::2"],"gateways":["192.0.2.1"],"policy":"web","generation":4,"sessions":12,
   "bindings":5,"drops":[{"reason":"udp","text":"UDP other than DNS is not forwarded","packets":3},
                         {"reason":"policy","text":"denied by the policy","packets":40}],"error":""},
  {"name":"ci-%i","interface":"ci*","ifindex":0,"id":0,"state":"waiting","mac":"","addresses":["192.0.2.3"],
   "gateways":[],"policy":"ci","generation":0,"sessions":0,"bindings":0,"drops":[],"error":""}]})";

TEST(Output, status_show) {
    EXPECT_EQ(shown("status show",
                    R"({"version":"0.1.0","pid":42,"state":"serving","uptime_seconds":3725,
                        "kernel":"6.1.0","attach":"tcx","splice":"uring","workers":2,"guests":1,"sessions":12,
                        "policies":3,
                        "upstreams":[{"address":"192.0.2.53:53","healthy":true},
                                     {"address":"[2001:db8::53]:53","healthy":false}],
                        "drops":[{"reason":"vlan","text":"VLAN tags are not accepted from guests","packets":9}],
                        "events_lost":0})",
                    {"status", "show"}),
              R"(
version      0.1.0
pid          42
state        serving
uptime       1h02m
kernel       6.1.0
attach       tcx
splice       uring
workers      2
guests       1
sessions     12
policies     3
events lost  0
resolvers:
  RESOLVER           STATE
  192.0.2.53:53      healthy
  [2001:db8::53]:53  does not answer
dropped:
  PACKETS  REASON  MEANING
  9        vlan    VLAN tags are not accepted from guests
)");
}

constexpr auto kWhy = R"json(
{"guest":"vm1","name":"a.example","address":null,"port":443,"policy":"web","generation":4,"verdict":"deny",
 "assumed":false,
 "steps":[{"step":"query","for":"a.example","verdict":"allow","text":"allow: by default"},
          {"step":"binding","for":"192.0.2.7","verdict":null,"text":"a.example for 58 s more"},
          {"step":"syn","for":"192.0.2.7:443","verdict":"deny","text":"deny: rule 2"}],
 "to_allow":{"text":"add 'it' before rule 2 (line 7)","possible":true,"rule":"allow@a.example:tcp:443","before":2}})json";
constexpr auto kWhyNot =
    R"({"guest":"vm1","name":null,"address":"192.0.2.7","port":80,"policy":"web","generation":4,
  "verdict":"deny","assumed":true,"steps":[],
  "to_allow":{"text":"no policy can allow this address","possible":false,"rule":null}})";

TEST(Output, why) {
    EXPECT_EQ(shown("why", kWhy, {"why", "vm1", "a.example"}), R"(
guest vm1 to a.example port 443, by policy web generation 4
STEP     VERDICT  FOR            WHY
query    allow    a.example      allow: by default
binding  -        192.0.2.7      a.example for 58 s more
syn      deny     192.0.2.7:443  deny: rule 2
verdict: deny
to allow it: add 'it' before rule 2 (line 7)
)");
    EXPECT_EQ(shown("why", kWhyNot, {"why", "vm1", "192.0.2.7:80"}), R"(
guest vm1 to 192.0.2.7 port 80, by policy web generation 4
STEP  VERDICT  FOR  WHY
verdict: deny (for a public address: the guest holds none yet)
no rule alone allows it: no policy can allow this address
)");
}

TEST(Output, guest_show) {
    EXPECT_EQ(shown("guest show", kGuests, {"guest", "show"}), R"(
NAME   INTERFACE  STATE     POLICY  GEN  SESSIONS  BINDINGS  DROPPED  ADDRESSES
vm1    tap0       attached  web     4    12        5         43       192.0.2.2,2001:db8::2
ci-%i  ci*        waiting   ci      0    0         0         0        192.0.2.3
)");
    EXPECT_EQ(shown("guest show", R"({"guests":[]})", {"guest", "show"}), "\nno guests\n");
}

TEST(Output, guest_show_of_one) {
    json::object reply = json::parse(kGuests).as_object();
    reply["guests"].as_array().pop_back();
    EXPECT_EQ(shown("guest show", json::serialize(reply), {"guest", "show", "vm1"}), R"(
name        vm1
interface   tap0
ifindex     7
id          3
state       attached
mac         02:00:5e:00:53:01
addresses   192.0.2.2,2001:db8::2
gateways    192.0.2.1
policy      web
generation  4
sessions    12
bindings    5
dropped:
  PACKETS  REASON  MEANING
  3        udp     UDP other than DNS is not forwarded
  40       policy  denied by the policy
)");
}

TEST(Output, a_guest_that_could_not_be_attached_says_why) {
    const std::string text =
        shown("guest show", R"({"guests":[{"name":"a","state":"waiting","error":"no such link"}]})",
              {"guest", "show", "a"});
    EXPECT_NE(text.find("error: no such link\n"), std::string::npos) << text;
}

TEST(Output, daemon_reload) {
    EXPECT_EQ(shown("daemon reload",
                    R"({"file":"/etc/t.toml","dry_run":true,"changes":[
                        {"setting":"timers.idle_s","before":"60","after":"90","live":true},
                        {"setting":"daemon.workers","before":"2","after":"4","live":false},
                        {"setting":"guest.tap1","before":"","after":"vm1 [192.0.2.3] policy web","live":true}]})",
                    {"daemon", "reload", "--dry-run"}),
              R"(
/etc/t.toml: would change
  SETTING         BEFORE  AFTER                       COUNTS
  timers.idle_s   60      90                          now
  daemon.workers  2       4                           after a restart
  guest.tap1      -       vm1 [192.0.2.3] policy web  now
)");
    EXPECT_EQ(shown("daemon reload", R"({"file":"/etc/t.toml","dry_run":false,"changes":[]})",
                    {"daemon", "reload"}),
              "\n/etc/t.toml: nothing has changed\n");
}

TEST(Output, guest_del_and_dns_flush) {
    EXPECT_EQ(shown("guest del", R"({"removed":"vm1"})", {"guest", "del", "vm1"}), "\nguest vm1 removed\n");
    EXPECT_EQ(shown("dns flush", R"({"removed":3})", {"dns", "flush", "--guest", "vm1"}),
              "\n3 bindings removed\n");
}

TEST(Output, policy_show) {
    EXPECT_EQ(shown("policy show",
                    R"({"policies":[{"name":"web","file":"/etc/web.toml","generation":4,"rules":2,
                        "default_egress":"deny","default_ingress":"deny","loaded_at":"2026-01-02T03:04:05Z",
                        "guests":["vm1","vm2"]}]})",
                    {"policy", "show"}),
              R"(
NAME  GEN  RULES  EGRESS  INGRESS  LOADED                GUESTS   FILE
web   4    2      deny    deny     2026-01-02T03:04:05Z  vm1,vm2  /etc/web.toml
)");
}

TEST(Output, policy_show_of_one) {
    EXPECT_EQ(shown("policy show",
                    R"({"policies":[{"name":"web","file":"/etc/web.toml","generation":4,"rules":2,
                        "default_egress":"deny","default_ingress":"deny","loaded_at":"2026-01-02T03:04:05Z",
                        "guests":[],"origin":"watch","watched":true,"splice":"uring",
                        "watch_error":"/etc/web.toml:1:1: broken","policy":{"default_egress":"deny","default_ingress":"deny","rules":[
                          {"direction":"egress","destination":{"domain":"a.test"},"protocols":["tcp"],
                           "ports":[{"start":443,"end":443}],"action":"allow"},
                          {"direction":"egress","destination":"any","action":"deny"}]}}]})",
                    {"policy", "show", "web"}),
              R"(
name             web
file             /etc/web.toml
generation       4
loaded           2026-01-02T03:04:05Z
loaded by        watch
watched          true
splice           uring
default egress   deny
default ingress  deny
guests           -
file not loaded: /etc/web.toml:1:1: broken
rules:
  RULE  TEXT
  1     allow@a.test:tcp:443
  2     deny@any
)");
}

TEST(Output, policy_load) {
    const TempDir dir;
    const std::string file = dir.write("p.toml", "");
    EXPECT_EQ(shown("policy load",
                    R"({"policy":{"name":"web","rules":7,"default_egress":"deny","generation":5},
                        "dry_run":false,"took_ms":3,"warning":"splice is not",
                        "live_flows":{"order":"cut","allowed":2,"cut":0,"draining":0,"kept":0,"denied":0,
                                      "flows":[]}})",
                    {"policy", "load", "web", file}),
              R"(
policy web: 7 rules, default egress deny, loaded as generation 5, in 3 ms
warning: splice is not
live flows: 2 still allowed, 0 cut, 0 draining, 0 kept
)");
    EXPECT_EQ(shown("policy load",
                    R"({"policy":{"name":"web","rules":7,"default_egress":"deny","generation":5},
                        "dry_run":true,"took_ms":3,
                        "live_flows":{"order":"drain","allowed":0,"cut":0,"draining":3,"kept":0,"denied":3,
                          "flows":[{"fate":"drain","id":9,"guest":"vm1","source":"192.0.2.2:4",
                                    "destination":"203.0.113.1:443","name":"a.test","rule":"deny@a.test",
                                    "rule_number":2,"rule_line":4,"basis":"rule"},
                                   {"fate":"drain","id":10,"guest":"vm1","source":"192.0.2.2:5",
                                    "destination":"203.0.113.2:443","name":"","rule":"","rule_number":0,
                                    "rule_line":0,"basis":"default"}]}})",
                    {"policy", "load", "web", file, "--dry-run", "--live", "drain=10s"}),
              R"(
policy web: 7 rules, default egress deny, not loaded, would be generation 5, in 3 ms
live flows: 0 would be allowed, 0 cut, 3 draining, 0 kept
  FATE   ID  GUEST  SOURCE       DESTINATION      NAME    DENIED BY
  drain  9   vm1    192.0.2.2:4  203.0.113.1:443  a.test  deny@a.test (line 4)
  drain  10  vm1    192.0.2.2:5  203.0.113.2:443  -       default
  and 1 more
)");
}

TEST(Output, policy_history) {
    EXPECT_EQ(shown("policy history",
                    R"({"policies":[{"name":"web","generations":[
                        {"generation":7,"loaded_at":"T2","rules":2,"origin":"rollback","by":"ann","file":"/a"},
                        {"generation":4,"loaded_at":"T1","rules":1,"origin":"start","by":"","file":"/b"}]}]})",
                    {"policy", "history", "web"}),
              R"(
POLICY  GEN  LOADED  RULES  ORIGIN    BY   FILE
web     7    T2      2      rollback  ann  /a
web     4    T1      1      start     -    /b
)");
    EXPECT_EQ(shown("policy history", R"({"policies":[]})", {"policy", "history"}), "\nno policies\n");
}

TEST(Output, policy_rollback) {
    EXPECT_EQ(shown("policy rollback",
                    R"({"policy":{"name":"web","rules":1,"default_egress":"deny","generation":8},
                        "dry_run":false,"took_ms":1,"rolled_back_to":4,
                        "live_flows":{"allowed":1,"cut":0,"draining":0,"kept":0,"denied":0,"flows":[]}})",
                    {"policy", "rollback", "web", "--to", "4"}),
              R"(
policy web: 1 rules, default egress deny, loaded as generation 8, in 1 ms
live flows: 1 still allowed, 0 cut, 0 draining, 0 kept
)");
}

TEST(Output, flow_show) {
    EXPECT_EQ(
        shown("flow show",
              R"({"flows":[{"id":1,"guest":"vm1","source":"192.0.2.2:40000","destination":"203.0.113.1:443",
                        "state":"drain","name":"a.test","name_source":"sni","verdict":"allow",
                        "rule":"allow@a.test:tcp:443","splice":"uring","bytes_up":1536,"bytes_down":10485760,
                        "age_seconds":61,"generation":4,"drain_ms":12900},
                       {"id":2,"guest":"vm1","source":"[2001:db8::2]:40001","destination":"[2001:db8:3::1]:22",
                        "state":"peek","name":"","name_source":"","verdict":"","rule":"","splice":"","bytes_up":0,
                        "bytes_down":0,"age_seconds":0}]})",
              {"flow", "show"}),
        R"(
ID  GUEST  STATE      SOURCE               DESTINATION         NAME    BY   SPLICE  UP    DOWN  AGE    VERDICT  GEN  RULE
1   vm1    drain 12s  192.0.2.2:40000      203.0.113.1:443     a.test  sni  uring   1.5K  10M   1m01s  allow    4    allow@a.test:tcp:443
2   vm1    peek       [2001:db8::2]:40001  [2001:db8:3::1]:22  -       -    -       0     0     0s     -        -    -
)");
}

TEST(Output, dns_show) {
    EXPECT_EQ(shown("dns show",
                    R"({"bindings":[{"guest":"vm1","name":"a.test","address":"203.0.113.1",
                               "aliases":["c.cdn.test","d.cdn.test"],"resolver":"203.0.113.53","age_seconds":1,
                               "expires_seconds":59,"flows":2},
                              {"guest":"vm1","name":"b\u001b[2J.test","address":"2001:db8:3::1",
                               "expires_seconds":86400}]})",
                    {"dns", "show"}),
              R"(
GUEST  NAME           ADDRESS        ALIASES                RESOLVER      AGE  EXPIRES IN  FLOWS
vm1    a.test         203.0.113.1    c.cdn.test,d.cdn.test  203.0.113.53  1s   59s         2
vm1    b\x1b[2J.test  2001:db8:3::1  -                      -             -    1d00h       -
)");
}

TEST(Output, dns_show_stats) {
    EXPECT_EQ(shown("dns stats", R"({"guests":[{"guest":"vm1","queries":{"asked":12,"answered":9,"denied":3,
                                                                       "limited":0}}]})",
                    {"dns", "show", "--stats"}),
              R"(
GUEST  QUERIES  OUTCOME
vm1    12       asked
vm1    9        answered
vm1    3        denied
)");
}

TEST(Output, event_monitor) {
    FakeDaemon daemon({});
    Monitor monitor({"-s", daemon.socket(), "event", "monitor"});
    daemon.publish_to_monitor({
        json::parse(
            R"({"time":"T1","type":"verdict","guest":"vm1","source":"192.0.2.2:4","destination":"203.0.113.1:443",
                        "name":"a.test","name_source":"sni","verdict":"deny","rule":"","basis":"default","generation":1})")
            .as_object(),
        json::parse(R"({"time":"T2","type":"drop","guest":"vm1","reason":"udp","text":"UDP other than DNS",
                        "source":"192.0.2.2:5","destination":"203.0.113.1:123","protocol":17,
                        "verdict":"deny","generation":1,"rule":"deny@any:udp"})")
            .as_object(),
        json::parse(
            R"({"time":"T3","type":"dns","guest":"vm1","name":"b.test","qtype":"A","verdict":"deny","rule":"",
                        "reason":"dns-policy","to_allow":"add 'allow@b.test:tcp:443'"})")
            .as_object(),
        json::parse(
            R"({"time":"T3","type":"dns","guest":"vm1","name":"a.test","qtype":"AAAA","verdict":"allow",
                        "rule":"allow@a.test","reason":"","outcome":"answered","transport":"tcp",
                        "upstream":"203.0.113.53:53","answers":2,"latency_us":412})")
            .as_object(),
        json::parse(R"({"time":"T4","type":"flow-end","guest":"vm1","source":"192.0.2.2:6",
                        "destination":"203.0.113.1:443","name":"a.test","bytes_up":2048,"bytes_down":1,
                        "duration_ms":12,"how":"policy","who":"daemon","reason":"cut by policy web generation 4: default"})")
            .as_object(),
        json::parse(R"({"time":"T5","type":"policy","guest":"","what":"loaded","policy":"web","generation":4,
                        "origin":"load","by":"ann"})")
            .as_object(),
        json::parse(R"({"type":"lost","count":3})").as_object(),
    });
    EXPECT_EQ("\n" + monitor.wait_for("too slow --\n"), R"(
T1  vm1       verdict   deny 192.0.2.2:4 -> 203.0.113.1:443 name a.test (sni) rule - (default)
T2  vm1       drop      udp 192.0.2.2:5 -> 203.0.113.1:123: UDP other than DNS, rule deny@any:udp
T3  vm1       dns       deny A b.test rule - (dns-policy); add 'allow@b.test:tcp:443'
T3  vm1       dns       allow AAAA a.test rule allow@a.test (answered), 2 answers from 203.0.113.53:53 in 412 us
T4  vm1       flow-end  policy by daemon 192.0.2.2:6 -> 203.0.113.1:443 name a.test up 2.0K down 1 after 12 ms, cut by policy web generation 4: default
T5  -         policy    web generation 4 loaded by ann
-- 3 events lost: this reader is too slow --
)");
    daemon.stop();
    EXPECT_EQ(monitor.exit_code(), 1);
    EXPECT_EQ(monitor.err(), "Error: the daemon closed the connection\n");
}

TEST(Output, event_show) {
    FakeDaemon daemon({{"event show", R"({"events":[
        {"time":"T1","type":"dns","guest":"vm1","name":"b.test","qtype":"A","verdict":"deny","rule":"",
         "reason":"default"},
        {"time":"T2","type":"lost","guest":"","count":7,"where":"daemon"},
        {"time":"T3","type":"drop","guest":"vm1","reason":"udp","text":"UDP other than DNS",
         "source":"192.0.2.2:5","destination":"203.0.113.1:123"}],
        "evicted":12,"complete_since":"T0","lost":7})"}});
    const Outcome shown =
        run_cli({"-s", daemon.socket(), "event", "show", "--guest", "vm1", "--last", "5m", "--name", "b.test",
                 "--address", "203.0.113.1", "--verdict", "deny", "--reason", "udp"});
    EXPECT_EQ(daemon.last_args(),
              R"({"guest":"vm1","name":"b.test","address":"203.0.113.1","verdict":"deny",)"
              R"("reason":"udp","last_seconds":300})");
    EXPECT_EQ("\n" + shown.out, R"(
-- 12 older events are not kept any more; complete since T0 --
T1  vm1       dns       deny A b.test rule - (default)
-- 7 events lost: more came than the daemon could take --
T3  vm1       drop      udp 192.0.2.2:5 -> 203.0.113.1:123: UDP other than DNS
)");
}

TEST(Output, event_show_without_events) {
    FakeDaemon daemon({{"event show", R"({"events":[],"evicted":0,"complete_since":"","lost":0})"}});
    EXPECT_EQ(run_cli({"-s", daemon.socket(), "event", "show"}).out, "no events\n");
    const Outcome wrong = run_cli({"-s", daemon.socket(), "event", "show", "--last", "5"});
    EXPECT_EQ(wrong.exit_code, 2);
    EXPECT_NE(wrong.err.find("--last '5' is not a time between 1s and 24h, such as 30s, 5m or 2h"),
              std::string::npos)
        << wrong.err;
}

TEST(Output, flow_monitor_is_about_connections_and_filters_like_event_monitor) {
    FakeDaemon daemon({});
    Monitor monitor({"-j", "-s", daemon.socket(), "flow", "monitor", "--verdict", "deny"});
    daemon.publish_to_monitor({{{"type", "dns"}, {"verdict", "deny"}},
                               {{"type", "verdict"}, {"verdict", "allow"}},
                               {{"type", "verdict"}, {"verdict", "deny"}}});
    EXPECT_EQ(monitor.wait_for("\"deny\"}\n"), "{\"schema\":1,\"monitoring\":true}\n"
                                               "{\"schema\":1,\"type\":\"verdict\",\"verdict\":\"deny\"}\n");
    daemon.stop();
    EXPECT_EQ(monitor.exit_code(), 1);
}

TEST(Output, event_monitor_in_json_is_one_object_per_line) {
    FakeDaemon daemon({});
    Monitor monitor({"-j", "-s", daemon.socket(), "event", "monitor", "--guest", "vm1"});
    daemon.publish_to_monitor({{{"type", "dns"}, {"guest", "vm2"}}, {{"type", "dns"}, {"guest", "vm1"}}});
    EXPECT_EQ(monitor.wait_for("\"vm1\"}\n"), "{\"schema\":1,\"monitoring\":true}\n"
                                              "{\"schema\":1,\"type\":\"dns\",\"guest\":\"vm1\"}\n");
    daemon.stop();
    EXPECT_EQ(monitor.exit_code(), 1);
}

} // namespace
} // namespace tapgate::cli
