// SPDX-License-Identifier: Apache-2.0
#include "harness/sandbox.hpp"
#include "harness/wait.hpp"
#include "netns/events.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string_view>
#include <system_error>
#include <utility>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

// What an operator finds out without having watched: the daemon's memory of events, its metrics, its logs.
namespace tapgate::test {
namespace {

constexpr unsigned kOpen = 10;
constexpr unsigned kShut = 11;
constexpr std::uint16_t kPort = 7000;

class Observe : public WorldTest<Observe> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.policy = policy_text({"allow@www.open.test:tcp:7000"});
        config.policy_options = "watch = true";
        return std::make_unique<World>(config, std::vector<std::string>{dual_stack("www.open.test", kOpen),
                                                                        dual_stack("shut.test", kShut)});
    }

    /// The events that `event show` finds, waited for until there is one: they are told beside the traffic.
    static std::vector<boost::json::object> shown(const std::vector<std::string>& options) {
        std::vector<std::string> words = {"event", "show", "--guest", "vm0"};
        words.insert(words.end(), options.begin(), options.end());
        std::vector<boost::json::object> found;
        EXPECT_TRUE(wait_until([&] {
            found.clear();
            const boost::json::object reply = world().daemon.ask(words);
            for (const boost::json::value& event : reply.at("events").as_array())
                found.push_back(event.as_object());
            return !found.empty();
        })) << boost::json::serialize(boost::json::value_from(words));
        return found;
    }
};

TEST_P(Observe, what_happened_before_anybody_watched_is_told_by_name_address_verdict_and_reason) {
    const TcpServer web(world().topology.internet(), server(kOpen, kPort), echo);
    resolve(world(), family(), "www.open.test");
    EXPECT_EQ(exchange(guest(), web.endpoint(), "\x01ping").answer, "\x01ping");
    EXPECT_PRED1(was_reset, exchange(guest(), server(kShut, kPort), "\x01"));
    const auto denied = ask(guest(), {family().gateway, 53}, "deep.shut.test", family().record, kPatience);
    EXPECT_TRUE(denied && denied->rcode == kNxDomain);

    const auto by_name = shown({"--name", "shut.test", "--verdict", "deny", "--last", "1h"});
    ASSERT_FALSE(by_name.empty());
    for (const auto& event : by_name) {
        EXPECT_TRUE(is(event, "type", "dns") && is(event, "name", "deep.shut.test")) << event;
        EXPECT_TRUE(is(event, "guest", "vm0") && is(event, "reason", "default")) << event;
    }
    const auto refused = shown({"--address", family().server(kShut).to_string()});
    ASSERT_EQ(refused.size(), 1U);
    EXPECT_TRUE(is(refused[0], "type", "drop") && is(refused[0], "reason", "policy-first-packet"))
        << refused[0];
    EXPECT_FALSE(shown({"--reason", "policy-first-packet"}).empty());
    const auto ended = shown({"--address", family().server(kOpen).to_string(), "--reason", "finished"});
    ASSERT_EQ(ended.size(), 1U);
    EXPECT_TRUE(is(ended[0], "type", "flow-end") && is(ended[0], "name", "www.open.test")) << ended[0];
}

TEST_P(Observe, a_filter_that_cannot_be_meant_and_a_guest_that_is_not_there_are_told_apart) {
    const Daemon::Reply refused = world().daemon.cli({"event", "show", "--verdict", "maybe"});
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_EQ(refused.json.at("error").at("message").as_string(),
              "'maybe' is not a verdict: allow, deny or defer");
    const boost::json::object other = world().daemon.ask({"event", "show", "--guest", "vm9"});
    for (const auto& event : other.at("events").as_array())
        EXPECT_EQ(event.at("type").as_string(), "lost") << event;
}

