// SPDX-License-Identifier: Apache-2.0
#include "base/result.hpp"
#include "proto/http_request.hpp"
#include "proxy/http_framing.hpp"
#include "tests/fuzz/http_reference.hpp"

#include <algorithm>

// One input is read twice: as a request with its body, and as what a server answers to a few requests.
namespace tapgate::proxy {
namespace {

std::string_view text(ByteView bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Body {
    HttpBody::Status status = HttpBody::Status::kMore;
    std::size_t taken = 0;
};

/// The body that follows `head` in `rest`, of which `piece` bytes more are there each time.
Body read_body(ByteView head, ByteView rest, std::size_t piece) {
    HttpBody body(head);
    Body read;
    for (std::size_t size = 0; size < rest.size() && body.status() == HttpBody::Status::kMore;) {
        size = std::min(rest.size(), size + piece);
        const std::size_t taken = body.take(rest.subspan(read.taken, size - read.taken));
        TAPGATE_ASSERT(taken <= size - read.taken);
        read.taken += taken;
    }
    read.status = body.status();
    return read;
}

void check_body(ByteView stream) {
    proto::HttpRequestParser parser;
    if (parser.update(stream) != proto::PeekStatus::kDone)
        return;
    const ByteView head = stream.first(parser.head_size());
    const ByteView rest = stream.subspan(head.size());
    const Body whole = read_body(head, rest, rest.size());
    const BodyEnd reference = body_end(text(head), text(rest));
    switch (whole.status) {
    case HttpBody::Status::kMore:
        // Trailers are judged, and taken, once their end is there.
        TAPGATE_ASSERT(reference.how == BodyEnd::How::kUnfinished ||
                       (reference.how == BodyEnd::How::kNowhere && whole.taken <= reference.at));
        break;
    case HttpBody::Status::kDone:
        TAPGATE_ASSERT(reference.how == BodyEnd::How::kAt && reference.at == whole.taken);
        break;
    case HttpBody::Status::kBroken:
        break; // Beast may be the stricter one
    }
    for (const std::size_t piece : {std::size_t{1}, std::size_t{3}, 1 + rest.size() / 2}) {
        const Body cut = read_body(head, rest, piece);
        TAPGATE_ASSERT(cut.status == whole.status);
        TAPGATE_ASSERT(cut.status == HttpBody::Status::kBroken || cut.taken == whole.taken);
    }
}

void check_answers(ByteView stream) {
    using Asked = HttpAnswers::Asked;
    if (stream.empty())
        return;
    const auto read = [&](HttpAnswers& answers, std::size_t piece) {
        // Two bits of the first byte for each request.
        for (const unsigned shift : {0U, 2U, 4U})
            answers.expect(static_cast<Asked>(stream[0] >> shift & 3U));
        for (std::size_t at = 1; at < stream.size(); at += std::min(piece, stream.size() - at))
            answers.take(stream.subspan(at, std::min(piece, stream.size() - at)));
    };
    HttpAnswers whole;
    read(whole, stream.size());
    for (const std::size_t piece : {std::size_t{1}, 1 + stream.size() / 2}) {
        HttpAnswers cut;
        read(cut, piece);
        TAPGATE_ASSERT(cut.outstanding() == whole.outstanding());
        TAPGATE_ASSERT(cut.has_switched() == whole.has_switched());
        TAPGATE_ASSERT(cut.is_between_answers() == whole.is_between_answers());
        // Beast may put off a head that is wrong and comes in pieces until it has the end of it.
        TAPGATE_ASSERT(whole.is_over() || !cut.is_over());
    }
    TAPGATE_ASSERT(!whole.is_between_answers() || !whole.is_over());
    whole.end();
    TAPGATE_ASSERT(whole.is_over() && !whole.is_between_answers());
}

} // namespace
} // namespace tapgate::proxy

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    tapgate::proxy::check_body({data, size});
    tapgate::proxy::check_answers({data, size});
    return 0;
}
