// SPDX-License-Identifier: Apache-2.0
#include "control/client.hpp"
#include "harness/sandbox.hpp"
#include "harness/wait.hpp"
#include "netns/events.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>
#include <thread>

// A policy swapped on a running daemon: what it does to the flows that are open, and that no verdict is ever
// a mixture of two policies (I6, B52).
namespace tapgate::test {
namespace {

namespace json = boost::json;
using std::chrono::milliseconds;

constexpr unsigned kServer = 10;
constexpr std::uint16_t kSteady = 7000; // allowed by both policies below
constexpr std::uint16_t kRisky = 7001;  // allowed by the wide one only

const std::string& wide() {
    static const std::string text = policy_text({"allow@www.open.test:tcp:7000-7001"});
    return text;
}

const std::string& tight() {
    static const std::string text = policy_text({"allow@www.open.test:tcp:7000", "deny@any"});
    return text;
}

class Swap : public WorldTest<Swap> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.policy = wide();
        config.timers = "server_first_ms = 5000"; // a silent guest stays in peek
        return std::make_unique<World>(config,
                                       std::vector<std::string>{dual_stack("www.open.test", kServer)});
    }

  protected:
    void SetUp() override {
        WorldTest::SetUp();
        daemon().load_policy(wide(), {"--live", "cut"});
        ASSERT_TRUE(wait_until([] { return daemon().flows().empty(); })) << json::serialize(daemon().flows());
        resolve(world(), family(), "www.open.test");
    }

    static Daemon& daemon() { return world().daemon; }

    static const NetNs& internet() { return world().topology.internet(); }

    static std::uint64_t generation() { return daemon().guest().at("generation").to_number<std::uint64_t>(); }

    /// A connection that an echo server at `to` has answered on.
    static TcpStream open_flow(const Endpoint& to) {
        auto stream = TcpStream::connect(guest(), to);
        if (!stream)
            throw std::system_error(stream.error(), std::generic_category(), "connect");
        EXPECT_TRUE(answers(*stream));
        return std::move(*stream);
    }

    static bool answers(TcpStream& stream) {
        return stream.send("\x01ping") == 0 && stream.receive(5).bytes == "\x01ping";
    }

    static bool is_refused(const Endpoint& to) {
        auto stream = TcpStream::connect(guest(), to);
        return !stream || (stream->send("\x01ping") != 0 || stream->receive_to_end().end == End::kReset);
    }

    /// The event that says how the flow from `source` ended.
    static std::optional<json::object> end_of(const EventMonitor& monitor, const Endpoint& source) {
        return monitor.wait_for([&](const json::object& event) {
            return is(event, "type", "flow-end") && is(event, "source", source.to_string());
        });
    }

    static std::uint64_t count(const json::object& reply, std::string_view what) {
        return reply.at("live_flows").at(what).to_number<std::uint64_t>();
    }
};

TEST_P(Swap, B52_a_flow_opened_before_the_policy_was_tightened_is_cut) {
    std::atomic<int> server_end{-1};
    const TcpServer risky(internet(), server(kServer, kRisky), [&](TcpStream& stream) {
        stream.send(stream.receive(5).bytes);
        server_end = static_cast<int>(stream.receive_to_end().end);
    });
    const TcpServer steady(internet(), server(kServer, kSteady), echo);
    const EventMonitor monitor(daemon());
    TcpStream denied = open_flow(risky.endpoint());
    TcpStream allowed = open_flow(steady.endpoint());

    const json::object reply = daemon().load_policy(tight());
    EXPECT_EQ(count(reply, "cut"), 1U) << json::serialize(reply);
    EXPECT_EQ(count(reply, "allowed"), 1U);
    const json::object& listed = reply.at("live_flows").at("flows").at(0).as_object();
    EXPECT_TRUE(is(listed, "source", denied.local().to_string())) << json::serialize(listed);
    EXPECT_TRUE(is(listed, "rule", "deny@any")) << json::serialize(listed);

    EXPECT_EQ(denied.receive_to_end().end, End::kReset);
    EXPECT_TRUE(wait_until([&] { return server_end >= 0; }));
    EXPECT_EQ(server_end, static_cast<int>(End::kReset));
    const auto end = end_of(monitor, denied.local());
    ASSERT_TRUE(end.has_value());
    EXPECT_TRUE(is(*end, "how", "policy")) << json::serialize(*end);
    EXPECT_EQ(end->at("generation").to_number<std::uint64_t>(), generation());
    EXPECT_EQ(end->at("rule_number").to_number<unsigned>(), 2U);
    EXPECT_EQ(end->at("rule_line").to_number<unsigned>(), 1U);
    EXPECT_EQ(end->at("reason").as_string(),
              fmt::format("cut by policy main generation {}: rule 2 in line 1: deny@any", generation()));
    EXPECT_TRUE(is_refused(risky.endpoint()));

    EXPECT_TRUE(answers(allowed));
    const json::array flows = daemon().flows();
    ASSERT_EQ(flows.size(), 1U);
    EXPECT_EQ(flows[0].at("generation").to_number<std::uint64_t>(), generation());
    EXPECT_TRUE(is(flows[0].as_object(), "rule", "allow@www.open.test:tcp:7000"));
}

