// SPDX-License-Identifier: Apache-2.0
#include "proxy/http_framing.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tapgate::proxy {
namespace {

using Asked = HttpAnswers::Asked;
using Status = HttpBody::Status;

ByteView bytes_of(std::string_view text) {
    return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::string head(std::string_view headers) {
    return "POST / HTTP/1.1\r\nHost: a.test\r\n" + std::string(headers) + "\r\n";
}

/// Bytes of `stream` that belong to the body behind a head with `headers`, given one byte more each time, as
/// the gate holds them; -1 if it is broken.
std::ptrdiff_t body_size(std::string_view headers, std::string_view stream) {
    HttpBody body(bytes_of(head(headers)));
    std::size_t taken = 0;
    for (std::size_t size = 0; size <= stream.size() && body.status() == Status::kMore; ++size)
        taken += body.take(bytes_of(stream.substr(taken, size - taken)));
    if (body.status() == Status::kBroken)
        return -1;
    EXPECT_EQ(body.status(), Status::kDone) << headers << stream;

    HttpBody whole(bytes_of(head(headers)));
    if (whole.status() == Status::kMore) {
        EXPECT_EQ(whole.take(bytes_of(stream)), taken) << stream;
    }
    EXPECT_EQ(whole.status(), Status::kDone) << stream;
    return static_cast<std::ptrdiff_t>(taken);
}

constexpr std::string_view kChunked = "Transfer-Encoding: chunked\r\n";

TEST(HttpBody, a_body_ends_where_its_length_says) {
    EXPECT_EQ(body_size("", "GET"), 0);
    EXPECT_EQ(body_size("Content-Length: 0\r\n", "GET"), 0);
    EXPECT_EQ(body_size("Content-Length: 5\r\n", "12345GET"), 5);
}

TEST(HttpBody, a_chunked_body_ends_behind_its_trailers) {
    EXPECT_EQ(body_size(kChunked, "0\r\n\r\nGET"), 5);
    EXPECT_EQ(body_size(kChunked, "3\r\nabc\r\n0\r\n\r\nGET"), 13);
    EXPECT_EQ(body_size(kChunked, "A\r\n0\r\n\r\nGET \r\r\n0\r\n\r\n"), 20)
        << "chunk data may look like an end";
    EXPECT_EQ(body_size(kChunked, "2;signature=\"x\"\r\nab\r\n0;a\r\nDigest: x\r\n\r\nGET"), 39);
}

TEST(HttpBody, chunks_that_servers_read_differently_are_broken) {
    for (const std::string_view stream : {
             "3\nabc\r\n0\r\n\r\n",            // bare LF
             "3\rabc\r\n0\r\n\r\n",            // bare CR
             "3\r\nabc\n0\r\n\r\n",            // bare LF behind the data
             "3\r\nabcd\r\n0\r\n\r\n",         // more data than said
             "0x3\r\nabc\r\n0\r\n\r\n",        // not hexadecimal digits alone
             "+3\r\nabc\r\n0\r\n\r\n",         // a sign
             "-3\r\nabc\r\n0\r\n\r\n",         //
             " 3\r\nabc\r\n0\r\n\r\n",         // white space in front
             "3 \r\nabc\r\n0\r\n\r\n",         // and behind
             "\r\nabc\r\n0\r\n\r\n",           // no size
             "3;a\nb\r\nabc\r\n0\r\n\r\n",     // LF in an extension
             "3;=\r\nabc\r\n0\r\n\r\n",        // an extension without a name
             "10000000000000003\r\nabc\r\n",   // does not fit 64 bits
             "0\r\nHost: b.test\r\n\r\n",      // a trailer that must not be one
             "0\r\nContent-Length: 5\r\n\r\n", //
             "0\r\nA: b\r\n c\r\n\r\n",        // a folded trailer
             "0\r\nA: b\r\n\t\r\n\r\n",        // a line of blanks is the end for some
             "0\r\n Host: b.test\r\n\r\n",     //
             "3\r\nabc\r\n0;x\r\nA: b\r\n \r\n GET / HTTP/1.1\r\n\r\n",
             "0\r\nTransfer-Encoding: chunked\r\n\r\n",
         })
        EXPECT_EQ(body_size(kChunked, stream), -1) << stream;
}

/// Where the body behind a head with `headers` ends in `stream`, given in pieces of `piece`; nothing if it
/// does not.
std::optional<std::size_t> end_of(std::string_view headers, std::string_view stream, std::size_t piece) {
    HttpBody body(bytes_of(head(headers)));
    std::size_t taken = 0;
    for (std::size_t size = 0; size < stream.size() && body.status() == Status::kMore;) {
        size = std::min(size + piece, stream.size());
        taken += body.take(bytes_of(stream.substr(taken, size - taken)));
    }
    return body.status() == Status::kDone ? std::optional(taken) : std::nullopt;
}

TEST(HttpBody, no_cut_of_any_stream_changes_where_a_body_ends) {
    std::mt19937 random(1);
    const std::array<std::string_view, 12> parts = {"0", "1",   "a",  "\r\n",        "\r",        "\n",
                                                    ";", "x=y", ": ", "2\r\nab\r\n", "0\r\n\r\n", "X: y\r\n"};
    for (int round = 0; round < 20'000; ++round) {
        std::string stream;
        for (auto count = 1 + random() % 8; count > 0; --count)
            stream += parts.at(random() % parts.size());
        const auto whole = end_of(kChunked, stream, stream.size());
        for (const std::size_t piece : {1U, 2U, 3U, 5U, 7U})
            ASSERT_EQ(end_of(kChunked, stream, piece), whole) << stream << " in pieces of " << piece;
    }
}

TEST(HttpBody, a_chunk_line_that_is_broken_early_is_broken_however_it_is_cut) {
    for (const std::string_view stream : {"0\rx", "0\r\x02h", "00\rx"})
        for (const std::size_t piece : {1U, 2U, 100U}) {
            HttpBody body(bytes_of(head(kChunked)));
            for (std::size_t size = 0; size < stream.size() && body.status() == Status::kMore;) {
                size = std::min(size + piece, stream.size());
                EXPECT_EQ(body.take(bytes_of(stream.substr(0, size))), 0U);
            }
            EXPECT_EQ(body.status(), Status::kBroken) << stream << " in pieces of " << piece;
        }
}

TEST(HttpBody, what_is_taken_of_an_unfinished_body_does_not_depend_on_the_cut) {
    for (const auto& [stream, expected] : std::initializer_list<std::pair<std::string_view, std::size_t>>{
             {"3\r\n", 3},
             {"3\r\na", 4},
             {"3;b\r\na", 6},
             {"03\r\n", 4},
             {"3\r\nabc", 6},
             {"3\r\nabc\r", 6},
             {"3\r\nabc\r\n0\r\n", 6},
             {"0", 0},
             {"0\r\n", 0},
             {"0\r\n\r", 0},
             {"000\r\n\r", 0},
             {"0\r\nA", 0},
         }) {
        for (const std::size_t piece : {1U, 2U, 3U, 100U}) {
            HttpBody body(bytes_of(head(kChunked)));
            std::size_t taken = 0;
            // Everything is offered twice, as the gate does when the upstream has said something.
            for (std::size_t size = 0; size < stream.size();) {
                size = std::min(size + piece, stream.size());
                for (int time = 0; time < 2; ++time)
                    taken += body.take(bytes_of(stream.substr(taken, size - taken)));
            }
            EXPECT_EQ(body.status(), Status::kMore) << stream;
            EXPECT_EQ(taken, expected) << stream << " in pieces of " << piece;
        }
    }
}

/// Shows `stream` to `answers` at once or byte by byte.
void show(HttpAnswers& answers, std::string_view stream, bool in_bytes) {
    if (!in_bytes) {
        answers.take(bytes_of(stream));
        return;
    }
    for (std::size_t at = 0; at < stream.size(); ++at)
        answers.take(bytes_of(stream.substr(at, 1)));
}

class HttpAnswersTest : public ::testing::TestWithParam<bool> {
  protected:
    void take(std::string_view stream) { show(answers_, stream, GetParam()); }

    HttpAnswers answers_;
};

TEST_P(HttpAnswersTest, answers_are_counted_off_in_order) {
    EXPECT_TRUE(answers_.is_between_answers());
    answers_.expect(Asked::kOrdinary);
    answers_.expect(Asked::kHead);
    answers_.expect(Asked::kOrdinary);
    EXPECT_FALSE(answers_.is_between_answers());
    take("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab");
    EXPECT_EQ(answers_.outstanding(), 2U);
    take("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n");
    EXPECT_EQ(answers_.outstanding(), 1U);
    take("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n");
    EXPECT_FALSE(answers_.is_between_answers());
    take("\r\n");
    EXPECT_TRUE(answers_.is_between_answers());
    answers_.expect(Asked::kOrdinary);
    take("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n");
    EXPECT_TRUE(answers_.is_between_answers());
}

TEST_P(HttpAnswersTest, an_answer_up_to_the_end_is_under_way_until_then) {
    answers_.expect(Asked::kOrdinary);
    take("HTTP/1.0 200 OK\r\n\r\nhello");
    EXPECT_FALSE(answers_.is_between_answers());
    answers_.end();
    EXPECT_FALSE(answers_.is_between_answers()) << "behind a FIN nothing can be said";
    EXPECT_TRUE(answers_.is_over());
}

TEST_P(HttpAnswersTest, a_switch_is_what_was_asked_for_and_nothing_else) {
    answers_.expect(Asked::kUpgrade);
    take("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05");
    EXPECT_TRUE(answers_.has_switched());

    HttpAnswers tunnel;
    tunnel.expect(Asked::kConnect);
    show(tunnel, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", GetParam());
    EXPECT_TRUE(tunnel.has_switched());

    HttpAnswers declined;
    declined.expect(Asked::kConnect);
    show(declined, "HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", GetParam());
    EXPECT_FALSE(declined.has_switched());
    EXPECT_TRUE(declined.is_between_answers());

    HttpAnswers unasked;
    unasked.expect(Asked::kOrdinary);
    show(unasked, "HTTP/1.1 101 Switching Protocols\r\n\r\n", GetParam());
    EXPECT_FALSE(unasked.has_switched());
    EXPECT_TRUE(unasked.is_over());
}

TEST_P(HttpAnswersTest, what_is_no_answer_loses_the_thread_for_good) {
    answers_.expect(Asked::kOrdinary);
    take("SSH-2.0-x\r\n\r\n");
    EXPECT_TRUE(answers_.is_over());
    take("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    EXPECT_FALSE(answers_.is_between_answers());
}

TEST_P(HttpAnswersTest, an_endless_head_is_not_kept) {
    answers_.expect(Asked::kOrdinary);
    take("HTTP/1.1 200 OK\r\nA: ");
    answers_.take(bytes_of(std::string(70'000, 'x')));
    EXPECT_TRUE(answers_.is_over());
}

INSTANTIATE_TEST_SUITE_P(Cut, HttpAnswersTest, ::testing::Bool(),
                         [](const auto& of) { return of.param ? "in_bytes" : "whole"; });

} // namespace
} // namespace tapgate::proxy