TEST_P(Observe, flow_show_lists_what_the_filters_let_pass) {
    const TcpServer web(world().topology.internet(), server(kOpen, kPort), echo);
    resolve(world(), family(), "www.open.test");
    auto stream = TcpStream::connect(guest(), web.endpoint());
    ASSERT_TRUE(stream);
    stream->send("\x01ping");
    ASSERT_EQ(stream->receive(5).bytes, "\x01ping");
    const auto listed = [](const std::vector<std::string>& options) {
        std::vector<std::string> words = {"flow", "show", "--guest", "vm0"};
        words.insert(words.end(), options.begin(), options.end());
        return world().daemon.ask(words).at("flows").as_array().size();
    };
    const std::string address = web.endpoint().address.to_string();
    EXPECT_EQ(listed({"--name", "open.test", "--address", address, "--verdict", "allow"}), 1U);
    EXPECT_EQ(listed({"--name", "pen.test"}), 0U);
    EXPECT_EQ(listed({"--address", family().server(kShut).to_string()}), 0U);
    EXPECT_EQ(listed({"--verdict", "deny"}), 0U);
}

/// What `GET` of the path answers, with head.
std::string http_get(const World& world, const std::string& path) {
    return run_program({"curl", "-sSi", "http://127.0.0.1:9664" + path}, &world.topology.host()).out;
}

/// The body of an answer.
std::string body_of(const std::string& answer) {
    const std::size_t end = answer.find("\r\n\r\n");
    return end == std::string::npos ? "" : answer.substr(end + 4);
}

bool has_line(const std::string& text, const std::string& line) {
    return text.find("\n" + line + "\n") != std::string::npos;
}

/// What check_metrics.py says of the text.
Completed check_metrics(const std::string& text, const std::vector<std::string>& more = {}) {
    // The one that Debian's packages are for, whatever else is installed.
    std::vector<std::string> argv = {"/usr/bin/python3", TAPGATE_CHECK_METRICS,
                                     write_scratch("metrics.txt", text)};
    argv.insert(argv.end(), more.begin(), more.end());
    return run_program(argv);
}

TEST_P(Observe, metrics_are_openmetrics_and_dashboard_and_alerts_speak_of_them) {
    const TcpServer web(world().topology.internet(), server(kOpen, kPort), echo);
    resolve(world(), family(), "www.open.test");
    EXPECT_EQ(exchange(guest(), web.endpoint(), "\x01ping").answer, "\x01ping");
    EXPECT_PRED1(was_reset, exchange(guest(), server(kShut, kPort), "\x01"));
    std::string text;
    // Served text may be a second old.
    EXPECT_TRUE(wait_until([&] {
        text = body_of(http_get(world(), "/metrics"));
        return text.find("tapgate_flow_ends_total{how=\"finished\"") != std::string::npos &&
               has_line(
                   text,
                   fmt::format("tapgate_guest_drops_total{{guest=\"vm0\",reason=\"policy-first-packet\"}} {}",
                               world().daemon.drops("policy-first-packet")));
    })) << text;
    const Completed checked = check_metrics(text, {TAPGATE_DASHBOARD, TAPGATE_ALERTS});
    EXPECT_EQ(checked.exit_code, 0) << checked.out << checked.err;
    EXPECT_TRUE(has_line(text, "tapgate_guest_limit{guest=\"vm0\",resource=\"sessions\"} 2048")) << text;
    EXPECT_TRUE(has_line(text, "tapgate_guests{state=\"attached\"} 1")) << text;
    EXPECT_TRUE(has_line(text, "tapgate_dns_upstream_healthy{upstream=\"203.0.113.53:53\"} 1")) << text;
    EXPECT_TRUE(has_line(text, "tapgate_policy_file_refused{policy=\"main\"} 0")) << text;
    // Nothing that a guest chose is in it.
    EXPECT_EQ(text.find("open.test"), std::string::npos) << text;
    EXPECT_EQ(text.find(family().server(kOpen).to_string()), std::string::npos) << text;
}