TEST_P(Swap, B52_a_flow_opened_before_the_policy_was_tightened_is_drained) {
    const TcpServer risky(internet(), server(kServer, kRisky), echo);
    const EventMonitor monitor(daemon());
    TcpStream denied = open_flow(risky.endpoint());
    const json::object reply = daemon().load_policy(tight(), {"--live", "drain=2s"});
    EXPECT_EQ(count(reply, "draining"), 1U) << json::serialize(reply);
    EXPECT_TRUE(answers(denied));
    const json::array flows = daemon().flows();
    ASSERT_EQ(flows.size(), 1U);
    EXPECT_TRUE(is(flows[0].as_object(), "state", "drain")) << json::serialize(flows);
    EXPECT_GT(flows[0].at("drain_ms").to_number<int>(), 0);
    EXPECT_LE(flows[0].at("drain_ms").to_number<int>(), 2000);
    EXPECT_EQ(flows[0].at("denied_by").at("generation").to_number<std::uint64_t>(), generation());
    EXPECT_TRUE(is_refused(risky.endpoint()));

    EXPECT_EQ(denied.receive_to_end().end, End::kReset);
    const auto swap = monitor.wait_for([](const json::object& event) { return is(event, "type", "policy"); });
    const auto end = end_of(monitor, denied.local());
    ASSERT_TRUE(swap && end);
    EXPECT_TRUE(end->at("reason").as_string().starts_with("drained by policy main generation "));
    // Never early, but for the rounding of both times; late only by what a busy machine adds.
    EXPECT_GE((time_of(*end) - time_of(*swap)).count(), 1999);
    EXPECT_LT((time_of(*end) - time_of(*swap)).count(), 4000);
}

TEST_P(Swap, B52_a_flow_opened_before_the_policy_was_tightened_is_kept) {
    const TcpServer risky(internet(), server(kServer, kRisky), echo);
    TcpStream denied = open_flow(risky.endpoint());
    const std::uint64_t admitted_by = generation();
    const json::object reply = daemon().load_policy(tight(), {"--live", "keep"});
    EXPECT_EQ(count(reply, "kept"), 1U) << json::serialize(reply);
    EXPECT_TRUE(answers(denied));
    const json::array flows = daemon().flows();
    ASSERT_EQ(flows.size(), 1U);
    EXPECT_EQ(flows[0].at("generation").to_number<std::uint64_t>(), admitted_by);
    EXPECT_EQ(flows[0].at("denied_by").at("generation").to_number<std::uint64_t>(), generation());
    EXPECT_TRUE(is_refused(risky.endpoint()));
    EXPECT_TRUE(answers(denied));
    // The next swap judges it again.
    EXPECT_EQ(count(daemon().load_policy(tight()), "cut"), 1U);
    EXPECT_EQ(denied.receive_to_end().end, End::kReset);
}

