// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/bytes.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

// Where HTTP/1 messages end on a connection. Framing alone: what a request head says is read by
// proto::HttpRequestParser, which is strict; here Boost.Beast counts.
namespace tapgate::proxy {

/// The body behind one request head.
class HttpBody {
  public:
    enum class Status : std::uint8_t {
        kMore,   ///< something is still to come
        kDone,   ///< the next byte is the next request's
        kBroken, ///< it does not end at a place that can be told, or has a trailer that must not be one
    };

    /// `head` is a whole head that proto::HttpRequestParser accepts.
    explicit HttpBody(ByteView head);
    ~HttpBody();
    HttpBody(const HttpBody&) = delete;
    HttpBody& operator=(const HttpBody&) = delete;

    /// Judges `bytes`, which follow those taken before; how many of them it takes. Only while kMore. What is
    /// not taken is to be offered again with more behind it: the line of a chunk is taken as a whole.
    std::size_t take(ByteView bytes);

    [[nodiscard]] Status status() const { return status_; }

  private:
    class Parser;
    std::unique_ptr<Parser> parser_;
    Status status_ = Status::kMore;
};

/// Follows the responses on a connection, in order to know where they stand.
///
/// What it is shown goes to the guest whatever it makes of it. Once it has lost the thread (kLost) it knows
/// nothing any more, and takes a response to be under way for ever.
class HttpAnswers {
  public:
    /// What an answer's shape depends on.
    enum class Asked : std::uint8_t {
        kOrdinary,
        kHead,    ///< its answer has no body
        kConnect, ///< a 2xx ends HTTP on the connection
        kUpgrade, ///< a 101 ends HTTP on the connection
    };

    HttpAnswers();
    ~HttpAnswers();
    HttpAnswers(const HttpAnswers&) = delete;
    HttpAnswers& operator=(const HttpAnswers&) = delete;

    /// A request went upstream.
    void expect(Asked asked) { outstanding_.push_back(asked); }

    void take(ByteView bytes);
    /// The upstream has sent its FIN.
    void end();

    /// Requests without a final answer.
    [[nodiscard]] std::size_t outstanding() const { return outstanding_.size(); }

    /// The server has agreed to what CONNECT or Upgrade asked for.
    [[nodiscard]] bool has_switched() const { return state_ == State::kSwitched; }

    /// True if no further answer will be understood.
    [[nodiscard]] bool is_over() const { return state_ != State::kFollowing; }

    /// True if every request is answered and no answer is half sent: where a response of our own may stand.
    [[nodiscard]] bool is_between_answers() const;

  private:
    enum class State : std::uint8_t { kFollowing, kSwitched, kEnded, kLost };
    class Parser;

    std::deque<Asked> outstanding_;
    std::unique_ptr<Parser> parser_; ///< of the answer under way
    std::vector<std::uint8_t> unread_;
    State state_ = State::kFollowing;
};

} // namespace tapgate::proxy
