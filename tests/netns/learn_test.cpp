// SPDX-License-Identifier: Apache-2.0
#include "harness/sandbox.hpp"
#include "harness/wait.hpp"
#include "netns/events.hpp"
#include "netns/world.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>

// What a guest did with the programs people use, learned, and then enforced: it denies nothing.
namespace tapgate::test {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr unsigned kSite = 10;

/// Everything is allowed, and every connection waits for its name.
std::string observe() {
    return policy_text({"deny@learn.invalid", "allow@any"});
}

/// A directory of that name with nothing in it.
fs::path fresh(const std::string& name) {
    const fs::path dir = scratch_dir() / name;
    fs::remove_all(dir);
    fs::create_directories(dir);
    return dir;
}

/// A git repository for plain HTTP servers.
void make_repository(const fs::path& www) {
    const fs::path work = fresh("work");
    must_run({"git", "init", "-q", work});
    must_run({"git", "-C", work, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q",
              "--allow-empty", "-m", "first"});
    must_run({"git", "clone", "-q", "--bare", work, www / "repository.git"});
    must_run({"git", "-C", www / "repository.git", "update-server-info"});
}

/// An archive of one Debian package.
void make_archive(const fs::path& www) {
    const fs::path package = fresh("package");
    fs::create_directories(package / "DEBIAN");
    fs::create_directories(www / "archive");
    std::ofstream(package / "DEBIAN" / "control") << "Package: hello-test\nVersion: 1.0\nArchitecture: all\n"
                                                     "Maintainer: a <a@example.com>\nDescription: test\n";
    must_run({"dpkg-deb", "--build", package, www / "archive" / "hello-test_1.0_all.deb"});
    must_run({"sh", "-c", "cd \"$0\" && dpkg-scanpackages -m . > Packages", www / "archive"});
}

fs::path make_www() {
    const fs::path www = fresh("www");
    make_repository(www);
    make_archive(www);
    return www;
}

class Learn : public WorldTest<Learn> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.policy = observe();
        return std::make_unique<World>(
            config, std::vector<std::string>{dual_stack("git.test", kSite), dual_stack("deb.test", kSite)});
    }

  protected:
    static Completed git_clone(const fs::path& ca_file) {
        // In the environment: what is there would win over options.
        return run_program({"env", "GIT_SSL_CAINFO=" + ca_file.string(), "git", "-c", "http.proxy=", "clone",
                            "-q", "https://git.test/repository.git", fresh("clone") / "repository"},
                           &guest());
    }

    /// apt-get with a state of its own: `update`, then `download`.
    static Completed apt_get() {
        const fs::path dir = fresh("apt");
        fs::create_directories(dir / "state/lists/partial");
        fs::create_directories(dir / "cache/archives/partial");
        std::ofstream(dir / "state/status").flush();
        std::ofstream(dir / "sources.list") << "deb [trusted=yes] http://deb.test/archive/ ./\n";
        const std::string d = dir;
        const std::string apt_get =
            "apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=0 -o Dir::State=" + d +
            "/state -o Dir::State::status=" + d + "/state/status -o Dir::Cache=" + d +
            "/cache -o Dir::Etc::sourcelist=" + d +
            "/sources.list -o Dir::Etc::sourceparts=/dev/null -o Acquire::http::Proxy=false ";
        return run_program({"sh", "-c",
                            "cd " + d + " && " + apt_get + "update && " + apt_get +
                                "download hello-test && test -s hello-test_1.0_all.deb"},
                           &guest());
    }

    void work() const {
        const Completed cloned = git_clone(web_.ca_file());
        EXPECT_EQ(cloned.exit_code, 0) << cloned.err;
        const Completed fetched = apt_get();
        EXPECT_EQ(fetched.exit_code, 0) << fetched.out << fetched.err;
    }

    WebServer web_{world().topology.internet(), {kSite}, {"git.test", "deb.test"}, make_www()};
};

TEST_P(Learn, what_git_and_apt_did_is_learned_and_enforced_without_a_denial) {
    world().daemon.load_policy(observe());
    Process learning(
        {cli_program(), "-j", "-s", world().daemon.control_socket(), "policy", "learn", "--guest", "vm0"},
        &world().topology.host());
    ASSERT_TRUE(wait_until([&] { return learning.err().find("learning") != std::string::npos; }))
        << learning.err();
    work();
    learning.signal(SIGINT);
    ASSERT_EQ(learning.wait(std::chrono::seconds(30)), 0) << learning.err();
    const json::object learned = json::parse(learning.out()).as_object();
    EXPECT_TRUE(learned.at("complete").as_bool());
    EXPECT_TRUE(learned.at("denied").as_object().empty()) << json::serialize(learned.at("denied"));
    std::vector<std::string> rules;
    for (const json::value& rule : learned.at("rules").as_array())
        rules.emplace_back(rule.at("rule").as_string());
    EXPECT_NE(std::ranges::find(rules, "allow@git.test:tcp:443"), rules.end()) << learning.out();
    EXPECT_NE(std::ranges::find(rules, "allow@deb.test:tcp:80"), rules.end()) << learning.out();
    for (const std::string& rule : rules)
        EXPECT_EQ(rule.find('*'), std::string::npos) << rule;

    world().daemon.load_policy(json::serialize(learned.at("policy")));
    world().daemon.ask({"dns", "flush", "--guest", "vm0"});
    const EventMonitor monitor(world().daemon);
    work();
    // The mark: what came before it has been told.
    static_cast<void>(ask(guest(), {family().gateway, 53}, "marker.test", "A", std::chrono::seconds(10)));
    ASSERT_TRUE(monitor.wait_for([](const json::object& event) { return is(event, "name", "marker.test"); }));
    for (const json::object& event : monitor.events()) {
        if (!is(event, "name", "marker.test")) {
            EXPECT_FALSE(is(event, "verdict", "deny")) << json::serialize(event);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Families, Learn, families(), family_name);

} // namespace
} // namespace tapgate::test
