// SPDX-License-Identifier: Apache-2.0
#include "harness/sandbox.hpp"
#include "harness/wait.hpp"
#include "netns/events.hpp"
#include "netns/pattern.hpp"
#include "netns/raw_tcp.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <thread>

#include <netinet/in.h>
#include <sys/socket.h>

// The splice in the kernel: what it is refused for, what becomes of spliced flows when something happens to
// them, and what a guest may try. That bytes and ends are right is for transfer_test.
namespace tapgate::test {
namespace {

constexpr std::uint64_t kMebibyte = 1024 * 1024;
constexpr unsigned kSite = 20;
constexpr std::uint16_t kPeeked = 7001;   ///< allowed by name
constexpr std::uint16_t kUnpeeked = 8001; ///< allowed by address
const std::vector<std::string> kRules = {"allow@bulk.test:tcp:7000-7999", "allow@public:tcp:8000-8999"};

std::unique_ptr<World> make_splicing_world() {
    DaemonConfig config;
    config.daemon = "workers = 2\nsplice = \"kernel\"";
    config.policy = policy_text(kRules);
    return std::make_unique<World>(config, std::vector<std::string>{dual_stack("bulk.test", kSite)});
}

void set_sysctls(const NetNs& ns, const std::vector<std::string>& settings) {
    std::vector<std::string> argv = {"sysctl", "-qw"};
    argv.insert(argv.end(), settings.begin(), settings.end());
    must_run(argv, &ns);
}

/// A server that answers "\0ping" and then waits for the end.
class EchoOnce {
  public:
    EchoOnce(const NetNs& ns, const Endpoint& endpoint)
        : server_(ns, endpoint, [this](TcpStream& stream) {
              stream.send(stream.receive(5).bytes);
              end_ = stream.receive_to_end().end;
          }) {}

    /// How its connection ended, waited for.
    [[nodiscard]] End end() const {
        EXPECT_TRUE(wait_until([this] { return end_ != End::kNone; }));
        return end_;
    }

  private:
    std::atomic<End> end_{End::kNone};
    TcpServer server_;
};

class KernelSplice : public WorldTest<KernelSplice> {
  public:
    static std::unique_ptr<World> make_world() { return make_splicing_world(); }

  protected:
    void SetUp() override {
        WorldTest::SetUp();
        world().daemon.load_policy(policy_text(kRules));
        resolve(world(), family(), "bulk.test");
    }

    [[nodiscard]] static Endpoint site(std::uint16_t port) { return server(kSite, port); }

    static const NetNs& internet() { return world().topology.internet(); }

    static TcpStream connect(std::uint16_t port) {
        auto stream = TcpStream::connect(guest(), site(port));
        if (!stream)
            throw std::system_error(stream.error(), std::generic_category(), "connect");
        return std::move(*stream);
    }

    /// A connection over which an echo has come back, and by which splice it is carried.
    static std::pair<TcpStream, std::string> echoed(std::uint16_t port) {
        TcpStream stream = connect(port);
        EXPECT_EQ(stream.send(std::string_view("\0ping", 5)), 0);
        EXPECT_EQ(stream.receive(5).bytes, std::string_view("\0ping", 5));
        return {std::move(stream), splice_of(stream)};
    }

    static bool echoes(TcpStream& stream, std::string_view text) {
        return stream.send(text) == 0 && stream.receive(text.size()).bytes == text;
    }

    /// From now on the server is reached by another interface than that, or not at all.
    static void block_eth0() {
        must_run({"nft",
                  "add table inet way; add chain inet way in { type filter hook prerouting priority -400; }; "
                  "add rule inet way in iifname eth0 tcp dport 7001 drop"},
                 &internet());
    }

    /// The row of `flow show`; empty if there is none.
    static boost::json::object flow_of(const TcpStream& stream) {
        for (const boost::json::value& flow : world().daemon.flows()) {
            if (flow.at("source").as_string() == stream.local().to_string())
                return flow.as_object();
        }
        return {};
    }

    static std::string splice_of(const TcpStream& stream) {
        const boost::json::object flow = flow_of(stream);
        return flow.empty() ? "gone" : std::string(flow.at("splice").as_string());
    }

