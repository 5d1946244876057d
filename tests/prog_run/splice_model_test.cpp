// SPDX-License-Identifier: Apache-2.0
#include "splice_case.hpp"
#include "tapgate/tcp_rewrite.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string_view>
#include <variant>

// Random segments through random splices: what comes out is, octet by octet, the frame that the builder makes
// from the translated fields. The model never looks at a header; it translates what the segment was made
// from.
namespace tapgate::test {

namespace {

int chosen_rounds() {
    const char* const wish = std::getenv("TAPGATE_TEST_QUICK");
    return wish != nullptr && std::string_view(wish) == "1" ? 2'000 : 20'000;
}

struct Timestamps {
    std::uint32_t value, echo;
};

struct Sack {
    std::vector<std::uint32_t> edges;
};

/// NOPs, unknown options, and what lies behind the end of the list.
struct Verbatim {
    Bytes bytes;
};

using Option = std::variant<Timestamps, Sack, Verbatim>;

struct Writer {
    Bytes out;

    void operator()(const Timestamps& option) {
        append(out, Bytes{8, 10});
        put32(out, option.value);
        put32(out, option.echo);
    }

    void operator()(const Sack& option) {
        put8(out, 5);
        put8(out, static_cast<unsigned>(2 + 4 * option.edges.size()));
        for (const auto edge : option.edges)
            put32(out, edge);
    }

    void operator()(const Verbatim& option) { append(out, option.bytes); }
};

Bytes written(const std::vector<Option>& options) {
    Writer writer;
    for (const auto& option : options)
        std::visit(writer, option);
    return writer.out;
}

class Generator {
  public:
    explicit Generator(std::uint32_t seed) : random_(seed) {}

    std::uint32_t word() { return static_cast<std::uint32_t>(random_()); }

    std::uint32_t below(std::uint32_t limit) { return word() % limit; }

    bool one_in(std::uint32_t n) { return below(n) == 0; }

    /// Near the places where something wraps as often as anywhere else.
    std::uint32_t number() {
        switch (below(4)) {
        case 0:
            return below(1000);
        case 1:
            return 0U - below(1000);
        case 2:
            return 0x80000000U - 500 + below(1000);
        default:
            return word();
        }
    }

    tg_splice_side side() {
        tg_splice_side side{};
        side.delta = number();
        side.acked = number();
        side.floor = side.acked - below(1U << 20U);
        side.end = side.acked + below(1U << 20U);
        side.ts_base = number();
        if (one_in(2)) {
            side.flags = TG_SPLICE_CLOCK;
            side.ts_delta = number();
        }
        side.scale = static_cast<std::uint8_t>(below(15));
        side.shown_scale = static_cast<std::uint8_t>(below(15));
        return side;
    }

    /// A well-formed list, of at most forty octets and whole words.
    std::vector<Option> options() {
        std::vector<Option> list;
        bool timestamps = false;
        bool sack = false;
        for (std::uint32_t left = below(8); left > 0; --left) {
            auto longer = list;
            switch (below(4)) {
            case 0:
                if (timestamps)
                    continue;
                longer.emplace_back(Timestamps{number(), one_in(4) ? 0 : number()});
                break;
            case 1: {
                if (sack)
                    continue;
                Sack blocks;
                blocks.edges.resize(std::size_t{2} * (1 + below(4)));
                std::ranges::generate(blocks.edges, [this] { return number(); });
                longer.emplace_back(blocks);
                break;
            }
            case 2: {
                Bytes unknown{static_cast<std::uint8_t>(200 + below(50)), 0};
                unknown.resize(2 + below(8), 0x08); // values that look like kinds
                unknown[1] = static_cast<std::uint8_t>(unknown.size());
                longer.emplace_back(Verbatim{unknown});
                break;
            }
            default:
                longer.emplace_back(Verbatim{{1}});
            }
            if (written(longer).size() > 40)
                break;
            timestamps = timestamps || std::holds_alternative<Timestamps>(longer.back());
            sack = sack || std::holds_alternative<Sack>(longer.back());
            list = std::move(longer);
        }
        Bytes rest((4 - written(list).size() % 4) % 4, 1);
        if (!rest.empty() && one_in(2)) {
            rest[0] = 0;
            std::fill(rest.begin() + 1, rest.end(), std::uint8_t{8});
        }
        list.emplace_back(Verbatim{rest});
        return list;
    }

    TcpFields segment(const tg_splice_side& from, const tg_splice_side& to) {
        TcpFields fields;
        fields.sequence = from.floor + below(1U << 20U);
        fields.acknowledgement = to.end + to.delta - below(1U << 20U);
        fields.flags = static_cast<std::uint8_t>(kAck | (word() & (kPsh | kFin | 0x20U | 0x40U | 0x80U)));
        fields.window = static_cast<std::uint16_t>(word());
        fields.urgent = static_cast<std::uint16_t>(word());
        fields.payload.resize(one_in(3) ? 0 : below(1380));
        std::ranges::generate(fields.payload, [this] { return static_cast<std::uint8_t>(word()); });
        return fields;
    }

  private:
    std::mt19937 random_;
};

/// What the splice has to make of a segment.
class Model {
  public:
    Model(const tg_splice_side& from, const tg_splice_side& to) : from_(from), to_(to) {}

    TcpFields translate(TcpFields fields, std::vector<Option> options) {
        fields.sequence += from_.delta;
        fields.acknowledgement -= to_.delta;
        const std::uint64_t room = std::uint64_t{fields.window} * (1ULL << from_.scale);
        fields.window =
            static_cast<std::uint16_t>(std::min<std::uint64_t>(room / (1ULL << from_.shown_scale), 65535));
        for (Option& option : options) {
            if (auto* const timestamps = std::get_if<Timestamps>(&option))
                translate(*timestamps);
            if (auto* const sack = std::get_if<Sack>(&option))
                for (auto& edge : sack->edges)
                    edge -= to_.delta;
        }
        fields.options = written(options);
        return fields;
    }

