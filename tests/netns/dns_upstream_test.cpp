// SPDX-License-Identifier: Apache-2.0
#include "harness/dns_tcp.hpp"
#include "harness/wait.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <mutex>

// What the daemon makes of its trusted resolvers: dead ones, failing ones, and what they say.
namespace tapgate::test {
namespace {

constexpr std::uint16_t kDns = 53;
constexpr unsigned kRight = 20;
constexpr unsigned kWrong = 66;
constexpr unsigned kSecond = 54;

/// A trusted resolver that a test scripts, over UDP and TCP, and the questions it was asked. Its probe for
/// health is answered unless it plays dead.
class ScriptedResolver {
  public:
    using Script = std::function<std::optional<Bytes>(const Bytes& query, bool tcp)>;

    ScriptedResolver(const NetNs& ns, const Endpoint& at)
        : udp_(ns, at,
               [this](const UdpSocket& socket, const Datagram& query) { on_datagram(socket, query); }),
          tcp_(ns, at, [this](TcpStream& stream) { on_stream(stream); }) {}

    void play(Script script) {
        const std::lock_guard lock(mutex_);
        script_ = std::move(script);
        is_dead_ = false;
        asked_.clear();
    }

    /// Answers every question with these records.
    void answer(const AnswerRecords& records) {
        play([records](const Bytes& query, bool) { return make_answer(query, records); });
    }

    void fail_with(unsigned rcode) {
        play([rcode](const Bytes& query, bool) {
            Bytes answer = make_answer(query, {});
            answer[3] = static_cast<std::uint8_t>((answer[3] & 0xf0U) | rcode);
            return answer;
        });
    }

    /// Before what the script says to a datagram, sends what `forge` makes of it, round after round.
    void flood(std::function<Bytes(const Bytes& query, unsigned round)> forge) {
        const std::lock_guard lock(mutex_);
        forge_ = std::move(forge);
    }

    void play_dead() {
        play([](const Bytes&, bool) { return std::nullopt; });
        const std::lock_guard lock(mutex_);
        is_dead_ = true;
    }

    /// Names asked since the script began, probes left out.
    [[nodiscard]] std::vector<std::string> asked() {
        const std::lock_guard lock(mutex_);
        return asked_;
    }

    [[nodiscard]] unsigned connections() const { return tcp_.accepted(); }

  private:
    std::optional<Bytes> reply(const Bytes& query, bool tcp) {
        const auto question = question_of(query);
        Script script;
        {
            const std::lock_guard lock(mutex_);
            if (question && question->name == "localhost")
                return is_dead_ ? std::nullopt : std::optional(make_answer(query, {}));
            if (question)
                asked_.push_back(question->name);
            script = script_;
        }
        return script ? script(query, tcp) : std::nullopt;
    }

    void on_datagram(const UdpSocket& socket, const Datagram& query) {
        constexpr unsigned kForgeries = 1000;
        std::function<Bytes(const Bytes&, unsigned)> forge;
        {
            const std::lock_guard lock(mutex_);
            forge = forge_;
        }
        for (unsigned round = 0; forge && round < kForgeries; ++round)
            socket.send(query.from, forge(query.bytes, round));
        if (const auto answer = reply(query.bytes, false))
            socket.send(query.from, *answer);
    }

    void on_stream(TcpStream& stream) {
        while (const auto query = receive_message(stream)) {
            if (const auto answer = reply(*query, true))
                stream.send(framed(*answer));
        }
    }

