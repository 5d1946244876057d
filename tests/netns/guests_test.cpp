// SPDX-License-Identifier: Apache-2.0
#include "harness/process.hpp"
#include "harness/wait.hpp"
#include "netns/many_guests.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <set>

// A hundred guests at once: each is attached, named and counted for itself, whatever becomes of the others.
// What many of them cost is for tests/bench.
namespace tapgate::test {
namespace {

namespace json = boost::json;

constexpr unsigned kMany = 100;
constexpr unsigned kServer = 10;
constexpr std::uint16_t kPort = 7000;

class ManyGuests : public testing::Test {
  protected:
    static DaemonConfig config(const std::vector<GuestEntry>& more) {
        DaemonConfig config;
        config.policy = policy_text({"allow@www.open.test:tcp:7000"});
        config.guests.insert(config.guests.end(), more.begin(), more.end());
        return config;
    }

    /// A row of `guest show` for each name; a name that comes twice is a failure.
    static std::map<std::string, json::object> shown(const Daemon& daemon) {
        std::map<std::string, json::object> rows;
        const json::object reply = daemon.ask({"guest", "show"});
        for (const json::value& row : reply.at("guests").as_array()) {
            const std::string name(row.at("name").as_string());
            EXPECT_TRUE(rows.emplace(name, row.as_object()).second) << name;
        }
        return rows;
    }

    static std::map<std::string, std::uint64_t> ids(const Daemon& daemon) {
        std::map<std::string, std::uint64_t> found;
        for (const auto& [name, row] : shown(daemon)) {
            EXPECT_EQ(row.at("state").as_string(), "attached") << name;
            found[name] = row.at("id").to_number<std::uint64_t>();
        }
        return found;
    }

    static unsigned attached(const Daemon& daemon) {
        return daemon.ask({"status", "show"}).at("guests").to_number<unsigned>();
    }

    /// Guest 0, behind which there is somebody, resolves and connects.
    void expect_vm0_is_served() {
        const NetNs& guest = topology_.guest().ns;
        const auto reply = ask(guest, {ipv4().gateway, 53}, "www.open.test", "A", kPatience);
        EXPECT_TRUE(reply && reply->rcode == kNoError);
        EXPECT_PRED1(was_served, exchange(guest, upstream_.endpoint(), "\x01"));
    }

    Topology topology_;
    Resolver resolver_{topology_.internet(), {dual_stack("www.open.test", kServer)}};
    CaptureServer upstream_{topology_.internet(), {ipv4().server(kServer), kPort}};
};

TEST_F(ManyGuests, of_the_configuration_are_attached_at_start_and_keep_their_ids_over_a_crash) {
    add_taps(topology_.host(), kMany);
    Daemon daemon(topology_, config(many_guests(kMany)));
    const std::map<std::string, std::uint64_t> before = ids(daemon);
    std::set<std::uint64_t> distinct;
    for (const auto& [name, id] : before)
        distinct.insert(id);
    EXPECT_EQ(distinct.size(), kMany + 1);
    EXPECT_EQ(attached(daemon), kMany + 1);
    expect_vm0_is_served();
    // What one does is its own.
    for (const auto& [name, row] : shown(daemon))
        EXPECT_EQ(row.at("bindings").to_number<unsigned>(), name == "vm0" ? 1U : 0U) << name;

    daemon.kill();
    daemon.start();
    EXPECT_EQ(ids(daemon), before);
    expect_vm0_is_served();

    daemon.stop();
    must_run({daemon_program(), "--cleanup", "--config", daemon.config_file()}, &topology_.host());
    EXPECT_FALSE(std::filesystem::exists(daemon.pin_dir()));
}

TEST_F(ManyGuests, follow_one_swap_of_the_policy_that_they_share) {
    add_taps(topology_.host(), kMany);
    Daemon daemon(topology_, config(many_guests(kMany)));
    const auto generation = daemon.load_policy(policy_text({"allow@www.open.test:tcp:7000", "deny@any"}))
                                .at("policy")
                                .at("generation");
    for (const auto& [name, row] : shown(daemon))
        EXPECT_EQ(row.at("generation"), generation) << name;
    EXPECT_EQ(daemon.ask({"policy", "show", "main"}).at("policies").at(0).at("guests").as_array().size(),
              kMany + 1);
    expect_vm0_is_served();

    const json::object metrics = daemon.ask({"metric", "show"});
    std::set<std::string> counted;
    for (const json::value& family : metrics.at("metrics").as_array()) {
        if (family.at("name").as_string() != "tapgate_guest_use")
            continue;
        for (const json::value& sample : family.at("samples").as_array())
            counted.emplace(sample.at("labels").at("guest").as_string());
    }
    EXPECT_EQ(counted.size(), kMany + 1);
}

TEST_F(ManyGuests, come_and_go_by_command_and_with_their_links) {
    Daemon daemon(topology_, config({}));
    add_taps(topology_.host(), kMany);
    for (const GuestEntry& guest : many_guests(kMany)) {
        // The daemon may hear of the last links after us.
        EXPECT_TRUE(wait_until([&] { return daemon.cli(guest_add_words(guest)).exit_code == 0; }))
            << guest.name;
    }
    const std::map<std::string, std::uint64_t> before = ids(daemon);
    EXPECT_EQ(before.size(), kMany + 1);

    // Every other one leaves, and comes back as somebody else.
    for (unsigned number = 0; number < kMany; number += 2)
        daemon.ask({"guest", "del", many_guest(number).name});
    EXPECT_EQ(attached(daemon), kMany / 2 + 1);
    for (unsigned number = 0; number < kMany; number += 2)
        daemon.ask(guest_add_words(many_guest(number)));
    const std::map<std::string, std::uint64_t> after = ids(daemon);
    EXPECT_EQ(after.size(), kMany + 1);
    for (unsigned number = 0; number < kMany; ++number) {
        const std::string name = many_guest(number).name;
        EXPECT_EQ(after.at(name) == before.at(name), number % 2 == 1) << name;
    }
    expect_vm0_is_served();

    std::string script;
    for (unsigned number = 0; number < kMany; ++number)
        script += fmt::format("link delete {}\n", many_guest(number).interface);
    ip_batch(topology_.host(), script);
    EXPECT_TRUE(wait_until([&] { return attached(daemon) == 1; }));
    EXPECT_EQ(daemon.map_entries("guests"), 1U);
    for (const auto& [name, row] : shown(daemon))
        EXPECT_EQ(row.at("state").as_string(), name == "vm0" ? "attached" : "waiting") << name;
    expect_vm0_is_served();
}

} // namespace
} // namespace tapgate::test