  private:
    void translate(Timestamps& timestamps) const {
        const bool known = (from_.flags & TG_SPLICE_CLOCK) != 0;
        timestamps.value = known ? timestamps.value + from_.ts_delta : from_.ts_base;
        if ((to_.flags & TG_SPLICE_CLOCK) == 0)
            timestamps.echo = 0;
        if (timestamps.echo != 0)
            timestamps.echo -= to_.ts_delta;
    }

    tg_splice_side from_;
    tg_splice_side to_;
};

/// The same by the rewrite as it is compiled for this test: a header without ports and checksum.
Bytes rewritten_here(const Bytes& segment, const tg_splice_side& from, const tg_splice_side& to) {
    const std::size_t length = (segment[12] >> 4U) * std::size_t{4};
    tg_tcp tcp{};
    std::memcpy(&tcp, segment.data(), length);
    tg_tcp_options found{};
    EXPECT_TRUE(tg_find_options(&tcp, static_cast<std::uint32_t>(length - 20), &found));
    tg_rewrite rewrite{};
    rewrite.sequence = from.delta;
    rewrite.acknowledgement = to.delta;
    rewrite.tsval = from.ts_delta;
    if ((from.flags & TG_SPLICE_CLOCK) == 0 && found.timestamps != 0)
        rewrite.tsval = from.ts_base - tg_option_word(&tcp, found.timestamps);
    rewrite.tsecr = to.ts_delta;
    rewrite.no_echo = (to.flags & TG_SPLICE_CLOCK) == 0 ? 1 : 0;
    rewrite.scale = from.scale;
    rewrite.shown_scale = from.shown_scale;
    tg_rewrite_tcp(&tcp, &found, &rewrite);
    Bytes out(length);
    std::memcpy(out.data(), &tcp, length);
    return out;
}

Bytes segment_of(const Bytes& frame) {
    return Bytes(frame.begin() + (frame[12] == 0x86 ? 54 : 34), frame.end());
}

class SpliceModelTest : public ProgRunTest {};

TEST_F(SpliceModelTest, what_comes_out_is_the_frame_made_of_the_translated_fields) {
    const char* const seed_text = std::getenv("TAPGATE_SEED");
    const auto seed = seed_text != nullptr ? static_cast<std::uint32_t>(std::strtoul(seed_text, nullptr, 10))
                                           : std::random_device{}();
    SCOPED_TRACE("TAPGATE_SEED=" + std::to_string(seed));
    Generator generator(seed);
    const unsigned tap = Programs::tap_ifindex();
    const unsigned uplink = Programs::uplink_ifindex();
    for (int round = chosen_rounds(); round > 0 && !HasFailure(); --round) {
        SCOPED_TRACE(round);
        SpliceCase flow(*std::next(families().begin(), generator.below(2)));
        for (auto& side : flow.splice.sides)
            side = generator.side();
        flow.store();
        const bool from_guest = generator.one_in(2);
        const auto& from = flow.splice.sides[from_guest ? TG_SPLICE_GUEST : TG_SPLICE_SERVER];
        const auto& to = flow.splice.sides[from_guest ? TG_SPLICE_SERVER : TG_SPLICE_GUEST];
        const auto options = generator.options();
        auto fields = generator.segment(from, to);
        fields.options = written(options);
        const unsigned hops = 2 + generator.below(254);

        Bytes sent = from_guest ? flow.on_tap(fields, true, hops) : flow.on_uplink(fields, false, hops);
        const Bytes segment = segment_of(sent);
        const TcpFields translated = Model(from, to).translate(fields, options);
        Bytes expected = from_guest ? flow.on_uplink(translated, true, hops - 1)
                                    : flow.on_tap(translated, false, hops - 1);

        Bytes header = segment_of(expected);
        Bytes here = rewritten_here(segment, from, to);
        header.resize(here.size());
        for (Bytes* const either : {&header, &here}) {
            std::fill_n(either->begin(), 4, std::uint8_t{0});      // ports
            std::fill_n(either->begin() + 16, 2, std::uint8_t{0}); // checksum
        }
        ASSERT_EQ(here, header);

        const bool damaged = generator.one_in(8);
        const std::size_t checksum = sent.size() - segment.size() + 16;
        if (damaged)
            set16(sent, checksum, generator.below(0xffff));
        const RunResult result = from_guest ? product().act_on("tap_ingress", sent, tap)
                                            : product().act_on("uplink_ingress", sent, uplink);
        ASSERT_EQ(result.action, kRedirect);
        if (!damaged) {
            ASSERT_EQ(result.packet, expected);
            continue;
        }
        // A wrong checksum stays wrong by as much.
        const auto wrong_by = [from_guest, &flow](const Bytes& frame, bool tap_side) {
            const auto& near = tap_side ? flow.family.guest : flow.family.uplink;
            const auto& far = tap_side ? flow.seen : flow.family.server;
            return transport_checksum(from_guest ? near : far, from_guest ? far : near, IPPROTO_TCP,
                                      segment_of(frame)) %
                   0xffffU;
        };
        ASSERT_EQ(wrong_by(result.packet, !from_guest), wrong_by(sent, from_guest));
        Bytes out = result.packet;
        for (Bytes* const either : {&out, &expected})
            set16(*either, checksum, 0);
        ASSERT_EQ(out, expected);
    }
}

} // namespace

} // namespace tapgate::test