TEST_P(Swap, a_draining_flow_that_the_next_policy_allows_goes_on) {
    const TcpServer risky(internet(), server(kServer, kRisky), echo);
    TcpStream stream = open_flow(risky.endpoint());
    daemon().load_policy(tight(), {"--live", "drain=1h"});
    EXPECT_EQ(count(daemon().load_policy(wide()), "allowed"), 1U);
    const json::array flows = daemon().flows();
    ASSERT_EQ(flows.size(), 1U);
    EXPECT_TRUE(is(flows[0].as_object(), "state", "relay"));
    EXPECT_TRUE(flows[0].at("drain_ms").is_null());
    EXPECT_TRUE(answers(stream));
}

TEST_P(Swap, what_the_policy_itself_says_of_live_flows_is_done) {
    const TcpServer risky(internet(), server(kServer, kRisky), echo);
    TcpStream stream = open_flow(risky.endpoint());
    EXPECT_EQ(count(daemon().load_policy(tight() + "[deny]\nlive_flows = \"keep\"\n"), "kept"), 1U);
    EXPECT_EQ(count(daemon().load_policy(tight() + "[deny]\nlive_flows = \"drain 1h\"\n"), "draining"), 1U);
    EXPECT_TRUE(answers(stream));
    const Daemon::Reply refused = daemon().cli({"policy", "rollback", "main", "--live", "drian"});
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_TRUE(answers(stream));
}

TEST_P(Swap, a_binding_that_is_gone_does_not_cut_a_flow_that_its_name_still_allows) {
    const TcpServer steady(internet(), server(kServer, kSteady), echo);
    TcpStream stream = open_flow(steady.endpoint());
    daemon().ask({"dns", "flush", "--guest", "vm0"});
    EXPECT_EQ(count(daemon().load_policy(tight()), "allowed"), 1U);
    EXPECT_TRUE(answers(stream));
}

TEST_P(Swap, a_flow_whose_name_nobody_saw_is_cut_where_a_name_decides) {
    daemon().load_policy(policy_text({"allow@public:tcp:7000"}));
    const TcpServer steady(internet(), server(kServer, kSteady), echo);
    TcpStream stream = open_flow(steady.endpoint());
    const json::object reply = daemon().load_policy(tight());
    EXPECT_EQ(count(reply, "cut"), 1U) << json::serialize(reply);
    EXPECT_TRUE(is(reply.at("live_flows").at("flows").at(0).as_object(), "basis", "name-not-seen"));
    EXPECT_EQ(stream.receive_to_end().end, End::kReset);
}

TEST_P(Swap, a_dry_run_counts_over_all_workers_and_changes_nothing) {
    const TcpServer risky(internet(), server(kServer, kRisky), echo);
    std::vector<TcpStream> streams;
    for (int i = 0; i < 12; ++i)
        streams.push_back(open_flow(risky.endpoint()));
    const std::uint64_t before = generation();
    const json::object dry = daemon().load_policy(tight(), {"--dry-run"});
    EXPECT_EQ(count(dry, "cut"), streams.size());
    EXPECT_EQ(dry.at("live_flows").at("flows").as_array().size(), streams.size());
    EXPECT_EQ(dry.at("policy").at("generation").to_number<std::uint64_t>(), before + 1);
    EXPECT_EQ(generation(), before);
    for (TcpStream& stream : streams)
        EXPECT_TRUE(answers(stream));
    EXPECT_EQ(count(daemon().load_policy(tight()), "cut"), streams.size());
    for (TcpStream& stream : streams)
        EXPECT_EQ(stream.receive_to_end().end, End::kReset);
}

TEST_P(Swap, a_connection_in_peek_goes_on_under_the_new_policy) {
    const TcpServer risky(internet(), server(kServer, kRisky), echo);
    const auto peeking = [] {
        const json::array flows = daemon().flows();
        return flows.size() == 1 && is(flows[0].as_object(), "state", "peek");
    };
    const auto connect = [&] {
        auto stream = TcpStream::connect(guest(), risky.endpoint());
        EXPECT_TRUE(stream.has_value());
        EXPECT_TRUE(wait_until(peeking));
        return std::move(*stream);
    };

    TcpStream first = connect();
    EXPECT_EQ(count(daemon().load_policy(policy_text({"deny@public:tcp:7001"})), "cut"), 1U);
    EXPECT_EQ(first.receive_to_end().end, End::kReset); // without having said a word

    daemon().load_policy(wide());
    TcpStream second = connect();
    daemon().load_policy(policy_text({"allow@*.open.test:tcp:7001"}));
    EXPECT_TRUE(peeking());
    EXPECT_TRUE(answers(second));
    EXPECT_TRUE(is(daemon().flows().at(0).as_object(), "rule", "allow@*.open.test:tcp:7001"));
    second.reset();
    EXPECT_TRUE(wait_until([] { return daemon().flows().empty(); }));

    daemon().load_policy(wide());
    TcpStream third = connect();
    daemon().load_policy(policy_text({"allow@public:tcp:7001"}));
    EXPECT_TRUE(wait_until([] { return is(daemon().flows().at(0).as_object(), "state", "relay"); }));
    EXPECT_TRUE(answers(third));
}