    /// The one event of how `stream` has ended that is in the history.
    static boost::json::object end_of(const TcpStream& stream) {
        std::vector<boost::json::object> ends;
        EXPECT_TRUE(wait_until([&] {
            ends.clear();
            const boost::json::object shown = world().daemon.ask({"event", "show"});
            for (const boost::json::value& event : shown.at("events").as_array()) {
                if (is(event.as_object(), "type", "flow-end") &&
                    is(event.as_object(), "source", stream.local().to_string()))
                    ends.push_back(event.as_object());
            }
            return !ends.empty();
        }));
        EXPECT_EQ(ends.size(), 1U);
        return ends.empty() ? boost::json::object() : ends[0];
    }

    static std::uint64_t refusals(std::string_view reason) {
        const boost::json::object status = world().daemon.ask({"status", "show"});
        for (const boost::json::value& row : status.at("splice_refusals").as_array()) {
            if (row.at("reason").as_string() == reason)
                return row.at("flows").to_number<std::uint64_t>();
        }
        return 0;
    }

    static std::size_t entries(const std::string& map) {
        const std::string dump =
            must_run({"bpftool", "-j", "map", "dump", "pinned", world().daemon.pin_dir() + "/maps/" + map});
        return boost::json::parse(dump).as_array().size();
    }
};

TEST_P(KernelSplice, bulk_both_ways_at_one_percent_loss_arrives_intact) {
    const std::uint64_t total = (quick() ? 8 : 300) * kMebibyte;
    for (const NetNs* ns : {&guest(), &internet()})
        must_run({"nft",
                  "add table inet loss; add chain inet loss in { type filter hook prerouting priority 0; }; "
                  "add rule inet loss in meta l4proto tcp numgen random mod 100 < 1 drop"},
                 ns);
    {
        PatternResult uploaded;
        const TcpServer both(internet(), site(kPeeked), [&](TcpStream& stream) {
            stream.receive(1);
            std::thread sender([&] {
                if (send_pattern(stream, total) == 0)
                    stream.finish();
            });
            uploaded = receive_pattern(stream);
            sender.join();
        });
        TcpStream stream = connect(kPeeked);
        stream.send(std::string_view("\0", 1));
        EXPECT_TRUE(wait_until([&] { return splice_of(stream) == "kernel"; }));
        std::thread sender([&] {
            if (send_pattern(stream, total) == 0)
                stream.finish();
        });
        const PatternResult downloaded = receive_pattern(stream);
        sender.join();
        EXPECT_TRUE(downloaded.intact);
        EXPECT_EQ(downloaded.verified, total);
        EXPECT_EQ(downloaded.end, End::kFin);
        EXPECT_TRUE(wait_until([&] { return uploaded.end != End::kNone; }));
        EXPECT_TRUE(uploaded.intact);
        EXPECT_EQ(uploaded.verified, total);
    }
    for (const NetNs* ns : {&guest(), &internet()})
        must_run({"nft", "delete table inet loss"}, ns);
}

TEST_P(KernelSplice, what_a_guest_sends_before_the_server_is_dialled_arrives_once_and_in_order) {
    PatternResult got;
    const TcpServer sink(internet(), site(kUnpeeked), [&](TcpStream& stream) {
        got = receive_pattern(stream);
        stream.send("done");
    });
    for (const std::uint64_t total : {std::uint64_t{40'000}, std::uint64_t{100'000}, 4 * kMebibyte}) {
        TcpStream stream = connect(kUnpeeked);
        EXPECT_EQ(send_pattern(stream, total), 0);
        stream.finish();
        EXPECT_EQ(stream.receive_to_end().bytes, "done");
        EXPECT_TRUE(got.intact);
        EXPECT_EQ(got.verified, total);
    }
}

TEST_P(KernelSplice, a_first_flight_beyond_the_servers_window_arrives_although_the_server_answers_meanwhile) {
    constexpr std::uint64_t kTotal = kMebibyte;
    const TcpServer server(internet(), site(kUnpeeked), echo);
    // The first SYN is lost, so that the flight grows for a second while the server is dialled.
    must_run(
        {"nft",
         "add table inet loss; add chain inet loss in { type filter hook prerouting priority 0; }; "
         "add rule inet loss in tcp dport 8001 tcp flags & (syn | ack) == syn numgen inc mod 2 < 1 drop"},
        &internet());
    TcpStream stream = connect(kUnpeeked);
    std::thread sender([&] {
        if (send_pattern(stream, kTotal) == 0)
            stream.finish();
    });
    EXPECT_TRUE(wait_until([&] { return splice_of(stream) == "kernel"; }));
    const PatternResult got = receive_pattern(stream);
    sender.join();
    EXPECT_TRUE(got.intact);
    EXPECT_EQ(got.verified, kTotal);
    must_run({"nft", "delete table inet loss"}, &internet());
}

TEST_P(KernelSplice, a_server_that_speaks_first_is_heard) {
    const TcpServer greeter(internet(), site(kUnpeeked), [](TcpStream& stream) {
        stream.send("220 hello\r\n");
        echo(stream);
    });
    TcpStream stream = connect(kUnpeeked);
    EXPECT_EQ(stream.receive(11).bytes, "220 hello\r\n");
    EXPECT_EQ(stream.send("quit"), 0);
    EXPECT_EQ(stream.receive(4).bytes, "quit");
}

TEST_P(KernelSplice, flow_show_and_the_end_event_count_bytes_both_ways) {
    const EventMonitor monitor(world().daemon);
    const TcpServer server(internet(), site(kPeeked), echo);
    auto [stream, splice] = echoed(kPeeked);
    EXPECT_EQ(splice, "kernel");
    EXPECT_EQ(stream.send("123456789"), 0);
    EXPECT_EQ(stream.receive(9).bytes, "123456789");
    stream.finish();
    EXPECT_EQ(stream.receive_to_end().end, End::kFin);
    const std::string source = stream.local().to_string();
    const auto end = monitor.wait_for([&](const boost::json::object& event) {
        return is(event, "type", "flow-end") && is(event, "source", source);
    });
    ASSERT_TRUE(end.has_value());
    EXPECT_TRUE(is(*end, "splice", "kernel"));
    EXPECT_TRUE(is(*end, "how", "finished"));
    EXPECT_EQ(end->at("bytes_up").to_number<int>(), 14);
    EXPECT_EQ(end->at("bytes_down").to_number<int>(), 14);
}

TEST_P(KernelSplice, a_port_that_is_used_again_at_once_is_a_new_flow) {
    const TcpServer server(internet(), site(kPeeked), [](TcpStream& stream) {
        const Received said = stream.receive(5);
        stream.send(said.bytes);
    });
    sockaddr_storage local{};
    socklen_t length = Endpoint{family().guest, 33333}.to_sockaddr(local);
    sockaddr_storage remote{};
    const socklen_t remote_length = site(kPeeked).to_sockaddr(remote);
    for (int round = 0; round < 8; ++round) {
        UniqueFd fd(guest().run([&] { return ::socket(local.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0); }));
        const int on = 1;
        ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        ASSERT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&local), length), 0);
        ASSERT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&remote), remote_length), 0) << round;
        TcpStream stream(std::move(fd));
        EXPECT_EQ(stream.send(std::string_view("\0ping", 5)), 0);
        EXPECT_EQ(stream.receive(5).bytes, std::string_view("\0ping", 5)) << round;
        if (round % 2 == 0)
            stream.reset();
        else
            EXPECT_EQ(stream.receive_to_end().end, End::kFin); // the server's, so that it keeps the TIME_WAIT
    }
}