    std::mutex mutex_; // guards everything up to udp_
    Script script_;
    std::function<Bytes(const Bytes&, unsigned)> forge_;
    std::vector<std::string> asked_;
    bool is_dead_ = false;
    UdpResponder udp_;
    TcpServer tcp_;
};

std::string record(const std::string& name, const IpAddress& address) {
    return fmt::format("{}. 300 IN {} {}", name, address.is_v4() ? "A" : "AAAA", address.to_string());
}

/// An HTTPS record of priority 1 for its owner, with these parameters, already encoded in hexadecimal.
std::string service(const std::string& name, const std::string& params) {
    return fmt::format("{}. 300 IN TYPE65 \\# {} 000100{}", name, 3 + params.size() / 2, params);
}

constexpr const char* kAlpnH2 = "00010003026832";
constexpr const char* kEch = "000500060004fe0d0000";

class Upstreams : public testing::TestWithParam<const Family*> {
  protected:
    void SetUp() override { start(policy_text({"allow@*.allowed.test:tcp:443"})); }

    void TearDown() override {
        if (HasFailure() && daemon_)
            std::cerr << "the daemon's log:\n" << daemon_->log();
    }

    void start(const std::string& policy) {
        start(policy, fmt::format("upstreams = [\"{}\", \"{}\"]\ntimeout_ms = 400",
                                  Endpoint{family().resolver, kDns}.to_string(),
                                  Endpoint{family().server(kSecond), kDns}.to_string()));
    }

    void start(const std::string& policy, const std::string& dns) {
        daemon_.reset();
        DaemonConfig config;
        config.policy = policy;
        config.daemon = "workers = 1";
        config.dns = dns;
        daemon_ = std::make_unique<Daemon>(topology_, config);
    }

    static const Family& family() { return *GetParam(); }

    [[nodiscard]] IpAddress right() const { return family().server(kRight); }

    [[nodiscard]] IpAddress wrong() const { return family().server(kWrong); }

    std::optional<DnsReply> ask_gateway(const std::string& name, const std::string& type = {}) {
        return ask(topology_.guest().ns, {family().gateway, kDns}, name,
                   type.empty() ? family().record : type, kPatience);
    }

    std::optional<DnsReply> ask_gateway_over_tcp(const std::string& name) {
        return ask_over_tcp(topology_.guest().ns, {family().gateway, kDns}, name, family().record);
    }

    /// The reply has this one address and nothing else.
    void expect_address(const std::optional<DnsReply>& reply, const IpAddress& address) {
        ASSERT_TRUE(reply.has_value());
        EXPECT_EQ(reply->rcode, kNoError);
        EXPECT_EQ(reply->addresses, std::vector<std::string>{address.to_string()});
    }

    [[nodiscard]] bool first_is_healthy() {
        const boost::json::object status = daemon_->ask({"status", "show"});
        return status.at("upstreams").as_array().at(0).at("healthy").as_bool();
    }

    [[nodiscard]] std::uint64_t counted(const std::string& outcome) {
        return daemon_->guest().at("dns").at(outcome).to_number<std::uint64_t>();
    }