TEST_P(Observe, a_dashboard_that_speaks_of_something_else_is_found_out) {
    const std::string text = body_of(http_get(world(), "/metrics"));
    const std::string alerts =
        "groups: [{name: g, rules: [{alert: A, expr: 'increase(tapgate_drops_total{"
        "reason=~\"udp|no-such-reason\"}[5m]) > tapgate_no_such_metric', labels: {severity: "
        "critical}, annotations: {summary: '{{ $labels.nobody }}', description: d}}]}]\n";
    const Completed checked = check_metrics(text, {TAPGATE_DASHBOARD, write_scratch("alerts.yaml", alerts)});
    EXPECT_EQ(checked.exit_code, 1);
    for (const char* complaint : {"there is no metric tapgate_no_such_metric", "no reason 'no-such-reason'",
                                  "summary: no label nobody"})
        EXPECT_NE(checked.out.find(complaint), std::string::npos) << checked.out << checked.err;
    EXPECT_NE(check_metrics("tapgate_x 1\ntapgate_x 1\n").exit_code, 0) << "no end mark";
}

TEST_P(Observe, the_command_line_shows_the_same_metrics) {
    const Completed shown =
        run_program({cli_program(), "-s", world().daemon.control_socket(), "metric", "show"});
    EXPECT_EQ(shown.exit_code, 0) << shown.err;
    const Completed checked = check_metrics(shown.out);
    EXPECT_EQ(checked.exit_code, 0) << checked.out << checked.err;
    const boost::json::object reply = world().daemon.ask({"metric", "show"});
    std::set<std::string> names;
    for (const boost::json::value& metric : reply.at("metrics").as_array())
        names.emplace(metric.at("name").as_string());
    EXPECT_TRUE(names.contains("tapgate_drops") && names.contains("tapgate_dns_latency_seconds"));
    for (const std::string& name : names)
        EXPECT_NE(shown.out.find("# TYPE " + name + " "), std::string::npos) << name;
}

std::string content(const std::string& file) {
    std::ifstream stream(file);
    return {std::istreambuf_iterator<char>(stream), {}};
}

/// A Prometheus in the host's namespace, which scrapes the daemon and evaluates the alert rules.
class Prometheus {
  public:
    explicit Prometheus(const NetNs& host)
        : host_(host), process_({"prometheus", "--config.file", configuration(), "--storage.tsdb.path",
                                 scratch_dir() / "tsdb", "--web.listen-address", "127.0.0.1:9090"},
                                &host) {}

    /// `data` of what its API answers; a test failure if that is an error.
    [[nodiscard]] boost::json::value get(const std::string& path, const std::string& query = {}) const {
        const Completed got = run_program({"curl", "-sS", "--get", "--data-urlencode", "query=" + query,
                                           "http://127.0.0.1:9090/api/v1/" + path},
                                          &host_);
        boost::system::error_code error;
        const boost::json::value answer = boost::json::parse(got.out, error);
        const bool is_success = !error && answer.is_object() && is(answer.get_object(), "status", "success");
        EXPECT_TRUE(is_success) << query << ": " << got.out << got.err << process_.err();
        return is_success ? answer.at("data") : boost::json::value();
    }

    [[nodiscard]] bool is_ready() const {
        return run_program({"curl", "-sf", "http://127.0.0.1:9090/-/ready"}, &host_).exit_code == 0;
    }

    /// Whether the expression, which has a value of its own for each series, has one.
    [[nodiscard]] bool has(const std::string& query) const {
        const boost::json::value found = get("query", query);
        return found.is_object() && !found.at("result").as_array().empty();
    }

    [[nodiscard]] std::string log() const { return process_.err(); }

  private:
    static std::string configuration() {
        return write_scratch("prometheus.yml",
                             fmt::format("global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n"
                                         "rule_files: [{}]\n"
                                         "scrape_configs: [{{job_name: tapgate, static_configs: "
                                         "[{{targets: ['127.0.0.1:9664']}}]}}]\n",
                                         TAPGATE_ALERTS));
    }

    const NetNs& host_;
    Process process_;
};