TEST_P(KernelSplice, a_swap_that_denies_a_flow_ends_it_at_both_ends) {
    const EchoOnce server(internet(), site(kPeeked));
    auto [stream, splice] = echoed(kPeeked);
    EXPECT_EQ(splice, "kernel");
    world().daemon.load_policy(policy_text({"allow@other.test:tcp"}));
    EXPECT_EQ(stream.receive_to_end().end, End::kReset);
    EXPECT_EQ(server.end(), End::kReset);
    EXPECT_TRUE(wait_until([] { return world().daemon.flows().empty(); }));
    EXPECT_EQ(entries("flows"), entries("upstream_flows"));
}

TEST_P(KernelSplice, a_flow_goes_on_without_a_daemon_and_is_adopted_by_the_next_one) {
    const TcpServer server(internet(), site(kPeeked), echo);
    for (const bool is_killed : {true, false}) {
        SCOPED_TRACE(is_killed ? "killed" : "stopped");
        auto [stream, splice] = echoed(kPeeked);
        EXPECT_EQ(splice, "kernel");
        if (is_killed)
            world().daemon.kill();
        else
            world().daemon.stop();
        EXPECT_EQ(stream.send("nobody"), 0);
        EXPECT_EQ(stream.receive(6).bytes, "nobody");
        world().daemon.start();
        EXPECT_EQ(stream.send("again"), 0);
        EXPECT_EQ(stream.receive(5).bytes, "again");

        const boost::json::object flow = flow_of(stream);
        EXPECT_TRUE(is(flow, "guest", "vm0")) << flow;
        EXPECT_TRUE(is(flow, "splice", "kernel"));
        EXPECT_TRUE(is(flow, "destination", site(kPeeked).to_string()));
        EXPECT_TRUE(is(flow, "name", "bulk.test"));
        EXPECT_TRUE(is(flow, "rule", kRules[0]));
        EXPECT_GE(world().daemon.guest().at("sessions").to_number<int>(), 1);

        stream.finish();
        EXPECT_EQ(stream.receive_to_end().end, End::kFin);
        const boost::json::object end = end_of(stream);
        EXPECT_TRUE(is(end, "how", "finished"));
        EXPECT_TRUE(is(end, "guest", "vm0"));
        EXPECT_EQ(end.at("bytes_up").to_number<int>(), 16); // all of its life
        EXPECT_EQ(end.at("bytes_down").to_number<int>(), 16);
        EXPECT_TRUE(wait_until([] { return world().daemon.guest().at("sessions").to_number<int>() == 0; }));
    }
    EXPECT_TRUE(wait_until([] { return entries("flows") == 0 && entries("flow_facts") == 0; }));
}