    Topology topology_;
    ScriptedResolver first_{topology_.internet(), {family().resolver, kDns}};
    ScriptedResolver second_{topology_.internet(), {family().server(kSecond), kDns}};
    std::unique_ptr<Daemon> daemon_;
};

TEST_P(Upstreams, a_dead_resolver_costs_queries_nothing_after_the_first) {
    first_.play_dead();
    second_.answer({{record("www.allowed.test", right())}, {}, {}});
    for (int i = 0; i < 10; ++i)
        expect_address(ask_gateway("www.allowed.test"), right());
    EXPECT_EQ(first_.asked().size(), 1U);
    EXPECT_EQ(second_.asked().size(), 10U);
    EXPECT_FALSE(first_is_healthy());
}

TEST_P(Upstreams, a_resolver_that_comes_back_is_asked_again) {
    first_.play_dead();
    second_.answer({{record("www.allowed.test", right())}, {}, {}});
    expect_address(ask_gateway("www.allowed.test"), right());
    first_.answer({{record("www.allowed.test", right())}, {}, {}});
    EXPECT_TRUE(wait_until([&] { return first_is_healthy(); }));
    expect_address(ask_gateway("www.allowed.test"), right());
    EXPECT_EQ(first_.asked().size(), 1U);
    EXPECT_EQ(second_.asked().size(), 1U);
}

TEST_P(Upstreams, a_slow_zone_does_not_make_its_resolver_a_dead_one) {
    first_.play([&](const Bytes& query, bool) -> std::optional<Bytes> {
        if (question_of(query)->name == "slow.allowed.test")
            return std::nullopt;
        return make_answer(query, {{record("www.allowed.test", right())}, {}, {}});
    });
    second_.play_dead();
    const auto slow = ask_gateway("slow.allowed.test");
    EXPECT_TRUE(slow && slow->rcode == kServFail);
    EXPECT_TRUE(wait_until([&] { return first_is_healthy(); }));
    expect_address(ask_gateway("www.allowed.test"), right());
}

TEST_P(Upstreams, the_failure_of_one_resolver_is_not_the_answer_if_another_has_one) {
    second_.answer({{record("www.allowed.test", right())}, {}, {}});
    for (const unsigned rcode : {kServFail, kRefused, 4U}) {
        first_.fail_with(rcode);
        expect_address(ask_gateway("www.allowed.test"), right());
    }
    EXPECT_TRUE(first_is_healthy()) << "it does answer";
    second_.fail_with(kServFail);
    const auto reply = ask_gateway("www.allowed.test");
    EXPECT_TRUE(reply && reply->rcode == kServFail && reply->addresses.empty());
    EXPECT_EQ(counted("servfail"), 1U);
    EXPECT_EQ(counted("answered"), 3U);
}

TEST_P(Upstreams, a_name_that_does_not_exist_is_an_answer) {
    first_.fail_with(kNxDomain);
    second_.answer({{record("www.allowed.test", wrong())}, {}, {}});
    const auto reply = ask_gateway("www.allowed.test");
    EXPECT_TRUE(reply && reply->rcode == kNxDomain);
    EXPECT_EQ(second_.asked(), std::vector<std::string>{});
    EXPECT_EQ(counted("nxdomain"), 1U);
}

TEST_P(Upstreams, B43_a_truncated_answer_is_fetched_over_tcp) {
    AnswerRecords records;
    for (unsigned i = 1; i <= 80; ++i)
        records.answer.push_back(record("www.allowed.test", family().server(i)));
    first_.play([records](const Bytes& query, bool tcp) {
        Bytes answer = make_answer(query, tcp ? records : AnswerRecords{});
        if (!tcp)
            answer[2] |= 0x02U;
        return answer;
    });
    const auto cut = ask_gateway("www.allowed.test");
    ASSERT_TRUE(cut.has_value());
    EXPECT_TRUE(cut->truncated);
    EXPECT_EQ(first_.connections(), 0U);
    const auto whole = ask_gateway_over_tcp("www.allowed.test");
    ASSERT_TRUE(whole.has_value());
    EXPECT_EQ(whole->addresses.size(), 80U);
    EXPECT_EQ(first_.connections(), 1U);
}

TEST_P(Upstreams, guessed_ids_make_the_question_go_over_tcp) {
    first_.play([&](const Bytes& query, bool tcp) -> std::optional<Bytes> {
        if (tcp)
            return make_answer(query, {{record("www.allowed.test", right())}, {}, {}});
        return std::nullopt;
    });
    // From the resolver's own address and port, to the daemon's: all that is left to guess is the id.
    const AnswerRecords lie{{record("www.allowed.test", wrong())}, {}, {}};
    first_.flood([lie](const Bytes& query, unsigned round) {
        Bytes forged = make_answer(query, lie);
        const auto id = static_cast<std::uint16_t>(((forged[0] << 8U) | forged[1]) + 1 + round);
        forged[0] = static_cast<std::uint8_t>(id >> 8U);
        forged[1] = static_cast<std::uint8_t>(id);
        return forged;
    });
    expect_address(ask_gateway("www.allowed.test"), right());
    EXPECT_EQ(first_.connections(), 1U);
    EXPECT_EQ(daemon_->bindings("www.allowed.test"), std::vector<std::string>{right().to_string()});
}

TEST_P(Upstreams, an_answer_to_another_question_over_tcp_is_none) {
    first_.play([&](const Bytes& query, bool tcp) -> std::optional<Bytes> {
        Bytes answer = make_answer(query, {{record("www.allowed.test", wrong())}, {}, {}});
        if (tcp)
            answer[1] ^= 1U;
        else
            answer[2] |= 0x02U;
        return answer;
    });
    second_.play_dead();
    const auto reply = ask_gateway_over_tcp("www.allowed.test");
    EXPECT_TRUE(reply && reply->rcode == kServFail && reply->addresses.empty());
    EXPECT_EQ(daemon_->bindings("www.allowed.test"), std::vector<std::string>{});
}

TEST_P(Upstreams, resolv_conf_is_read_again_when_it_changes) {
    // Beside the daemon's folder, which goes with the daemon.
    const std::filesystem::path file = daemon_->config_file().parent_path().parent_path() / "resolv.conf";
    const auto write = [&](const IpAddress& resolver) {
        // As resolvconf and its kin do: aside, then into place.
        const std::filesystem::path aside = file.string() + ".new";
        std::ofstream(aside) << "search allowed.test\nnameserver " << resolver.to_string() << "\n";
        std::filesystem::rename(aside, file);
    };
    const AnswerRecords records{{record("www.allowed.test", right())}, {}, {}};
    first_.answer(records);
    second_.answer(records);
    write(family().resolver);
    start(policy_text({"allow@*.allowed.test:tcp:443"}), "resolv_conf = \"" + file.string() + "\"");
    expect_address(ask_gateway("www.allowed.test"), right());
    EXPECT_EQ(first_.asked().size(), 1U);
    EXPECT_EQ(second_.asked().size(), 0U);
    write(family().server(kSecond));
    EXPECT_TRUE(wait_until([&] {
        const boost::json::object status = daemon_->ask({"status", "show"});
        return std::string_view(status.at("upstreams").as_array().at(0).at("address").as_string())
            .contains(family().server(kSecond).to_string());
    }));
    expect_address(ask_gateway("www.allowed.test"), right());
    EXPECT_EQ(first_.asked().size(), 1U);
    EXPECT_EQ(second_.asked().size(), 1U);
}

TEST_P(Upstreams, an_answer_in_fragments_larger_than_we_asked_for_is_servfail_and_binds_nothing) {
    std::vector<std::string> many;
    for (unsigned i = 0; i < 100; ++i)
        many.push_back(record("www.allowed.test", family().server(100 + i)));
    const Bytes whole = make_answer(make_query(1, "www.allowed.test", family().record), {many, {}, {}});
    ASSERT_GT(whole.size(), 1500U);
    first_.answer({many, {}, {}});
    const auto reply = ask_gateway("www.allowed.test");
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->rcode, kServFail);
    EXPECT_EQ(daemon_->bindings("www.allowed.test"), std::vector<std::string>{});
}

TEST_P(Upstreams, a_resolver_may_change_the_case_of_the_question) {
    first_.play([&](const Bytes& query, bool) {
        Bytes answer = make_answer(query, {{record("www.allowed.test", right())}, {}, {}});
        answer[13] = 'W';
        return answer;
    });
    expect_address(ask_gateway("www.allowed.test"), right());
    EXPECT_EQ(daemon_->bindings("www.allowed.test"), std::vector<std::string>{right().to_string()});
}

TEST_P(Upstreams, B03_address_hints_are_held_against_the_rebinding_rule) {
    const bool v4 = family().name == "IPv4";
    // 10.0.0.1 and fd00::1.
    const std::string inner = v4 ? "000400040a000001" : "00060010fd000000000000000000000000000001";
    first_.answer({{service("www.allowed.test", kAlpnH2 + inner)}, {}, {}});
    const auto refused = ask_gateway("www.allowed.test", "TYPE65");
    EXPECT_TRUE(refused && refused->rcode == kNxDomain);
    EXPECT_EQ(daemon_->drops("dns-rebinding"), 1U);
    first_.answer({{service("www.allowed.test", std::string(kAlpnH2) + "00040003010203")}, {}, {}});
    const auto broken = ask_gateway("www.allowed.test", "TYPE65");
    EXPECT_TRUE(broken && broken->rcode == kServFail);
}

TEST_P(Upstreams, B06_ech_is_taken_out_where_the_policy_says_so) {
    const std::string with_ech = service("www.allowed.test", std::string(kAlpnH2) + kEch);
    first_.answer({{with_ech, record("www.allowed.test", right())}, {}, {}});
    const auto https = [&] {
        const UdpSocket client(topology_.guest().ns, {family().guest, 0});
        client.send({family().gateway, kDns}, make_query(9, "www.allowed.test", "TYPE65"));
        const auto reply = client.receive(kPatience);
        return reply ? reply->bytes : Bytes{};
    };
    const auto has = [](const Bytes& bytes, const std::string& hex) {
        Bytes wanted;
        for (std::size_t i = 0; i < hex.size(); i += 2)
            wanted.push_back(static_cast<std::uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
        return !std::ranges::search(bytes, wanted).empty();
    };
    EXPECT_TRUE(has(https(), kEch));
    daemon_->load_policy(policy_text({"allow@*.allowed.test:tcp:443"}, "[tls]\nech = \"strip\"\n"));
    const Bytes stripped = https();
    EXPECT_FALSE(has(stripped, kEch));
    EXPECT_TRUE(has(stripped, kAlpnH2));
    const auto reply = read_answer({{family().gateway, kDns}, stripped});
    ASSERT_TRUE(reply.has_value()) << "still well-formed";
    EXPECT_EQ(reply->addresses, std::vector<std::string>{right().to_string()});
}

TEST_P(Upstreams, answers_over_tcp_come_as_they_are_ready) {
    first_.play([&](const Bytes& query, bool) -> std::optional<Bytes> {
        if (question_of(query)->name == "slow.allowed.test")
            return std::nullopt;
        return make_answer(query, {{record("fast.allowed.test", right())}, {}, {}});
    });
    second_.play([&](const Bytes& query, bool) {
        return make_answer(query, {{record("slow.allowed.test", right())}, {}, {}});
    });
    auto stream = TcpStream::connect(topology_.guest().ns, {family().gateway, kDns});
    ASSERT_TRUE(stream.has_value());
    // The first resolver keeps silent about the slow name, so that it costs a timeout.
    stream->send(framed(make_query(1, "slow.allowed.test", family().record)) +
                 framed(make_query(2, "fast.allowed.test", family().record)));
    const auto one = receive_reply(*stream);
    const auto two = receive_reply(*stream);
    ASSERT_TRUE(one && two);
    EXPECT_EQ(one->id, 2U);
    EXPECT_EQ(two->id, 1U);
    EXPECT_EQ(two->addresses, std::vector<std::string>{right().to_string()});
}

TEST_P(Upstreams, the_canary_of_dns_over_https_does_not_exist_unless_a_rule_names_it) {
    const std::string canary = "use-application-dns.net";
    first_.answer({{record(canary, right())}, {}, {}});
    daemon_->load_policy(policy_text({"allow@dns"}));
    const auto refused = ask_gateway(canary);
    EXPECT_TRUE(refused && refused->rcode == kNxDomain);
    EXPECT_EQ(first_.asked(), std::vector<std::string>{});
    daemon_->load_policy(policy_text({"allow@dns", "allow@use-application-dns.net"}));
    expect_address(ask_gateway(canary), right());
}

INSTANTIATE_TEST_SUITE_P(Family, Upstreams, families(), family_name);

} // namespace
} // namespace tapgate::test