/// An expression of the dashboard with what Grafana puts in the place of its variables.
std::string as_asked_by_grafana(std::string expression) {
    for (const auto& [variable, value] :
         {std::pair<std::string_view, std::string_view>{"$__rate_interval", "1m"},
          {"$instance", ".*"},
          {"$guest", ".*"}})
        for (std::size_t at = 0; (at = expression.find(variable)) != std::string::npos;)
            expression.replace(at, variable.size(), value);
    return expression;
}

TEST(Monitoring, prometheus_reads_the_metrics_the_alerts_and_the_dashboard) {
    World world(DaemonConfig{}, {});
    const Prometheus prometheus(world.topology.host());
    ASSERT_TRUE(wait_until([&] { return prometheus.is_ready(); })) << prometheus.log();
    EXPECT_TRUE(wait_until([&] { return prometheus.has("tapgate_guests{state=\"attached\"} == 1"); }))
        << prometheus.log();

    std::size_t alerts = 0;
    EXPECT_TRUE(wait_until([&] {
        const boost::json::value rules = prometheus.get("rules").at("groups").at(0).at("rules");
        alerts = rules.as_array().size();
        return std::ranges::all_of(rules.as_array(),
                                   [](const auto& rule) { return is(rule.as_object(), "health", "ok"); });
    })) << boost::json::serialize(prometheus.get("rules"));
    EXPECT_GT(alerts, 10U);
    const boost::json::value dashboard = boost::json::parse(content(TAPGATE_DASHBOARD));
    for (const boost::json::value& panel : dashboard.at("panels").as_array())
        for (const boost::json::value& target : panel.at("targets").as_array())
            EXPECT_TRUE(
                prometheus.get("query", as_asked_by_grafana(std::string(target.at("expr").as_string())))
                    .is_object());

    world.daemon.kill();
    EXPECT_TRUE(wait_until([&] { return prometheus.has("ALERTS{alertname=\"TapgateDown\"}"); }))
        << boost::json::serialize(prometheus.get("alerts"));
}

/// The objects in lines of JSON; a test failure if a line is none.
std::vector<boost::json::object> json_lines(const std::string& text) {
    std::vector<boost::json::object> found;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        boost::system::error_code error;
        boost::json::value value = boost::json::parse(line, error);
        EXPECT_TRUE(!error && value.is_object()) << line;
        if (!error && value.is_object())
            found.push_back(value.get_object());
    }
    return found;
}

TEST(Logs, flows_are_recorded_in_a_file_and_the_log_is_json_if_asked_for) {
    DaemonConfig config;
    config.policy = policy_text({"allow@www.open.test:tcp:7000"});
    // Full already: the first record makes room, from within the daemon's sandbox.
    const std::string full(std::size_t{1} << 20U, '\n');
    const std::string file = write_scratch("flows.jsonl", full);
    config.log = fmt::format("format = \"json\"\nflow_file = \"{}\"\nflow_file_mib = 1\n", file);
    World world(config, {dual_stack("www.open.test", kOpen)});
    const TcpServer web(world.topology.internet(), {ipv4().server(kOpen), kPort}, echo);
    resolve(world, ipv4(), "www.open.test");
    EXPECT_EQ(exchange(world.topology.guest().ns, web.endpoint(), "\x01ping").answer, "\x01ping");
    EXPECT_TRUE(wait_until([&] { return content(file).ends_with("}\n"); })) << world.daemon.log();
    EXPECT_EQ(content(file + ".1"), full);
    const auto records = json_lines(content(file));
    ASSERT_EQ(records.size(), 1U);
    EXPECT_TRUE(is(records[0], "type", "flow-end") && is(records[0], "guest", "vm0") &&
                is(records[0], "name", "www.open.test") && is(records[0], "how", "finished"))
        << records[0];
    EXPECT_EQ(records[0].at("bytes_up").to_number<int>(), 5);
    const auto lines = json_lines(world.daemon.log());
    EXPECT_FALSE(lines.empty());
    for (const auto& line : lines)
        EXPECT_TRUE(line.contains("time") && line.contains("level") && line.contains("message")) << line;
}