TEST_P(KernelSplice, how_a_flow_ended_is_told_once_whichever_daemon_is_there) {
    const TcpServer server(internet(), site(kPeeked), echo);
    auto [told, told_splice] = echoed(kPeeked);
    auto [untold, untold_splice] = echoed(kPeeked);
    EXPECT_EQ(told_splice + untold_splice, "kernelkernel");
    told.finish();
    EXPECT_EQ(told.receive_to_end().end, End::kFin);
    EXPECT_TRUE(is(end_of(told), "how", "finished"));
    world().daemon.kill();
    untold.finish();
    EXPECT_EQ(untold.receive_to_end().end, End::kFin);
    world().daemon.start();
    EXPECT_TRUE(is(end_of(untold), "how", "finished"));
    EXPECT_TRUE(wait_until([] { return entries("flows") == 0 && entries("flow_facts") == 0; }));
    const boost::json::object shown = world().daemon.ask({"event", "show"});
    for (const boost::json::value& event : shown.at("events").as_array())
        EXPECT_FALSE(is(event.as_object(), "source", told.local().to_string())) << event;
}

TEST_P(KernelSplice, a_flow_that_the_next_daemons_policy_denies_is_cut) {
    const EchoOnce server(internet(), site(kPeeked));
    auto [stream, splice] = echoed(kPeeked);
    EXPECT_EQ(splice, "kernel");
    world().daemon.kill();
    std::ofstream(world().daemon.policy_file()) << policy_text({"deny@bulk.test", kRules[1]});
    world().daemon.start();
    EXPECT_EQ(stream.receive_to_end().end, End::kReset);
    EXPECT_EQ(server.end(), End::kReset);
    EXPECT_TRUE(wait_until([] { return world().daemon.flows().empty(); }));
    EXPECT_TRUE(is(end_of(stream), "how", "policy"));
    std::ofstream(world().daemon.policy_file()) << policy_text(kRules);
}

TEST_P(KernelSplice, a_flow_goes_on_under_a_daemon_that_splices_no_more) {
    const TcpServer server(internet(), site(kPeeked), echo);
    auto [stream, splice] = echoed(kPeeked);
    EXPECT_EQ(splice, "kernel");
    std::ifstream file(world().daemon.config_file());
    const std::string config{std::istreambuf_iterator<char>(file), {}};
    std::string other = config;
    other.replace(other.find("splice = \"kernel\""), 17, "splice = \"copy\"");
    world().daemon.kill();
    std::ofstream(world().daemon.config_file()) << other;
    world().daemon.start();
    EXPECT_EQ(splice_of(stream), "kernel");
    EXPECT_EQ(stream.send("still"), 0);
    EXPECT_EQ(stream.receive(5).bytes, "still");
    EXPECT_EQ(echoed(kPeeked).second, "copy");
    world().daemon.stop();
    std::ofstream(world().daemon.config_file()) << config;
    world().daemon.start();
    EXPECT_EQ(splice_of(stream), "kernel");
}