TEST_P(Swap, history_lists_generations_and_a_rollback_is_a_new_one_with_the_old_content) {
    const TcpServer risky(internet(), server(kServer, kRisky), echo);
    const std::uint64_t first = generation();
    daemon().load_policy(tight());
    EXPECT_TRUE(is_refused(risky.endpoint()));
    const json::object back = daemon().ask({"policy", "rollback", "main"});
    EXPECT_EQ(back.at("rolled_back_to").to_number<std::uint64_t>(), first);
    EXPECT_EQ(generation(), first + 2);
    TcpStream stream = open_flow(risky.endpoint());

    daemon().ask({"policy", "rollback", "main", "--to", fmt::format("{}", first + 1)});
    EXPECT_EQ(stream.receive_to_end().end, End::kReset);
    EXPECT_EQ(daemon().cli({"policy", "rollback", "main", "--to", "999999"}).exit_code, 1);
    EXPECT_EQ(generation(), first + 3);

    const json::object history = daemon().ask({"policy", "history", "main"});
    const json::array& generations = history.at("policies").at(0).at("generations").as_array();
    ASSERT_GE(generations.size(), 4U);
    EXPECT_LE(generations.size(), 16U);
    EXPECT_EQ(generations[0].at("generation").to_number<std::uint64_t>(), first + 3);
    EXPECT_TRUE(is(generations[0].as_object(), "origin", "rollback"));
    EXPECT_TRUE(is(generations[2].as_object(), "origin", "load"));
    EXPECT_EQ(generations[0].at("rules").to_number<unsigned>(), 2U);
}

TEST_P(Swap, a_live_flow_is_explained_with_what_it_was_admitted_on) {
    const TcpServer steady(internet(), server(kServer, kSteady), echo);
    TcpStream stream = open_flow(steady.endpoint());
    daemon().ask({"dns", "flush", "--guest", "vm0"});
    const json::array flows = daemon().flows();
    ASSERT_EQ(flows.size(), 1U);
    const std::string id = json::serialize(flows[0].at("id"));
    const json::object explained = daemon().ask({"policy", "explain", "main", "--flow", id});
    EXPECT_TRUE(is(explained, "verdict", "allow")) << json::serialize(explained);
    EXPECT_TRUE(is(explained, "rule", "allow@www.open.test:tcp:7000-7001"));
    EXPECT_EQ(daemon().cli({"policy", "explain", "main", "--flow", "123456789"}).exit_code, 1);
}

/// Opens connections to the risky port as long as `stop` is false and talks on each until it is refused or
/// cut. Counts ends that are no reset.
void keep_trying(const NetNs& guest, const Endpoint& to, const std::atomic<bool>& stop,
                 std::atomic<unsigned>& served, std::atomic<unsigned>& wrong_ends) {
    while (!stop) {
        auto stream = TcpStream::connect(guest, to);
        if (!stream)
            continue;
        Received got;
        while (!stop && stream->send("\x01") == 0) {
            got = stream->receive(1);
            if (got.bytes.empty())
                break;
            ++served;
        }
        if (!stop && got.end == End::kFin)
            ++wrong_ends;
    }
}