TEST(Logs, a_stop_records_the_flows_that_it_ends) {
    DaemonConfig config;
    config.policy = policy_text({"allow@www.open.test:tcp:7000"});
    const std::string file = scratch_dir() / "at_stop.jsonl";
    config.log = fmt::format("flow_file = \"{}\"\n", file);
    World world(config, {dual_stack("www.open.test", kOpen)});
    const TcpServer web(world.topology.internet(), {ipv4().server(kOpen), kPort}, echo);
    resolve(world, ipv4(), "www.open.test");
    std::vector<TcpStream> streams;
    for (int i = 0; i < 20; ++i) {
        auto stream = TcpStream::connect(world.topology.guest().ns, web.endpoint());
        ASSERT_TRUE(stream);
        EXPECT_EQ(stream->send("\x01ping"), 0);
        EXPECT_EQ(stream->receive(5).bytes, "\x01ping");
        streams.push_back(std::move(*stream));
    }
    world.daemon.signal(SIGTERM);
    world.daemon.finish();
    const auto records = json_lines(content(file));
    EXPECT_EQ(records.size(), streams.size()) << world.daemon.log();
    for (const auto& record : records)
        EXPECT_TRUE(is(record, "type", "flow-end") && is(record, "how", "cancelled") &&
                    is(record, "who", "daemon"))
            << record;
}

/// A datagram socket at `path` in the place of an older one, as a syslog daemon makes it.
UniqueFd listen_as_syslog(const std::string& path) {
    ::unlink(path.c_str());
    UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        throw std::system_error(errno, std::generic_category(), "bind " + path);
    return socket;
}

TEST(Logs, flows_are_recorded_in_syslog_also_after_it_was_restarted) {
    const std::string path = scratch_dir() / "syslog";
    UniqueFd syslog = listen_as_syslog(path);
    DaemonConfig config;
    config.policy = policy_text({"allow@www.open.test:tcp:7000"});
    config.log = fmt::format("flow_syslog = \"{}\"\n", path);
    World world(config, {dual_stack("www.open.test", kOpen)});
    const TcpServer web(world.topology.internet(), {ipv4().server(kOpen), kPort}, echo);
    resolve(world, ipv4(), "www.open.test");
    for (const char* round : {"the first syslog daemon", "its successor"}) {
        SCOPED_TRACE(round);
        EXPECT_EQ(exchange(world.topology.guest().ns, web.endpoint(), "\x01ping").answer, "\x01ping");
        std::array<char, 4096> bytes{};
        ssize_t length = -1;
        EXPECT_TRUE(wait_until([&] {
            length = ::recv(syslog.get(), bytes.data(), bytes.size(), 0);
            return length > 0;
        })) << world.daemon.log();
        const std::string message(bytes.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0)));
        const std::string head = fmt::format("<30>tapgate-flow[{}]: ", world.daemon.pid());
        ASSERT_TRUE(message.starts_with(head)) << message;
        const auto records = json_lines(message.substr(head.size()));
        ASSERT_EQ(records.size(), 1U);
        EXPECT_TRUE(is(records[0], "type", "flow-end") && is(records[0], "name", "www.open.test"))
            << records[0];
        syslog = listen_as_syslog(path);
    }
}

TEST(Logs, a_flow_file_that_cannot_be_written_is_told_at_start) {
    const Topology topology;
    DaemonConfig config;
    config.log = "flow_file = \"/nowhere/flows\"\n";
    try {
        const Daemon daemon(topology, config);
        ADD_FAILURE() << "it started";
    } catch (const std::runtime_error& error) {
        EXPECT_NE(std::string(error.what())
                      .find("Error: open the flow log /nowhere/flows: No such file or directory"),
                  std::string::npos)
            << error.what();
    }
}

INSTANTIATE_TEST_SUITE_P(Family, Observe, families(), family_name);

} // namespace
} // namespace tapgate::test