TEST_P(KernelSplice, a_flow_follows_its_route_to_another_interface_and_back) {
    const NetNs& host = world().topology.host();
    const std::string version = family().name == "IPv4" ? "-4" : "-6";
    const std::string site_address = site(kPeeked).address.to_string();
    const std::string back = family().uplink.to_string();
    const bool is_v4 = version == "-4";
    ip_batch(host, fmt::format("link add wan1 type veth peer name eth1 netns {}\n"
                               "address add 198.51.100.253/30 dev wan1\n"
                               "address add 2001:db8:9::1/64 dev wan1 nodad\n"
                               "link set wan1 up\n",
                               internet().path()));
    ip_batch(internet(), "address add 198.51.100.254/30 dev eth1\n"
                         "address add 2001:db8:9::2/64 dev eth1 nodad\n"
                         "link set eth1 up\n");
    wait_for_ipv6(host, "wan1");
    wait_for_ipv6(internet(), "eth1");
    const TcpServer server(internet(), site(kPeeked), echo);
    auto [stream, splice] = echoed(kPeeked);
    EXPECT_EQ(splice, "kernel");
    // Nothing passes on the old way, in either direction, so that the new one has to be used in both.
    block_eth0();
    must_run({"ip", version, "route", "add", back, "via", is_v4 ? "198.51.100.253" : "2001:db8:9::1"},
             &internet());
    must_run({"ip", version, "route", "add", site_address, "via", is_v4 ? "198.51.100.254" : "2001:db8:9::2"},
             &host);
    EXPECT_TRUE(echoes(stream, "by wan1"));
    // Also a daemon that was not there when it changed.
    world().daemon.kill();
    must_run({"nft", "delete table inet way"}, &internet());
    must_run({"ip", version, "route", "del", site_address}, &host);
    must_run({"ip", version, "route", "del", back}, &internet());
    world().daemon.start();
    EXPECT_TRUE(echoes(stream, "by wan0"));
    must_run({"ip", "link", "del", "wan1"}, &host);
    EXPECT_TRUE(echoes(stream, "alone"));
}

TEST_P(KernelSplice, a_flow_follows_its_route_to_another_router_and_ends_at_none) {
    const NetNs& host = world().topology.host();
    const std::string version = family().name == "IPv4" ? "-4" : "-6";
    const bool is_v4 = version == "-4";
    const std::string site_address = site(kPeeked).address.to_string();
    ip_batch(internet(), "link add router link eth0 type macvlan mode bridge\n"
                         "address add 198.51.100.77/32 dev router\n"
                         "address add 2001:db8:2::77/128 dev router nodad\n"
                         "link set router up\n");
    // Either router has an address of its own on the link, and answers for no other.
    set_sysctls(internet(), {"net.ipv4.conf.all.arp_ignore=1"});
    wait_for_ipv6(internet(), "router");
    const TcpServer server(internet(), site(kPeeked), echo);
    auto [stream, splice] = echoed(kPeeked);
    EXPECT_EQ(splice, "kernel");
    block_eth0();
    must_run({"ip", version, "route", "add", site_address, "via", is_v4 ? "198.51.100.77" : "2001:db8:2::77"},
             &host);
    EXPECT_TRUE(echoes(stream, "by the other router"));
    must_run({"ip", version, "route", "replace", "blackhole", site_address}, &host);
    EXPECT_TRUE(wait_until([&guest_end = stream] {
        return guest_end.send("?") == 0 && guest_end.receive(1, std::chrono::milliseconds(300)).bytes.empty();
    })) << "it goes on without a route";
    must_run({"nft", "delete table inet way"}, &internet());
    must_run({"ip", version, "route", "del", "blackhole", site_address}, &host);
    EXPECT_EQ(stream.receive(1).bytes, "?");
    ip_batch(internet(), "link del router\n");
}