TEST_P(Swap, fifty_swaps_a_second_mix_no_verdict_lose_no_byte_and_cut_in_time) {
    const unsigned swaps = quick() ? 150 : 500;
    const TcpServer steady(internet(), server(kServer, kSteady), echo);
    const TcpServer risky(internet(), server(kServer, kRisky), echo);
    const EventMonitor monitor(daemon());
    auto client = control::Client::connect(daemon().control_socket());
    ASSERT_TRUE(client) << client.error().message();
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> verified{0};
    std::atomic<bool> intact{true};
    std::atomic<unsigned> served{0};
    std::atomic<unsigned> wrong_ends{0};
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < 2; ++i) {
        threads.emplace_back([&, i] {
            TcpStream stream = open_flow(steady.endpoint());
            std::string chunk(65536, '\0');
            for (std::uint64_t round = 0; !stop && intact; ++round) {
                for (std::size_t at = 0; at < chunk.size(); ++at)
                    chunk[at] = static_cast<char>((at * 31 + round * 7 + i) >> 3U);
                std::jthread sender([&] { stream.send(chunk); });
                intact = intact && stream.receive(chunk.size()).bytes == chunk;
                verified += chunk.size();
            }
        });
        threads.emplace_back([&] { keep_trying(guest(), risky.endpoint(), stop, served, wrong_ends); });
    }

    std::map<std::uint64_t, bool> is_wide = {{generation(), true}};
    auto next = std::chrono::steady_clock::now();
    for (unsigned i = 0; i < swaps; ++i) {
        json::object args;
        args["name"] = "main";
        args["text"] = i % 2 == 0 ? tight() : wide();
        const auto reply = client->call("policy load", args);
        if (!reply) {
            stop = true;
            FAIL() << reply.error().message();
        }
        is_wide[reply->at("policy").at("generation").to_number<std::uint64_t>()] = i % 2 != 0;
        next += milliseconds(20);
        std::this_thread::sleep_until(next); // the pace of the load, nothing is waited for
    }
    stop = true;
    threads.clear();
    EXPECT_TRUE(intact);
    EXPECT_GT(verified, 0U);
    EXPECT_GT(served, 0U);
    EXPECT_EQ(wrong_ends, 0U);
    const std::uint64_t last = is_wide.rbegin()->first;
    ASSERT_TRUE(monitor.wait_for([&](const json::object& event) {
        return is(event, "type", "policy") && event.at("generation").to_number<std::uint64_t>() == last;
    }));
    EXPECT_TRUE(wait_until([] { return daemon().flows().empty(); }));

    std::map<std::uint64_t, milliseconds> swapped_at;
    std::vector<std::pair<std::uint64_t, milliseconds>> cut_at;
    unsigned verdicts = 0;
    unsigned denials = 0;
    for (const json::object& event : monitor.events()) {
        EXPECT_FALSE(is(event, "type", "lost")) << json::serialize(event);
        if (!event.contains("generation"))
            continue;
        const auto number = event.at("generation").to_number<std::uint64_t>();
        if (is(event, "type", "policy")) {
            swapped_at[number] = time_of(event);
        } else if (is(event, "type", "verdict")) {
            ++verdicts;
            ASSERT_TRUE(is_wide.contains(number)) << json::serialize(event);
            const bool expected = is(event, "destination", steady.endpoint().to_string()) || is_wide[number];
            EXPECT_TRUE(is(event, "verdict", expected ? "allow" : "deny")) << json::serialize(event);
            denials += expected ? 0 : 1;
        } else if (is(event, "type", "flow-end") && is(event, "how", "policy")) {
            EXPECT_FALSE(is_wide.at(number)) << json::serialize(event);
            EXPECT_TRUE(is(event, "destination", risky.endpoint().to_string())) << json::serialize(event);
            cut_at.emplace_back(number, time_of(event));
        }
    }
    EXPECT_GT(verdicts, 0U);
    ASSERT_FALSE(cut_at.empty());
    std::vector<long> delays;
    for (const auto& [number, time] : cut_at)
        delays.push_back((time - swapped_at.at(number)).count());
    std::ranges::sort(delays);
    std::cout << fmt::format("{} swaps, {} verdicts ({} denials), {} bytes intact, {} flows cut: p50 {} ms, "
                             "p99 {} ms, most {} ms after the swap\n",
                             swaps, verdicts, denials, verified.load(), delays.size(),
                             delays[delays.size() / 2], delays[delays.size() * 99 / 100], delays.back());
    EXPECT_LT(delays.back(), 2000); // 100 ms on a machine that is not shared
}

