// SPDX-License-Identifier: Apache-2.0
#include "harness/daemon.hpp"

#include "harness/sandbox.hpp"
#include "harness/wait.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

#include <net/if.h>
#include <unistd.h>

namespace tapgate::test {

namespace {

std::string quoted_list(const std::vector<std::string>& words) {
    std::vector<std::string> quoted;
    for (const std::string& word : words)
        quoted.push_back(fmt::format("\"{}\"", word));
    return fmt::format("[{}]", fmt::join(quoted, ", "));
}

std::string config_text(const DaemonConfig& config, const std::string& socket, const std::string& pin_dir,
                        const std::filesystem::path& policy_file) {
    std::string text = fmt::format("[daemon]\ncontrol_socket = \"{}\"\npin_dir = \"{}\"\n{}\n"
                                   "[dns]\n{}\n[limits]\n{}\n[timers]\ndrain_s = {}\n{}\n[log]\n{}\n",
                                   socket, pin_dir, config.daemon, config.dns, config.limits,
                                   config.drain_seconds, config.timers, config.log);
    for (const GuestEntry& guest : config.guests)
        text +=
            fmt::format("[[guest]]\nname = \"{}\"\ninterface = \"{}\"\naddresses = {}\npolicy = \"main\"\n",
                        guest.name, guest.interface, quoted_list(guest.addresses));
    return text +
           fmt::format("[policy.main]\nfile = \"{}\"\n{}\n", policy_file.string(), config.policy_options);
}

std::string program(std::string_view name) {
    const char* dir = std::getenv("TAPGATE_PROGRAM_DIR");
    return fmt::format("{}/{}", dir != nullptr ? dir : TAPGATE_BUILT_PROGRAM_DIR, name);
}

bool mentions_sanitizer(std::string_view log) {
    return std::ranges::any_of(
        std::initializer_list<std::string_view>{"Sanitizer", "runtime error:", "tapgate: bug at"},
        [log](std::string_view word) { return log.find(word) != std::string_view::npos; });
}

} // namespace

std::string policy_text(const std::vector<std::string>& rules, std::string_view more) {
    return fmt::format("rules = {}\n[groups]\npublic = [\"198.51.100.0/24\", \"203.0.113.0/24\", "
                       "\"2001:db8:2::/48\", \"2001:db8:3::/48\"]\n{}\n",
                       quoted_list(rules), more);
}

Daemon::Daemon(const Topology& topology, const DaemonConfig& config)
    : host_(topology.host()), launcher_(config.launcher) {
    static std::atomic<unsigned> count{0};
    const unsigned number = ++count;
    dir_ = fmt::format("daemon-{}", number);
    pin_dir_ = fmt::format("/sys/fs/bpf/tapgate-{}", number);
    socket_ = scratch_dir() / dir_ / "control.sock";
    policy_file_ = write_scratch(dir_ / "main.toml", config.policy);
    config_file_ = write_scratch(dir_ / "tapgate.toml", config_text(config, socket_, pin_dir_, policy_file_));
    for (const GuestEntry& guest : config.guests) {
        if (host_.run([&] { return ::if_nametoindex(guest.interface.c_str()); }) != 0)
            expected_guests_.insert(guest.name);
    }
    start();
}

Daemon::~Daemon() {
    if (process_)
        stop();
}

void Daemon::launch() {
    std::vector<std::string> argv = launcher_;
    argv.insert(argv.end(), {daemon_program(), "--config", config_file_});
    process_.emplace(argv, &host_);
}

void Daemon::start() {
    launch();
    // Sanitizers make loading the programs slow.
    if (!wait_until([this] { return !process_->running() || ready(); }, std::chrono::minutes(1)) ||
        !process_->running())
        throw std::runtime_error("the daemon does not come up:\n" + process_->err());
}

bool Daemon::ready() const {
    if (::access(socket_.c_str(), F_OK) != 0)
        return false;
    const Completed shown = run_program({cli_program(), "-j", "-s", socket_, "guest", "show"});
    if (shown.exit_code != 0)
        return false;
    std::set<std::string> attached;
    const boost::json::value reply = boost::json::parse(shown.out);
    for (const boost::json::value& guest : reply.at("guests").as_array()) {
        if (guest.at("state").as_string() == "attached")
            attached.emplace(guest.at("name").as_string());
    }
    return std::ranges::includes(attached, expected_guests_);
}

void Daemon::stop() {
    process_->stop();
    finish();
}

void Daemon::finish() {
    expect_good_end(*process_);
    process_.reset();
}

void Daemon::take_over() {
    predecessor_.emplace(std::move(*process_));
    process_.emplace(std::vector<std::string>{daemon_program(), "--take-over", "--config", config_file_},
                     &host_);
    const auto serves = [this] {
        const Completed shown = run_program({cli_program(), "-j", "-s", socket_, "status", "show"});
        return shown.out.find(fmt::format("\"pid\":{},", pid())) != std::string::npos;
    };
    if (!wait_until([&] { return !process_->running() || serves(); }, std::chrono::minutes(2)) ||
        !process_->running())
        throw std::runtime_error("the daemon does not take over:\n" + process_->err());
}

void Daemon::finish_predecessor() {
    expect_good_end(*predecessor_);
    predecessor_.reset();
}

void Daemon::expect_good_end(Process& process) {
    const std::optional<ExitCode> code = process.wait(kPatience);
    const std::string text = process.err();
    EXPECT_TRUE(code == 0 && !mentions_sanitizer(text))
        << "the daemon ended with code " << code.value_or(-1) << ":\n"
        << text;
}

void Daemon::kill() {
    process_->signal(SIGKILL);
    EXPECT_EQ(process_->wait(kPatience), 128 + SIGKILL) << log();
    EXPECT_FALSE(mentions_sanitizer(log())) << log();
    process_.reset();
}

Daemon::Reply Daemon::cli(const std::vector<std::string>& words) const {
    std::vector<std::string> argv = {cli_program(), "-j", "-s", socket_};
    argv.insert(argv.end(), words.begin(), words.end());
    const Completed completed = run_program(argv);
    boost::system::error_code error;
    boost::json::value value = boost::json::parse(completed.out, error);
    EXPECT_TRUE(!error && value.is_object())
        << fmt::format("{}: {}{}", fmt::join(argv, " "), completed.out, completed.err);
    return {completed.exit_code, value.is_object() ? std::move(value.get_object()) : boost::json::object{}};
}

boost::json::object Daemon::ask(const std::vector<std::string>& words) const {
    Reply reply = cli(words);
    EXPECT_EQ(reply.exit_code, 0) << boost::json::serialize(reply.json);
    return reply.exit_code == 0 ? std::move(reply.json) : boost::json::object{};
}

boost::json::object Daemon::load_policy(const std::string& text, const std::vector<std::string>& options) {
    static std::atomic<unsigned> count{0};
    const auto file = write_scratch(dir_ / fmt::format("policy-{}.toml", ++count), text);
    std::vector<std::string> words = {"policy", "load", "main", file};
    words.insert(words.end(), options.begin(), options.end());
    return ask(words);
}

boost::json::object Daemon::guest(std::string_view name) const {
    const boost::json::object reply = ask({"guest", "show"});
    if (const auto* guests = reply.if_contains("guests")) {
        for (const boost::json::value& entry : guests->as_array()) {
            if (entry.at("name").as_string() == name)
                return entry.as_object();
        }
    }
    return {};
}

std::uint64_t Daemon::drops(std::string_view reason, std::string_view name) const {
    const boost::json::object entry = guest(name);
    const auto* drops = entry.if_contains("drops");
    if (drops == nullptr)
        return 0;
    for (const boost::json::value& row : drops->as_array()) {
        if (row.at("reason").as_string() == reason)
            return row.at("packets").to_number<std::uint64_t>();
    }
    return 0;
}

boost::json::array Daemon::flows() const {
    boost::json::object reply = ask({"flow", "show"});
    return reply.contains("flows") ? std::move(reply.at("flows").as_array()) : boost::json::array{};
}

std::vector<std::string> Daemon::bindings(const std::string& name) const {
    const boost::json::object reply = ask({"dns", "show", "--name", name});
    std::vector<std::string> addresses;
    if (const auto* rows = reply.if_contains("bindings")) {
        for (const boost::json::value& row : rows->as_array())
            addresses.emplace_back(row.at("address").as_string());
    }
    return addresses;
}

std::size_t Daemon::map_entries(const std::string& map) const {
    const std::string dump =
        must_run({"bpftool", "-j", "map", "dump", "pinned", fmt::format("{}/maps/{}", pin_dir_, map)});
    return boost::json::parse(dump).as_array().size();
}

std::size_t Daemon::descriptors() const {
    const std::filesystem::directory_iterator entries(fmt::format("/proc/{}/fd", pid()));
    return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

std::size_t Daemon::resident_bytes() const {
    std::ifstream file(fmt::format("/proc/{}/statm", pid()));
    std::size_t total = 0;
    std::size_t resident = 0;
    file >> total >> resident;
    return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

double Daemon::cpu_milliseconds() const {
    std::ifstream file(fmt::format("/proc/{}/stat", pid()));
    std::string text((std::istreambuf_iterator<char>(file)), {});
    std::istringstream fields(text.substr(text.rfind(')') + 2)); // from field 3 on (proc(5))
    std::string skipped;
    for (int field = 3; field < 14; ++field)
        fields >> skipped;
    double user = 0;
    double system = 0;
    fields >> user >> system;
    return 1000.0 * (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

std::string daemon_program() {
    return program("tapgated");
}

std::string cli_program() {
    return program("tapgate");
}

bool quick() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#else
    const char* wish = std::getenv("TAPGATE_TEST_QUICK");
    return wish != nullptr && std::string_view(wish) == "1";
#endif
}

} // namespace tapgate::test