TEST_P(KernelSplice, curl_speaks_tls_and_http_2_over_it) {
    constexpr std::size_t kBytes = 20 * kMebibyte;
    std::string content(kBytes, '\0');
    for (std::size_t i = 0; i < kBytes; ++i)
        content[i] = static_cast<char>(i * 2654435761U >> 24U);
    const std::filesystem::path file = write_scratch("site/file", content);
    const WebServer web(internet(), {kSite}, {"bulk.test"}, file.parent_path());
    world().daemon.load_policy(policy_text({"allow@bulk.test:tcp:443"}));
    const std::filesystem::path got = write_scratch("site/got", "");
    for (const auto& [option, version] : {std::pair{"--http1.1", "1.1"}, std::pair{"--http2", "2"}}) {
        SCOPED_TRACE(version);
        const Completed curl = run_program({"curl", "-sS", "--max-time", "20", "--cacert", web.ca_file(),
                                            option, family().name == "IPv4" ? "-4" : "-6", "-o", got, "-w",
                                            "%{http_version} %{local_port}", "https://bulk.test/file"},
                                           &guest());
        EXPECT_EQ(curl.exit_code, 0) << curl.err;
        EXPECT_EQ(curl.out.substr(0, curl.out.find(' ')), version);
        std::ifstream stream(got, std::ios::binary);
        EXPECT_TRUE(std::string(std::istreambuf_iterator<char>(stream), {}) == content);
        const std::string port = ":" + curl.out.substr(curl.out.find(' ') + 1);
        EXPECT_TRUE(wait_until([&] {
            const boost::json::object shown = world().daemon.ask({"event", "show", "--reason", "finished"});
            const boost::json::array& events = shown.at("events").as_array();
            return std::ranges::any_of(events, [&](const boost::json::value& value) {
                const boost::json::object& event = value.as_object();
                return event.at("source").as_string().ends_with(port) && is(event, "splice", "kernel") &&
                       is(event, "name", "bulk.test");
            });
        }));
    }
}

TEST_P(KernelSplice, entries_of_ended_flows_go) {
    const TcpServer server(internet(), site(kPeeked), echo);
    for (int i = 0; i < 20; ++i) {
        auto [stream, splice] = echoed(kPeeked);
        EXPECT_EQ(splice, "kernel");
        stream.finish();
        EXPECT_EQ(stream.receive_to_end().end, End::kFin);
    }
    EXPECT_TRUE(wait_until([] { return world().daemon.flows().empty(); }));
    EXPECT_TRUE(wait_until([] { return entries("flows") == 0 && entries("upstream_flows") == 0; }));
}

// What cannot be spliced is carried all the same.

TEST_P(KernelSplice, a_server_without_timestamps_is_for_userspace) {
    set_sysctls(internet(), {"net.ipv4.tcp_timestamps=0"});
    {
        const std::uint64_t before = refusals("options");
        const TcpServer server(internet(), site(kPeeked), echo);
        EXPECT_NE(echoed(kPeeked).second, "kernel");
        EXPECT_EQ(refusals("options"), before + 1);
    }
    set_sysctls(internet(), {"net.ipv4.tcp_timestamps=1"});
}

TEST_P(KernelSplice, a_server_that_takes_smaller_segments_is_for_userspace) {
    const std::string version = family().name == "IPv4" ? "-4" : "-6";
    must_run({"ip", version, "route", "add", family().uplink.to_string(), "dev", "eth0", "advmss", "1000"},
             &internet());
    {
        const std::uint64_t before = refusals("segment-size");
        const TcpServer server(internet(), site(kPeeked), echo);
        EXPECT_NE(echoed(kPeeked).second, "kernel");
        EXPECT_EQ(refusals("segment-size"), before + 1);
    }
    must_run({"ip", version, "route", "del", family().uplink.to_string(), "dev", "eth0"}, &internet());
}

TEST_P(KernelSplice, the_host_itself_is_for_userspace) {
    world().daemon.load_policy(policy_text({"allow@host:tcp:8000-8999"}));
    const Endpoint alias{family().gateway, 8002};
    const TcpServer server(world().topology.host(),
                           {*IpAddress::parse(family().name == "IPv4" ? "127.0.0.1" : "::1"), 8002}, echo);
    const std::uint64_t before = refusals("host-alias");
    auto stream = TcpStream::connect(guest(), alias);
    ASSERT_TRUE(stream.has_value());
    EXPECT_EQ(stream->send("hello"), 0);
    EXPECT_EQ(stream->receive(5).bytes, "hello");
    EXPECT_EQ(refusals("host-alias"), before + 1);
}