INSTANTIATE_TEST_SUITE_P(Family, Swap, families(), family_name);

/// A daemon that watches its policy file.
class Watch : public testing::Test {
  protected:
    static constexpr const char* kBroken = "rules = [\n  \"alow@any\",\n]\n";

    static DaemonConfig watching() {
        DaemonConfig config;
        config.policy = wide();
        config.policy_options = "watch = true";
        return config;
    }

    [[nodiscard]] json::object shown() const {
        return daemon_.ask({"policy", "show", "main"}).at("policies").at(0).as_object();
    }

    [[nodiscard]] bool has_rules(unsigned rules) const {
        return wait_until([&] { return shown().at("rules").to_number<unsigned>() == rules; });
    }

    void replace_file(const std::string& text) {
        const std::filesystem::path fresh = write_scratch("watch-new.toml", text);
        std::filesystem::rename(fresh, daemon_.policy_file());
    }

    Topology topology_;
    Daemon daemon_{topology_, watching()};
};

TEST_F(Watch, a_file_that_is_replaced_or_written_in_place_is_loaded) {
    EXPECT_TRUE(shown().at("watched").as_bool());
    replace_file(tight());
    EXPECT_TRUE(has_rules(2));
    EXPECT_TRUE(is(shown(), "origin", "watch"));
    std::filesystem::copy_file(write_scratch("in-place.toml", wide()), daemon_.policy_file(),
                               std::filesystem::copy_options::overwrite_existing);
    EXPECT_TRUE(has_rules(1));
}

TEST_F(Watch, a_file_that_cannot_be_loaded_changes_nothing_is_shown_and_logged_once) {
    const auto generation = shown().at("generation").to_number<std::uint64_t>();
    replace_file(kBroken);
    ASSERT_TRUE(wait_until([&] { return !is(shown(), "watch_error", ""); }));
    EXPECT_NE(shown().at("watch_error").as_string().find("main.toml:2:3"), std::string::npos)
        << json::serialize(shown());
    replace_file(kBroken);
    replace_file(std::string(kBroken) + "\n");
    replace_file(tight());
    EXPECT_TRUE(has_rules(2));
    EXPECT_TRUE(is(shown(), "watch_error", ""));
    EXPECT_EQ(shown().at("generation").to_number<std::uint64_t>(), generation + 1);
    const std::string log = daemon_.log();
    const std::size_t told = log.find("stays as it is");
    ASSERT_NE(told, std::string::npos) << log;
    EXPECT_EQ(log.find("stays as it is", told + 1), std::string::npos) << log;
}

TEST_F(Watch, a_directory_swapped_by_a_symlink_as_kubernetes_does_is_followed) {
    const std::filesystem::path file = daemon_.policy_file();
    const std::filesystem::path directory = file.parent_path();
    const auto publish = [&](const std::string& version, const std::string& text) {
        write_scratch(directory / version / file.filename(), text);
        std::filesystem::create_symlink(version, directory / "..data_tmp");
        std::filesystem::rename(directory / "..data_tmp", directory / "..data");
    };
    publish("..one", wide());
    std::filesystem::remove(file);
    std::filesystem::create_symlink(std::filesystem::path("..data") / file.filename(), file);
    publish("..two", tight());
    EXPECT_TRUE(has_rules(2));
    publish("..three", kBroken);
    EXPECT_TRUE(wait_until([&] { return !is(shown(), "watch_error", ""); }));
    publish("..four", wide());
    EXPECT_TRUE(has_rules(1));
}

TEST_F(Watch, a_directory_that_is_replaced_as_a_whole_is_followed) {
    const std::filesystem::path directory = daemon_.policy_file().parent_path();
    const std::filesystem::path aside = directory.string() + "-aside";
    std::filesystem::rename(directory, aside);
    std::filesystem::create_directory(directory);
    // The socket is reached by its path.
    std::filesystem::rename(aside / "control.sock", directory / "control.sock");
    write_scratch(daemon_.policy_file(), tight());
    EXPECT_TRUE(has_rules(2));
}

} // namespace
} // namespace tapgate::test
