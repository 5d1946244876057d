// SPDX-License-Identifier: Apache-2.0
#include "proxy/http_framing.hpp"

#include <boost/beast/http/basic_parser.hpp>
#include <boost/none.hpp>

#include <cctype>
#include <cstdint>
#include <limits>
#include <string_view>

namespace tapgate::proxy {

namespace beast = boost::beast;
namespace http = boost::beast::http;

namespace {

/// The most bytes of an answer that are kept because their line or head is unfinished.
constexpr std::size_t kMaxUnread = 64UL * 1024;
constexpr std::size_t kShortestLastChunk = 5; // "0\r\n\r\n"

/// True if `bytes` begin with the line of a last chunk. Behind another chunk they begin with CRLF, and are
/// more than kShortestLastChunk.
bool begin_with_last_chunk(ByteView bytes) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const std::size_t behind = text.find_first_not_of('0');
    if (behind == 0 || behind == std::string_view::npos)
        return false;
    return std::isxdigit(static_cast<unsigned char>(text[behind])) == 0 &&
           text.find("\r\n") != std::string_view::npos;
}

/// A parser that stores nothing: who derives from it looks at what it wants to know.
template <bool IsRequest>
class Framing : public http::basic_parser<IsRequest> {
  public:
    Framing() {
        this->eager(true);
        this->body_limit(boost::none);
        this->header_limit(std::numeric_limits<std::uint32_t>::max()); // the caller limits what it holds
    }

    /// As put(), for bytes; need_more is no error.
    std::size_t feed(ByteView bytes, bool& is_broken) {
        // Shown the last chunk for a second time, Beast asserts that its shortest form is all there.
        if (left_over_ && bytes.size() < kShortestLastChunk && begin_with_last_chunk(bytes))
            return 0;
        beast::error_code error;
        const std::size_t taken = this->put(boost::asio::const_buffer(bytes.data(), bytes.size()), error);
        left_over_ = taken != bytes.size();
        is_broken = error && error != http::error::need_more;
        return taken;
    }

  protected:
    using Text = beast::string_view;
    using Code = beast::error_code;

    void on_request_impl(http::verb /*verb*/, Text /*method*/, Text /*target*/, int /*version*/,
                         Code& /*error*/) override {}

    void on_response_impl(int /*code*/, Text /*reason*/, int /*version*/, Code& /*error*/) override {}

    void on_field_impl(http::field /*field*/, Text /*name*/, Text /*value*/, Code& /*error*/) override {}

    void on_header_impl(Code& /*error*/) override {}

    void on_body_init_impl(const boost::optional<std::uint64_t>& /*length*/, Code& /*error*/) override {}

    std::size_t on_body_impl(Text body, Code& /*error*/) override { return body.size(); }

    void on_chunk_header_impl(std::uint64_t /*size*/, Text /*extensions*/, Code& /*error*/) override {}

    std::size_t on_chunk_body_impl(std::uint64_t /*left*/, Text body, Code& /*error*/) override {
        return body.size();
    }

    void on_finish_impl(Code& /*error*/) override {}

  private:
    bool left_over_ = false;
};

} // namespace

class HttpBody::Parser final : public Framing<true> {
  public:
    /// Of a body that is done and ends at `end`: Beast joins folded lines (RFC 9112 5.2). A server that takes
    /// a line of blanks for the end of the trailers would find another request behind it.
    [[nodiscard]] bool has_folded_trailer(const std::uint8_t* end) const {
        if (trailers_ == nullptr)
            return false;
        const Text trailers(trailers_,
                            static_cast<std::size_t>(reinterpret_cast<const char*>(end) - trailers_));
        return trailers.find("\r\n ") != Text::npos || trailers.find("\r\n\t") != Text::npos;
    }