TEST_P(KernelSplice, a_connection_whose_requests_are_judged_is_for_userspace) {
    world().daemon.load_policy(policy_text({"allow@bulk.test:tcp:80"}));
    const std::uint64_t before = refusals("judged");
    const TcpServer server(internet(), site(80), [](TcpStream& stream) {
        stream.receive_some(4096);
        stream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    TcpStream stream = connect(80);
    EXPECT_EQ(stream.send("GET / HTTP/1.1\r\nHost: bulk.test\r\n\r\n"), 0);
    EXPECT_TRUE(stream.receive_to_end().bytes.ends_with("ok"));
    EXPECT_EQ(refusals("judged"), before + 1);
}

INSTANTIATE_TEST_SUITE_P(Family, KernelSplice, families(), family_name);

/// A network in which TCP has no options but the segment size of those that offer none: what RawTcp speaks.
class BareTcp : public WorldTest<BareTcp> {
  public:
    static std::unique_ptr<World> make_world() {
        auto world = make_splicing_world();
        set_sysctls(world->topology.internet(),
                    {"net.ipv4.tcp_timestamps=0", "net.ipv4.tcp_sack=0", "net.ipv4.tcp_window_scaling=0"});
        ip_batch(world->topology.host(), "route change default via 198.51.100.2 advmss 536\n"
                                         "route change default via 2001:db8:2::2 advmss 536\n");
        return world;
    }
};

TEST_P(BareTcp, B53_a_first_flight_that_is_sent_again_with_other_bytes_is_dropped) {
    resolve(world(), family(), "bulk.test");
    const std::string good = client_hello("bulk.test");
    const std::string evil = client_hello("evil.test");
    ASSERT_EQ(good.size(), evil.size());
    CaptureServer upstream(world().topology.internet(), server(kSite, kPeeked));
    RawTcp tcp(guest(), {family().guest, 22000}, upstream.endpoint());
    ASSERT_TRUE(tcp.connect());
    tcp.send(0, good);
    ASSERT_TRUE(wait_until([] {
        const boost::json::array flows = world().daemon.flows();
        return !flows.empty() && flows[0].at("splice").as_string() == "kernel";
    }));
    const std::uint64_t before = world().daemon.drops("splice-replay");
    tcp.send(0, evil);
    EXPECT_TRUE(wait_until([&] { return world().daemon.drops("splice-replay") == before + 1; }));
    // Also where it goes beyond what was taken.
    tcp.send(0, evil + "more");
    EXPECT_TRUE(wait_until([&] { return world().daemon.drops("splice-replay") == before + 2; }));
    const auto size = static_cast<std::uint32_t>(good.size());
    tcp.send(size, "more");
    tcp.send_flag(size + 4, kTcpFin);
    EXPECT_PRED1(was_served, tcp.receive_to_end());
    EXPECT_EQ(upstream.captured(), std::vector<std::string>{good + "more"});
}

TEST_P(BareTcp, a_guest_that_has_missed_the_acknowledgement_of_its_first_flight_is_told_again) {
    resolve(world(), family(), "bulk.test");
    const std::string hello = client_hello("bulk.test");
    CaptureServer upstream(world().topology.internet(), server(kSite, kPeeked));
    RawTcp tcp(guest(), {family().guest, 22001}, upstream.endpoint());
    ASSERT_TRUE(tcp.connect());
    tcp.send(0, hello);
    ASSERT_TRUE(wait_until([] {
        const boost::json::array flows = world().daemon.flows();
        return !flows.empty() && flows[0].at("splice").as_string() == "kernel";
    }));
    const auto size = static_cast<std::uint32_t>(hello.size());
    // More often than the server can have acknowledged it of its own accord: at once and delayed.
    for (int round = 0; round < 4; ++round) {
        while (tcp.is_acknowledged(size, std::chrono::milliseconds(0)))
            continue;
        // The server does not answer everything that lies outside of its window (tcp_invalid_ratelimit).
        EXPECT_TRUE(wait_until([&] {
            tcp.send(0, hello);
            return tcp.is_acknowledged(size, std::chrono::milliseconds(200));
        })) << round;
    }
    tcp.send_flag(size, kTcpFin);
    EXPECT_PRED1(was_served, tcp.receive_to_end());
    EXPECT_EQ(upstream.captured(), std::vector<std::string>{hello});
}

INSTANTIATE_TEST_SUITE_P(Family, BareTcp, families(), family_name);

} // namespace
} // namespace tapgate::test
