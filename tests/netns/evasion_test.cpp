// SPDX-License-Identifier: Apache-2.0
#include "harness/tls_hello_builder.hpp"
#include "harness/wait.hpp"
#include "netns/raw_tcp.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <future>
#include <ostream>
#include <tuple>

// What a guest tries with its first flight to reach a name that it may not: each case says how it has to end.
// Every case is tried with a name that the policy allows where that makes sense, to show that it is the name
// that decides, and the uplink is looked at after each.
namespace tapgate::test {
namespace {

using namespace std::string_literals;
using namespace std::string_view_literals;

constexpr unsigned kShared = 12;
constexpr std::size_t kPeekBytes = 8192;
constexpr std::uint16_t kEch = 0xfe0d;

const std::string kGood = "shared-a.test";
const std::string kEvil = "shared-b.test";

std::string text(const Bytes& bytes) {
    return {bytes.begin(), bytes.end()};
}

using Pieces = std::vector<std::string>;

/// `bytes` in two segments.
Pieces cut_at(const std::string& bytes, std::size_t at) {
    return {bytes.substr(0, at), bytes.substr(at)};
}

/// A hello with the byte at `offset` changed by `by`.
std::string bent(std::string_view name, std::size_t offset, int by) {
    std::string hello = client_hello(name);
    hello.at(offset) = static_cast<char>(hello.at(offset) + by);
    return hello;
}

std::size_t offset_of_name(std::string_view name) {
    return client_hello(name).find(name);
}

std::string request(std::string_view name, std::string_view headers = "") {
    return fmt::format("GET / HTTP/1.1\r\nHost: {}\r\n{}\r\n", name, headers);
}

enum class Expected {
    kServed,
    kAlert,
    kPage, ///< an HTTP 403
    kReset,
};

/// A first flight over an ordinary connection.
struct Flight {
    std::string name;
    std::uint16_t port;
    std::function<Pieces()> pieces;
    Expected expected;
    bool with_fin = true; ///< false: only the bytes or the deadline can settle it
};

std::ostream& operator<<(std::ostream& stream, const Flight& flight) {
    return stream << flight.name;
}

/// A first flight that is the same for both names, and ends as the name deserves.
void add_both(std::vector<Flight>& flights, const std::string& what, std::uint16_t port,
              const std::function<Pieces(const std::string& name)>& pieces) {
    const Expected refusal = port == 443 ? Expected::kAlert : Expected::kPage;
    flights.push_back({what + "_is_served", port, [pieces] { return pieces(kGood); }, Expected::kServed});
    flights.push_back({what + "_is_refused", port, [pieces] { return pieces(kEvil); }, refusal});
}

/// Names that a comparison of text, but not of labels, could take for the allowed one.
std::vector<std::pair<std::string, std::string>> names_beside_the_allowed_one() {
    return {
        {"name_that_ends_in_the_allowed_one", "evil" + kGood},
        {"name_below_the_allowed_one", "www." + kGood},
        {"name_with_the_allowed_one_in_front", kGood + ".evil.test"},
        {"name_that_is_a_part_of_the_allowed_one", kGood.substr(1)},
        {"name_that_is_the_zone_of_the_allowed_one", "test"},
    };
}

std::vector<Flight> tls_flights() {
    std::vector<Flight> flights;
    for (const std::size_t size : {1U, 2U, 3U, 4U, 5U, 9U, 38U, 39U, 64U, 100U}) {
        add_both(flights, fmt::format("B08_hello_in_records_of_{}", size), 443,
                 [size](const std::string& name) {
                     return Pieces{text(TlsHelloBuilder().sni(name).records_of(size).build())};
                 });
    }
    for (const std::size_t at : {1U, 3U, 5U, 6U, 9U, 11U, 43U, 76U}) {
        add_both(flights, fmt::format("B08_hello_cut_at_byte_{}", at), 443,
                 [at](const std::string& name) { return cut_at(client_hello(name), at); });
    }
    for (const int from_name : {-2, 0, 1, 6, 13}) {
        add_both(flights, fmt::format("B08_hello_cut_at_its_name_{}", from_name + 2), 443,
                 [from_name](const std::string& name) {
                     const auto at = static_cast<int>(offset_of_name(name)) + from_name;
                     return cut_at(client_hello(name), static_cast<std::size_t>(at));
                 });
    }
    add_both(flights, "B08_post_quantum_hello_in_records_within_segments", 443, [](const std::string& name) {
        const std::string hello = text(TlsHelloBuilder().post_quantum().sni(name).records_of(500).build());
        return Pieces{hello.substr(0, 498), hello.substr(498, 9), hello.substr(507)};
    });
    add_both(flights, "B10_hello_padded_almost_to_the_cap", 443, [](const std::string& name) {
        return Pieces{text(TlsHelloBuilder().padding(kPeekBytes - 300).sni(name).build())};
    });
    add_both(flights, "B12_name_in_upper_case", 443, [](const std::string& name) {
        std::string upper = name;
        std::ranges::transform(upper, upper.begin(), [](unsigned char c) { return std::toupper(c); });
        return Pieces{client_hello(upper)};
    });
    add_both(flights, "B12_name_with_a_trailing_dot", 443,
             [](const std::string& name) { return Pieces{client_hello(name + ".")}; });

    add_both(flights, "B06_hello_with_ech_is_judged_by_its_outer_name_and", 443, [](const std::string& name) {
        return Pieces{text(TlsHelloBuilder().extension(kEch, Bytes(200, 0x5a)).sni(name).build())};
    });
    // What the README says of domain fronting: inside TLS nobody looks.
    flights.push_back({"B05_another_host_inside_tls_is_served", 443,
                       [] {
                           const std::string inside = request(kEvil);
                           return Pieces{client_hello(kGood) + std::string("\x17\x03\x03\x00", 4) +
                                         static_cast<char>(inside.size()) + inside};
                       },
                       Expected::kServed});

    const auto refused = [&](const std::string& what, const std::function<Pieces()>& pieces,
                             bool with_fin = true) {
        flights.push_back({what + "_is_refused", 443, pieces, Expected::kAlert, with_fin});
    };
    refused("B06_hello_with_ech_and_no_outer_name",
            [] { return Pieces{text(TlsHelloBuilder().extension(kEch, Bytes(200, 0x5a)).build())}; });
    for (const auto& [how, name] : names_beside_the_allowed_one())
        refused("B13_" + how, [name] { return Pieces{client_hello(name)}; });
    refused("B12_name_in_raw_utf_8", [] { return Pieces{client_hello("shared-\xc3\xa4.test")}; });
    refused("B09_allowed_name_in_an_inner_record_header", [] {
        // A flat reader that skips to the second record finds the allowed hello there.
        return Pieces{text(TlsHelloBuilder().extension(21, {}).sni(kEvil).records({20}).build()) +
                      client_hello(kGood)};
    });
    refused("B09_forbidden_hello_before_an_allowed_one",
            [] { return Pieces{client_hello(kEvil) + client_hello(kGood)}; });
    refused("B09_two_hellos_in_one_record", [] {
        Bytes both = TlsHelloBuilder().sni(kGood).message();
        append(both, TlsHelloBuilder().sni(kEvil).message());
        return Pieces{text(TlsHelloBuilder().in_records(both))};
    });
    refused(
        "B10_hello_over_the_cap",
        [] {
            return Pieces{
                text(TlsHelloBuilder().padding(2 * kPeekBytes).sni(kGood).build()).substr(0, kPeekBytes + 9)};
        },
        false);
    refused(
        "B10_hello_that_is_never_finished", [] { return Pieces{client_hello(kGood).substr(0, 60)}; }, false);
    refused("B10_hello_that_ends_in_a_fin", [] { return Pieces{client_hello(kGood).substr(0, 60)}; });
    refused("B10_single_byte_that_begins_a_hello", [] { return Pieces{"\x16"}; }, false);
    refused("B07_hello_without_a_name", [] { return Pieces{text(TlsHelloBuilder().build())}; });
    refused("B07_hello_without_extensions",
            [] { return Pieces{text(TlsHelloBuilder().without_extensions().build())}; });
    refused("B07_name_that_is_an_address", [] { return Pieces{client_hello("203.0.113.12")}; });
    refused("B11_empty_name", [] { return Pieces{client_hello("")}; });
    refused("B11_name_with_a_nul",
            [] { return Pieces{client_hello(std::string_view("shared-a.test\0.x", 16))}; });
    refused("B11_name_twice", [] { return Pieces{text(TlsHelloBuilder().sni(kGood).sni(kEvil).build())}; });
    refused("B11_two_names_in_one_list", [] {
        return Pieces{text(
            TlsHelloBuilder().extension(0, TlsHelloBuilder::server_name({{0, kGood}, {0, kEvil}})).build())};
    });
    // Lengths: of the record, the handshake, the list of extensions, and the name's own three.
    for (const int by : {-1, 1}) {
        const char* how = by < 0 ? "short" : "long";
        refused(fmt::format("B10_handshake_length_too_{}", how), [by] { return Pieces{bent(kGood, 8, by)}; });
        for (const int back : {1, 4, 6})
            refused(fmt::format("B10_name_length_{}_too_{}", back, how), [by, back] {
                return Pieces{bent(kGood, offset_of_name(kGood) - static_cast<std::size_t>(back), by)};
            });
    }
    refused("B10_record_length_too_long", [] { return Pieces{bent(kGood, 4, 1)}; });
    refused("B10_empty_record_first",
            [] { return Pieces{std::string("\x16\x03\x01\x00\x00", 5) + client_hello(kGood)}; });
    refused("B10_alert_before_the_hello",
            [] { return Pieces{std::string("\x15\x03\x01\x00\x02\x01\x00", 7) + client_hello(kEvil)}; });
    refused("B10_change_cipher_spec_before_the_hello",
            [] { return Pieces{std::string("\x14\x03\x03\x00\x01\x01", 6) + client_hello(kEvil)}; });
    refused("B10_application_data_before_the_hello",
            [] { return Pieces{std::string("\x17\x03\x03\x00\x01\x00", 6) + client_hello(kEvil)}; });
    return flights;
}

std::vector<Flight> http_flights() {
    std::vector<Flight> flights;
    add_both(flights, "B41_request_of_one_byte_per_segment", 80,
             [](const std::string& name) { return one_by_one(request(name)); });
    add_both(flights, "B41_request_cut_in_its_host", 80,
             [](const std::string& name) { return cut_at(request(name), 26); });
    add_both(flights, "B40_absolute_form", 80, [](const std::string& name) {
        return Pieces{fmt::format("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", name)};
    });
    const auto refused = [&](const std::string& what, const std::string& bytes, bool with_fin = true) {
        flights.push_back(
            {what + "_is_refused", 80, [bytes] { return Pieces{bytes}; }, Expected::kPage, with_fin});
    };
    for (const auto& [how, name] : names_beside_the_allowed_one())
        refused("B13_host_" + how, request(name));
    const std::string host = "Host: " + kGood + "\r\n";
    refused("B41_two_hosts", "GET / HTTP/1.1\r\n" + host + "Host: " + kEvil + "\r\n\r\n");
    refused("B41_two_equal_hosts", "GET / HTTP/1.1\r\n" + host + host + "\r\n");
    refused("B41_folded_host", "GET / HTTP/1.1\r\nHost: shared-a\r\n .test\r\n\r\n");
    refused("B41_bare_lf", "GET / HTTP/1.1\nHost: " + kGood + "\n\n");
    refused("B41_bare_cr", "GET / HTTP/1.1\rHost: " + kEvil + "\r\n" + host + "\r\n");
    refused("B41_nul_in_a_header", std::string("GET / HTTP/1.1\r\nA: \0\r\n", 22) + host + "\r\n");
    refused("B41_space_before_the_colon", "GET / HTTP/1.1\r\nHost : " + kEvil + "\r\n" + host + "\r\n");
    refused("B41_empty_line_first", "\r\nGET / HTTP/1.1\r\n" + host + "\r\n");
    refused("B41_no_host", "GET / HTTP/1.1\r\nA: b\r\n\r\n");
    refused("B41_user_in_the_host", "GET / HTTP/1.1\r\nHost: " + kGood + "@" + kEvil + "\r\n\r\n");
    refused("B41_other_address_as_host", "GET / HTTP/1.1\r\nHost: 203.0.113.66\r\n\r\n");
    refused("B40_target_that_is_not_the_host", "GET http://" + kEvil + "/ HTTP/1.1\r\n" + host + "\r\n");
    refused("B40_connect", "CONNECT " + kEvil + ":443 HTTP/1.1\r\nHost: " + kEvil + ":443\r\n\r\n");
    refused("B41_length_and_chunks", "POST / HTTP/1.1\r\n" + host +
                                         "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    refused("B41_two_lengths",
            "POST / HTTP/1.1\r\n" + host + "Content-Length: 0\r\nContent-Length: 44\r\n\r\n");
    refused("B41_encoding_that_is_not_chunked",
            "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n");
    refused("B41_chunks_in_http_1_0",
            "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    refused("B41_version_that_nobody_speaks", "GET / HTTP/1.2\r\n" + host + "\r\n");
    refused("B41_http_0_9", "GET /\r\n");
    refused("B10_head_over_the_cap", "GET / HTTP/1.1\r\nA: " + std::string(kPeekBytes, 'x'), false);
    refused("B35_head_that_is_never_finished", "GET / HTTP/1.1\r\n" + host, false);
    return flights;
}

std::vector<Flight> all_flights() {
    std::vector<Flight> flights = tls_flights();
    for (Flight& flight : http_flights())
        flights.push_back(std::move(flight));
    return flights;
}

std::string evasion_policy(std::string_view more = {}) {
    return policy_text({"allow@" + kGood + ":tcp:80,443"}, more);
}

/// The world of all suites.
class EvasionWorld {
  public:
    static World& get() {
        if (!world_) {
            DaemonConfig config;
            config.timers = fmt::format("peek_ms = 800\nserver_first_ms = 200\npeek_bytes = {}", kPeekBytes);
            config.policy = evasion_policy();
            config.guests.push_back({"vm1", "tap1", Topology::guest_addresses(1)});
            world_ = std::make_unique<World>(
                config, std::vector<std::string>{dual_stack(kGood, kShared), dual_stack(kEvil, kShared)}, 2);
        }
        return *world_;
    }

    static void end() { world_.reset(); }

  private:
    static inline std::unique_ptr<World> world_;
};

template <typename Case>
class EvasionTest : public testing::TestWithParam<std::tuple<Case, const Family*>> {
  protected:
    static void TearDownTestSuite() { EvasionWorld::end(); }

    void SetUp() override { resolve(world(), family(), kGood); }

    void TearDown() override {
        EXPECT_TRUE(wait_until([] { return world().daemon.flows().empty(); })) << "a session was left behind";
        if (this->HasFailure())
            std::cerr << "the daemon's log:\n" << world().daemon.log();
    }

    static World& world() { return EvasionWorld::get(); }

    static const Family& family() {
        return *std::get<1>(testing::TestWithParam<std::tuple<Case, const Family*>>::GetParam());
    }

    static const NetNs& guest() { return world().topology.guest().ns; }

    static Endpoint shared(std::uint16_t port) { return {family().server(kShared), port}; }
};

class Evasion : public EvasionTest<Flight> {};

TEST_P(Evasion, Case) {
    const Flight& flight = std::get<0>(GetParam());
    CaptureServer upstream(world().topology.internet(), shared(flight.port));
    UplinkWatch uplink(world());
    auto stream = TcpStream::connect(guest(), upstream.endpoint());
    ASSERT_TRUE(stream.has_value());
    std::string sent;
    int send_error = 0;
    for (const std::string& piece : flight.pieces()) {
        sent += piece;
        send_error = send_error == 0 ? stream->send(piece) : send_error;
    }
    if (flight.with_fin)
        stream->finish();
    const Received received = stream->receive_to_end();
    const Outcome outcome{0, received.bytes, received.end};
    if (flight.expected == Expected::kServed) {
        EXPECT_PRED1(was_served, outcome);
        EXPECT_EQ(upstream.captured(), std::vector<std::string>{sent});
        return;
    }
    switch (flight.expected) {
    case Expected::kServed:
    case Expected::kReset:
        EXPECT_PRED1(was_reset, outcome);
        break;
    case Expected::kAlert:
        EXPECT_PRED1(was_denied_by_alert, outcome);
        break;
    case Expected::kPage:
        EXPECT_TRUE(outcome.answer.starts_with("HTTP/1.1 403 ")) << outcome;
        break;
    }
    EXPECT_EQ(upstream.accepted(), 0U);
    EXPECT_EQ(uplink.leaks({upstream.endpoint()}), std::vector<std::string>{});
}

INSTANTIATE_TEST_SUITE_P(
    Flights, Evasion, testing::Combine(testing::ValuesIn(all_flights()), testing::Values(&ipv4(), &ipv6())),
    [](const auto& of) { return std::get<0>(of.param).name + "_" + std::get<1>(of.param)->name; });

/// A connection made of crafted segments.
struct Segments {
    std::string name;
    std::function<void(RawTcp&)> act; ///< after the handshake
    Expected expected;
    std::string reaches; ///< what the upstream gets if it is served
    RawSyn syn = {};
};

std::ostream& operator<<(std::ostream& stream, const Segments& segments) {
    return stream << segments.name;
}

std::vector<Segments> segment_cases() {
    const std::string good = client_hello(kGood);
    const std::string evil = client_hello(kEvil);
    const auto good_size = static_cast<std::uint32_t>(good.size());
    std::vector<Segments> cases;
    const auto both = [&](const std::string& what,
                          const std::function<void(RawTcp&, const std::string&)>& act) {
        cases.push_back(
            {what + "_is_served", [act, good](RawTcp& tcp) { act(tcp, good); }, Expected::kServed, good});
        cases.push_back(
            {what + "_is_refused", [act, evil](RawTcp& tcp) { act(tcp, evil); }, Expected::kAlert, {}});
    };
    const auto finish = [](RawTcp& tcp, const std::string& stream) {
        tcp.send_flag(static_cast<std::uint32_t>(stream.size()), kTcpFin);
    };
    both("B22_segments_in_reverse_order", [finish](RawTcp& tcp, const std::string& hello) {
        for (std::size_t end = hello.size(); end > 0;) {
            const std::size_t begin = end > 40 ? end - 40 : 0;
            tcp.send(static_cast<std::uint32_t>(begin), std::string_view(hello).substr(begin, end - begin));
            end = begin;
        }
        finish(tcp, hello);
    });
    both("B22_every_segment_twice", [finish](RawTcp& tcp, const std::string& hello) {
        for (std::size_t at = 0; at < hello.size(); at += 50)
            for (int copy = 0; copy < 2; ++copy)
                tcp.send(static_cast<std::uint32_t>(at), std::string_view(hello).substr(at, 50));
        finish(tcp, hello);
    });
    both("B22_segments_that_overlap_and_agree", [finish](RawTcp& tcp, const std::string& hello) {
        for (std::size_t at = 0; at < hello.size(); at += 30)
            tcp.send(static_cast<std::uint32_t>(at), std::string_view(hello).substr(at, 60));
        finish(tcp, hello);
    });
    // A peek ends at urgent data, whatever is behind it: such a hello is never seen to its end.
    cases.push_back({"B49_a_hello_in_urgent_data_is_refused",
                     [good, good_size](RawTcp& tcp) {
                         tcp.send_urgent(0, good);
                         tcp.send_flag(good_size, kTcpFin);
                     },
                     Expected::kAlert,
                     {}});
    cases.push_back({"B49_a_hello_with_an_urgent_byte_is_refused",
                     [evil](RawTcp& tcp) {
                         tcp.send(0, std::string_view(evil).substr(0, 70));
                         tcp.send_urgent(70, std::string_view(evil).substr(70, 1));
                         tcp.send(71, std::string_view(evil).substr(71));
                     },
                     Expected::kAlert,
                     {}});
    both("B49_fin_with_the_last_byte_of_the_hello", [](RawTcp& tcp, const std::string& hello) {
        const auto last = static_cast<std::uint32_t>(hello.size() - 1);
        tcp.send(last, std::string_view(hello).substr(last), kTcpAck | kTcpPsh | kTcpFin);
        tcp.send(0, std::string_view(hello).substr(0, last));
    });
    // What is not the kernel's stream is neither judged nor sent.
    cases.push_back({"B22_of_segments_that_overlap_and_differ_the_same_is_judged_and_sent",
                     [good, evil, good_size](RawTcp& tcp) {
                         tcp.send(40, std::string_view(evil).substr(40)); // waits for what is before it
                         tcp.send(0, good);                               // and is replaced
                         tcp.send_flag(good_size, kTcpFin);
                     },
                     Expected::kServed, good});
    cases.push_back({"B22_a_retransmission_with_another_name_is_nothing",
                     [good, evil, good_size](RawTcp& tcp) {
                         tcp.send(0, good);
                         tcp.send(0, evil);
                         tcp.send_flag(good_size, kTcpFin);
                     },
                     Expected::kServed, good});
    cases.push_back({"B23_a_hello_in_the_syn_counts_for_nothing_and_the_real_one_is_refused",
                     [evil](RawTcp& tcp) {
                         tcp.send(0, evil);
                         tcp.send_flag(static_cast<std::uint32_t>(evil.size()), kTcpFin);
                     },
                     Expected::kAlert,
                     {},
                     {good}});
    cases.push_back({"B23_a_forbidden_hello_in_the_syn_never_arrives",
                     [good, good_size](RawTcp& tcp) {
                         tcp.send(0, good);
                         tcp.send_flag(good_size, kTcpFin);
                     },
                     Expected::kServed,
                     good,
                     {evil}});
    // TCP Fast Open (RFC 7413): a request for a cookie, and a cookie that a server might have given.
    for (const auto& [how, option] : {std::pair{"a_request_for_a_cookie", Bytes{34, 2, 1, 1}},
                                      std::pair{"a_cookie", Bytes{34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1}}}) {
        cases.push_back({fmt::format("B23_a_forbidden_hello_behind_{}_in_the_syn_never_arrives", how),
                         [good, good_size](RawTcp& tcp) {
                             tcp.send(0, good);
                             tcp.send_flag(good_size, kTcpFin);
                         },
                         Expected::kServed,
                         good,
                         {evil, 65535, option}});
        cases.push_back({fmt::format("B23_an_allowed_hello_behind_{}_in_the_syn_counts_for_nothing", how),
                         [evil](RawTcp& tcp) {
                             tcp.send(0, evil);
                             tcp.send_flag(static_cast<std::uint32_t>(evil.size()), kTcpFin);
                         },
                         Expected::kAlert,
                         {},
                         {good, 65535, option}});
    }
    cases.push_back({"B22_a_hello_with_a_wrong_checksum_is_nothing_and_the_right_one_is_served",
                     [good, evil, good_size](RawTcp& tcp) {
                         tcp.send_damaged(0, evil);
                         tcp.send(0, good);
                         tcp.send_flag(good_size, kTcpFin);
                     },
                     Expected::kServed, good});
    cases.push_back({"B22_an_allowed_hello_with_a_wrong_checksum_is_nothing_and_the_real_one_is_refused",
                     [good, evil](RawTcp& tcp) {
                         tcp.send_damaged(0, good);
                         tcp.send(0, evil);
                         tcp.send_flag(static_cast<std::uint32_t>(evil.size()), kTcpFin);
                     },
                     Expected::kAlert,
                     {}});
    // It would not live to see a server that is further away, but here is where the stream ends.
    both("B22_hello_with_one_hop_to_live", [finish](RawTcp& tcp, const std::string& hello) {
        tcp.set_hops(1);
        tcp.send(0, hello);
        finish(tcp, hello);
    });
    for (const std::uint8_t mss : {1, 48}) {
        const Bytes option = {2, 4, 0, mss};
        const std::string what = fmt::format("B49_hello_of_a_guest_that_takes_segments_of_{}", mss);
        cases.push_back({what + "_is_served",
                         [good, finish](RawTcp& tcp) {
                             tcp.send(0, good);
                             finish(tcp, good);
                         },
                         Expected::kServed,
                         good,
                         {{}, 65535, option}});
        cases.push_back({what + "_is_refused",
                         [evil, finish](RawTcp& tcp) {
                             tcp.send(0, evil);
                             finish(tcp, evil);
                         },
                         Expected::kAlert,
                         {},
                         {{}, 65535, option}});
    }
    for (const std::uint32_t at : {std::uint32_t{0}, std::uint32_t{1}, std::uint32_t{50}, good_size - 1}) {
        cases.push_back({fmt::format("B25_an_rst_behind_{}_bytes_of_the_hello_ends_it_without_a_trace", at),
                         [good, at](RawTcp& tcp) {
                             if (at != 0)
                                 tcp.send(0, std::string_view(good).substr(0, at));
                             tcp.send_flag(at, kTcpRst);
                         },
                         Expected::kReset,
                         {}});
    }
    cases.push_back({"B25_an_rst_outside_the_window_is_nothing",
                     [evil](RawTcp& tcp) {
                         tcp.send(0, std::string_view(evil).substr(0, 50));
                         tcp.send_flag(0x40000000, kTcpRst);
                         tcp.send(50, std::string_view(evil).substr(50));
                         tcp.send_flag(static_cast<std::uint32_t>(evil.size()), kTcpFin);
                     },
                     Expected::kAlert,
                     {}});
    for (const std::uint32_t at : {std::uint32_t{1}, std::uint32_t{5}, std::uint32_t{50}, good_size - 1}) {
        cases.push_back({fmt::format("B49_fin_behind_{}_bytes_of_the_hello_is_refused", at),
                         [good, at](RawTcp& tcp) {
                             tcp.send(0, std::string_view(good).substr(0, at));
                             tcp.send_flag(at, kTcpFin);
                         },
                         Expected::kAlert,
                         {}});
    }
    cases.push_back({"B49_a_hole_that_is_never_filled_is_refused_at_the_deadline",
                     [good](RawTcp& tcp) {
                         tcp.send(0, std::string_view(good).substr(0, 50));
                         tcp.send(60, std::string_view(good).substr(60));
                     },
                     Expected::kAlert,
                     {}});
    return cases;
}

class RawEvasion : public EvasionTest<Segments> {};

TEST_P(RawEvasion, Case) {
    const Segments& segments = std::get<0>(GetParam());
    static std::uint16_t port = 20000;
    CaptureServer upstream(world().topology.internet(), shared(443));
    UplinkWatch uplink(world());
    {
        RawTcp tcp(guest(), {family().guest, ++port}, upstream.endpoint());
        ASSERT_TRUE(tcp.connect(segments.syn));
        segments.act(tcp);
        switch (segments.expected) {
        case Expected::kServed:
            EXPECT_PRED1(was_served, tcp.receive_to_end());
            break;
        case Expected::kAlert:
            EXPECT_PRED1(was_denied_by_alert, tcp.receive_to_end());
            break;
        case Expected::kPage:
        case Expected::kReset:
            EXPECT_TRUE(wait_until([] { return world().daemon.flows().empty(); }));
            break;
        }
    }
    if (segments.expected == Expected::kServed) {
        EXPECT_EQ(upstream.captured(), std::vector<std::string>{segments.reaches});
        return;
    }
    EXPECT_EQ(upstream.accepted(), 0U);
    EXPECT_EQ(uplink.leaks({upstream.endpoint()}), std::vector<std::string>{});
}

INSTANTIATE_TEST_SUITE_P(Segments, RawEvasion,
                         testing::Combine(testing::ValuesIn(segment_cases()),
                                          testing::Values(&ipv4(), &ipv6())),
                         [](const auto& of) {
                             return std::get<0>(of.param).name + "_" + std::get<1>(of.param)->name;
                         });

/// Attacks that are more than one flight.
class EvasionMore : public EvasionTest<int> {
  protected:
    /// Of guest 1.
    static IpAddress other_guest() {
        return IpAddress::parse(family().name == "IPv4" ? "192.0.2.18" : "2001:db8:1:1::2").value();
    }
};

TEST_P(EvasionMore, B35_a_hello_that_drips_is_refused_at_the_deadline_and_not_later) {
    CaptureServer upstream(world().topology.internet(), shared(443));
    auto stream = TcpStream::connect(guest(), upstream.endpoint());
    ASSERT_TRUE(stream.has_value());
    const auto start = std::chrono::steady_clock::now();
    Received got;
    // A byte whenever nothing has come for a tenth of the deadline: each is progress, none buys time.
    for (const std::string& byte : one_by_one(client_hello(kGood))) {
        stream->send(byte);
        got = stream->receive_some(100, std::chrono::milliseconds(80));
        if (!got.bytes.empty() || got.end != End::kNone)
            break;
    }
    EXPECT_EQ(got.bytes.substr(0, 1), "\x15");
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(4));
    EXPECT_EQ(upstream.accepted(), 0U);
}

TEST_P(EvasionMore, B49_a_guest_that_offers_no_window_cannot_hold_its_refusal_for_ever) {
    CaptureServer upstream(world().topology.internet(), shared(443));
    RawTcp tcp(guest(), {family().guest, 21000}, upstream.endpoint());
    ASSERT_TRUE(tcp.connect({{}, 0, {}}));
    tcp.send(0, client_hello(kEvil));
    EXPECT_TRUE(wait_until([] { return world().daemon.flows().empty(); }));
    EXPECT_EQ(upstream.accepted(), 0U);
}

TEST_P(EvasionMore, B49_a_guest_that_offers_a_window_late_gets_everything) {
    CaptureServer upstream(world().topology.internet(), shared(443));
    RawTcp tcp(guest(), {family().guest, 21001}, upstream.endpoint());
    ASSERT_TRUE(tcp.connect({{}, 0, {}}));
    const std::string hello = client_hello(kGood);
    const auto end = static_cast<std::uint32_t>(hello.size());
    tcp.send(0, hello);
    tcp.send_flag(end, kTcpFin);
    ASSERT_TRUE(wait_until([&] { return upstream.captured() == std::vector<std::string>{hello}; }));
    tcp.set_window(65535);
    tcp.send(end + 1, {}, kTcpAck);
    EXPECT_PRED1(was_served, tcp.receive_to_end());
}

TEST_P(EvasionMore, B45_no_port_is_left_out) {
    for (const std::uint16_t port : {1, 22, 444, 8080, 8443, 65535}) {
        SCOPED_TRACE(port);
        CaptureServer upstream(world().topology.internet(), shared(port));
        UplinkWatch uplink(world());
        EXPECT_PRED1(was_reset, exchange(guest(), upstream.endpoint(), client_hello(kGood)));
        EXPECT_EQ(upstream.accepted(), 0U);
        EXPECT_EQ(uplink.leaks({upstream.endpoint()}), std::vector<std::string>{});
    }
}

TEST_P(EvasionMore, B06_ech_can_be_denied) {
    CaptureServer upstream(world().topology.internet(), shared(443));
    const std::string with_ech = text(TlsHelloBuilder().sni(kGood).extension(kEch, Bytes(200, 0x5a)).build());
    world().daemon.load_policy(evasion_policy("[tls]\nech = \"deny\"\n"));
    EXPECT_PRED1(was_denied_by_alert, exchange(guest(), upstream.endpoint(), with_ech));
    EXPECT_EQ(upstream.accepted(), 0U);
    EXPECT_PRED1(was_served, exchange(guest(), upstream.endpoint(), client_hello(kGood)));
    world().daemon.load_policy(evasion_policy());
}

/// A TLS record.
std::string record(int type, const std::string& content) {
    const auto size = static_cast<unsigned>(content.size());
    std::string bytes{static_cast<char>(type), 3, 3, static_cast<char>(size >> 8U), static_cast<char>(size)};
    return bytes + content;
}

/// By which a server wants another hello, with a share of secp384r1 (RFC 8446 4.1.3 and 4.1.4).
std::string hello_retry_request() {
    const std::string_view random = "\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91"
                                    "\xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c"sv;
    std::string body("\x03\x03"s);
    body += random;
    body += "\x00\x13\x01\x00\x00\x0c\x00\x2b\x00\x02\x03\x04\x00\x33\x00\x02\x00\x18"s;
    return record(22, "\x02\x00\x00"s + static_cast<char>(body.size()) + body);
}

TEST_P(EvasionMore, B54_a_second_hello_with_another_name_is_refused) {
    const std::string hello = client_hello(kGood);
    const std::string change_cipher_spec = record(20, "\x01");
    const std::string early_data = record(23, std::string(300, 'e'));
    const std::string nameless = text(TlsHelloBuilder().build());
    const std::string in_records = text(TlsHelloBuilder().sni(kEvil).records_of(40).build());

    struct Second {
        std::string what;
        Pieces with_the_first; ///< sent at once, before the server has answered
        Pieces pieces;         ///< sent when the answer has come
        std::string passes;    ///< of all that, what may reach the server
    };

    const std::string evil = client_hello(kEvil);
    const std::vector<Second> seconds = {
        {"another name", {}, {evil}, ""},
        {"another name in two segments", {}, cut_at(evil, 3), ""},
        {"another name in small records", {}, {in_records}, ""},
        {"no name", {}, {nameless}, ""},
        {"behind a change_cipher_spec", {}, {change_cipher_spec, evil}, change_cipher_spec},
        {"behind early data", {early_data}, {change_cipher_spec + evil}, early_data + change_cipher_spec},
        {"before the answer", {evil}, {}, ""},
        {"before the answer, behind early data", {early_data + evil}, {}, early_data},
        {"no hello", {}, {record(22, "\x10\x00\x00\x00"s)}, ""},
        {"the allowed name", {}, {hello}, hello},
        {"the allowed name before the answer", {hello}, {}, hello},
        {"the allowed name behind all else",
         {early_data},
         {change_cipher_spec, hello},
         early_data + change_cipher_spec + hello},
    };
    for (const Second& second : seconds) {
        SCOPED_TRACE(second.what);
        std::promise<std::string> reached;
        const TcpServer upstream(world().topology.internet(), shared(443), [&](TcpStream& stream) {
            std::string got = stream.receive(hello.size()).bytes;
            const std::string answer = hello_retry_request();
            stream.send(answer.substr(0, 30)); // in two segments, of which one alone says nothing
            stream.send(answer.substr(30));
            const std::string more = stream.receive_to_end().bytes;
            reached.set_value(got + more);
        });
        auto stream = TcpStream::connect(guest(), upstream.endpoint());
        ASSERT_TRUE(stream.has_value());
        Pieces first = second.with_the_first;
        first.insert(first.begin(), hello);
        for (const std::string& piece : first)
            stream->send(piece);
        EXPECT_EQ(stream->receive(hello_retry_request().size()).bytes, hello_retry_request());
        for (const std::string& piece : second.pieces)
            stream->send(piece);
        const bool is_allowed = second.passes.ends_with(hello);
        if (is_allowed) {
            stream->finish();
            EXPECT_EQ(stream->receive_to_end().end, End::kFin);
        } else {
            const Received got = stream->receive_to_end();
            EXPECT_EQ(got.bytes, text({0x15, 3, 3, 0, 2, 2, 49})); // access_denied
        }
        EXPECT_EQ(reached.get_future().get(), hello + second.passes);
    }
}

TEST_P(EvasionMore, B54_what_follows_an_ordinary_answer_is_the_guests_business) {
    const std::string hello = client_hello(kGood);
    const std::string key_exchange = record(22, "\x10\x00\x00\x02pk"s);
    for (const std::string& answer : {record(22, "\x02\x00\x00\x26\x03\x03"s + std::string(36, 'r')),
                                      record(21, "\x01\x70"), "no TLS"s}) {
        const TcpServer upstream(world().topology.internet(), shared(443), [&](TcpStream& stream) {
            stream.receive(hello.size());
            stream.send(answer);
            stream.send(stream.receive_to_end().bytes);
        });
        auto stream = TcpStream::connect(guest(), upstream.endpoint());
        ASSERT_TRUE(stream.has_value());
        stream->send(hello);
        EXPECT_EQ(stream->receive(answer.size()).bytes, answer);
        stream->send(key_exchange);
        stream->finish();
        EXPECT_EQ(stream->receive_to_end().bytes, key_exchange);
    }
}

TEST_P(EvasionMore, B48_another_guest_cannot_be_reached) {
    const NetNs& other = world().topology.guest(1).ns;
    CaptureServer server(other, {other_guest(), 443});
    PacketTap wire(other, "eth0");
    EXPECT_PRED1(was_reset, exchange(guest(), server.endpoint(), client_hello(kGood)));
    EXPECT_PRED1(was_reset, exchange(guest(), server.endpoint(), request(kGood)));
    EXPECT_EQ(server.accepted(), 0U);
    for (const Seen& seen : wire.drain())
        EXPECT_FALSE(seen.to && *seen.to == server.endpoint()) << seen.to_string();
}

TEST_P(EvasionMore, B25_another_guest_can_neither_end_a_connection_nor_speak_on_it) {
    CaptureServer upstream(world().topology.internet(), shared(443));
    const std::string hello = client_hello(kGood);
    const Endpoint here{family().guest, 21002};
    RawTcp tcp(guest(), here, upstream.endpoint());
    ASSERT_TRUE(tcp.connect());
    tcp.send(0, std::string_view(hello).substr(0, 50));
    // It knows everything that there is to know.
    const PacketTap wire(world().topology.guest(1).ns, "eth0");
    const std::uint64_t before = world().daemon.drops("source-address", "vm1");
    const auto inject = [&](std::uint8_t flags, const Bytes& payload) {
        const Bytes segment = tcp_segment(here, upstream.endpoint(), flags | kTcpAck, RawTcp::sequence(50),
                                          tcp.acknowledged(), payload);
        wire.send(frame({2, 0, 0, 0, 1, 2}, {2, 0, 0, 0, 0, 3},
                        ip_packet(here.address, upstream.endpoint().address, kProtocolTcp, segment)));
    };
    inject(kTcpPsh, Bytes(hello.size() - 50, 'x'));
    inject(kTcpFin, {});
    inject(kTcpRst, {});
    EXPECT_EQ(world().daemon.drops("source-address", "vm1"), before + 3);
    tcp.send(50, std::string_view(hello).substr(50));
    tcp.send_flag(static_cast<std::uint32_t>(hello.size()), kTcpFin);
    EXPECT_PRED1(was_served, tcp.receive_to_end());
    EXPECT_EQ(upstream.captured(), std::vector<std::string>{hello});
}

TEST_P(EvasionMore, B49_a_guest_that_resets_at_any_stage_leaves_nothing_behind) {
    CaptureServer upstream(world().topology.internet(), shared(443));
    const std::string hello = client_hello(kGood);
    for (const std::size_t sent : {std::size_t{0}, std::size_t{1}, hello.size() / 2, hello.size()}) {
        for (int i = 0; i < 5; ++i) {
            auto stream = TcpStream::connect(guest(), upstream.endpoint());
            ASSERT_TRUE(stream.has_value());
            stream->send(hello.substr(0, sent));
            stream->reset();
        }
    }
    EXPECT_TRUE(wait_until([] { return world().daemon.flows().empty(); }));
}

TEST_P(EvasionMore, B49_a_fin_before_a_word_is_carried_as_one) {
    CaptureServer upstream(world().topology.internet(), shared(443));
    EXPECT_PRED1(was_served, exchange(guest(), upstream.endpoint(), std::string()));
    EXPECT_EQ(upstream.captured(), std::vector<std::string>{""});
}

TEST_P(EvasionMore, B49_both_sides_may_close_at_once) {
    const TcpServer hasty(world().topology.internet(), shared(443), [](TcpStream& stream) {
        stream.receive(client_hello(kGood).size());
        stream.finish();
        EXPECT_EQ(stream.receive_to_end().end, End::kFin);
    });
    auto stream = TcpStream::connect(guest(), hasty.endpoint());
    ASSERT_TRUE(stream.has_value());
    stream->send(client_hello(kGood));
    stream->finish();
    EXPECT_EQ(stream->receive_to_end().end, End::kFin);
}

INSTANTIATE_TEST_SUITE_P(More, EvasionMore,
                         testing::Combine(testing::Values(0), testing::Values(&ipv4(), &ipv6())),
                         [](const auto& of) { return std::get<1>(of.param)->name; });

} // namespace
} // namespace tapgate::test