  private:
    /// The last chunk and its trailers are taken at once, so the text still stands when they are done.
    void on_chunk_header_impl(std::uint64_t size, Text extensions, Code& error) override {
        // Beast takes anything between quotes. A server may take a line feed there for the end of the line,
        // and find another request in what we take for the chunk (B41).
        if (extensions.find_first_of("\r\n") != Text::npos)
            error = http::error::bad_chunk_extension;
        if (size == 0)
            trailers_ = extensions.data() + extensions.size();
    }

    void on_field_impl(http::field field, Text /*name*/, Text /*value*/, Code& error) override {
        // A server that merges trailers into the head would find another Host there. Beast itself refuses
        // those about the body's length.
        if (is_head_over_ && field == http::field::host)
            error = http::error::bad_field;
    }

    void on_header_impl(Code& /*error*/) override { is_head_over_ = true; }

    bool is_head_over_ = false;
    const char* trailers_ = nullptr; ///< the end of the last chunk's line
};

HttpBody::HttpBody(ByteView head) : parser_(std::make_unique<Parser>()) {
    if (take(head) != head.size())
        status_ = Status::kBroken;
}

HttpBody::~HttpBody() = default;

std::size_t HttpBody::take(ByteView bytes) {
    if (bytes.empty())
        return 0;
    bool is_broken = false;
    const std::size_t taken = parser_->feed(bytes, is_broken);
    if (is_broken || (parser_->is_done() && parser_->has_folded_trailer(bytes.data() + taken)))
        status_ = Status::kBroken;
    else if (parser_->is_done())
        status_ = Status::kDone;
    return taken;
}

class HttpAnswers::Parser final : public Framing<false> {
  public:
    explicit Parser(Asked asked) : asked_(asked) { skip(asked == Asked::kHead); }

    [[nodiscard]] bool has_switched() const { return has_switched_; }

    /// 1xx: the final answer is still to come.
    [[nodiscard]] bool is_interim() const { return code_ / 100 == 1; }

  private:
    void on_response_impl(int code, Text /*reason*/, int /*version*/, Code& /*error*/) override {
        code_ = code;
    }

    void on_header_impl(Code& error) override {
        has_switched_ =
            (asked_ == Asked::kUpgrade && code_ == 101) || (asked_ == Asked::kConnect && code_ / 100 == 2);
        // What follows is no message any more. 101 to one who did not ask is nonsense.
        if (has_switched_ || code_ == 101)
            error = http::error::end_of_stream;
    }

    Asked asked_;
    int code_ = 0;
    bool has_switched_ = false;
};

HttpAnswers::HttpAnswers() = default;
HttpAnswers::~HttpAnswers() = default;

void HttpAnswers::take(ByteView bytes) {
    if (is_over())
        return;
    std::vector<std::uint8_t> joined;
    ByteView rest = bytes;
    if (!unread_.empty()) {
        joined.swap(unread_);
        joined.insert(joined.end(), bytes.begin(), bytes.end());
        rest = joined;
    }
    while (!rest.empty()) {
        if (!parser_)
            parser_ =
                std::make_unique<Parser>(outstanding_.empty() ? Asked::kOrdinary : outstanding_.front());
        bool is_broken = false;
        const std::size_t taken = parser_->feed(rest, is_broken);
        if (is_broken) {
            state_ = parser_->has_switched() ? State::kSwitched : State::kLost;
            return;
        }
        rest = rest.subspan(taken);
        if (parser_->is_done()) {
            if (!parser_->is_interim() && !outstanding_.empty())
                outstanding_.pop_front();
            parser_.reset();
        } else if (!rest.empty()) {
            break; // its line is unfinished
        }
    }
    unread_.assign(rest.begin(), rest.end());
    if (unread_.size() > kMaxUnread)
        state_ = State::kLost;
}

void HttpAnswers::end() {
    if (!is_over())
        state_ = State::kEnded;
}

bool HttpAnswers::is_between_answers() const {
    return state_ == State::kFollowing && outstanding_.empty() && !parser_ && unread_.empty();
}

} // namespace tapgate::proxy
