// SPDX-License-Identifier: Apache-2.0
#include "datapath/policy_image.hpp"

#include "datapath/datapath.hpp"
#include "datapath/name_id.hpp"
#include "tapgate/siphash.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>

namespace tapgate::datapath {

namespace {

// Buckets are filled to three quarters at most before there are twice as many.
constexpr std::size_t kNamesPerBucket = TG_NAMES_PER_BUCKET * 3 / 4;

/// A half of an address as a number.
std::uint64_t word_of(const IpAddress& address, std::size_t at) {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < 8; ++i)
        word = word << 8U | address.bytes().at(at + i);
    return word;
}

/// An OPT record with an Extended DNS Error in it, as tap_ingress copies it into its answer to a denied name:
///
///     root(1) type(2)=41 udp size(2) ttl(4)=0 rdlength(2) option                             RFC 6891 6.1.2
///     option := code(2)=15 length(2) info code(2)=18 text                                        RFC 8914 2
std::vector<std::uint8_t> denial_record(std::string_view text) {
    constexpr std::uint16_t kOpt = 41;
    constexpr std::uint16_t kExtendedError = 15;
    constexpr std::uint16_t kProhibited = 18;
    constexpr std::size_t kMaxText = 200; // the parser of policies takes no longer one
    TAPGATE_ASSERT(text.size() <= kMaxText);
    std::vector<std::uint8_t> record;
    const auto put16 = [&record](std::size_t value) {
        record.push_back(static_cast<std::uint8_t>(value >> 8U));
        record.push_back(static_cast<std::uint8_t>(value & 0xffU));
    };
    record.push_back(0);
    put16(kOpt);
    put16(TG_DNS_PAYLOAD_MAX);
    put16(0);
    put16(0);
    put16(6 + text.size());
    put16(kExtendedError);
    put16(2 + text.size());
    put16(kProhibited);
    record.insert(record.end(), text.begin(), text.end());
    return record;
}

tg_policy_set to_set(const policy::RuleGroupSet& set) {
    static const policy::RuleGroupSet low_word(~std::uint64_t{0});
    tg_policy_set out{};
    for (std::size_t i = 0; i < TG_SET_WORDS; ++i)
        out.words[i] = ((set >> (i * 64)) & low_word).to_ullong();
    return out;
}

static_assert(policy::kMaxRuleGroups == TG_RULE_GROUPS_MAX);

/// A hash table in which each name is in one of two buckets (struct tg_policy_name).
class NameTable {
  public:
    explicit NameTable(std::size_t names)
        : buckets_(std::bit_ceil(std::max<std::size_t>(1, names / kNamesPerBucket))) {}

    /// False if both buckets of the name are full.
    bool insert(const tg_policy_name& name) {
        tg_policy_name* low = free_place(name.name_id);
        tg_policy_name* high = free_place(name.name_id >> 32U);
        // Into the emptier one, so that full ones are rare.
        const auto filled = [this](const tg_policy_name* place) {
            const std::size_t offset =
                static_cast<std::size_t>(reinterpret_cast<const std::byte*>(place) -
                                         reinterpret_cast<const std::byte*>(buckets_.data()));
            return offset % sizeof(tg_policy_block);
        };
        tg_policy_name* place = low == nullptr ? high : low;
        if (low != nullptr && high != nullptr && filled(high) < filled(low))
            place = high;
        if (place == nullptr)
            return false;
        *place = name;
        return true;
    }

    [[nodiscard]] std::span<const tg_policy_block> buckets() const { return buckets_; }

  private:
    tg_policy_name* free_place(std::uint64_t hash) {
        tg_policy_block& bucket = buckets_[hash & (buckets_.size() - 1)];
        const auto place = std::ranges::find(bucket.names, 0U, &tg_policy_name::name_id);
        return place == std::end(bucket.names) ? nullptr : place;
    }

    std::vector<tg_policy_block> buckets_;
};

class ImageBuilder {
  public:
    ImageBuilder(const policy::Tables& tables, const tg_hash_key& key) : tables_(tables), key_(key) {
        image_.resize(1); // the head
    }

    PolicyImage build(std::uint64_t generation) {
        tg_policy_head head{};
        head.generation = generation;
        for (const policy::RuleGroupSet& set : tables_.sets)
            image_.emplace_back().set = to_set(set);
        head.allow_set = add_set(tables_.allow);
        head.domain_set = add_set(tables_.domain);
        head.cname_set = tables_.cname.any() ? add_set(tables_.cname) : TG_POLICY_EMPTY_SET;
        head.host_set = block_of(tables_.host_group);
        head.suffix_labels = tables_.suffix_labels;
        head.query_set = add_set(tables_.query);
        head.query_name_set = add_set(tables_.query_names);
        head.default_allows[TG_EGRESS] = tables_.default_egress_allows;
        head.default_allows[TG_INGRESS] = tables_.default_ingress_allows;
        head.addresses = add_addresses();
        head.services = add_services();
        head.names = add_names();
        add_denial(head);
        image_.front().head = head;
        return std::move(image_);
    }

  private:
    [[nodiscard]] std::uint32_t next_block() const { return static_cast<std::uint32_t>(image_.size()); }

    /// Set 0 is the empty one and comes first.
    [[nodiscard]] static std::uint32_t block_of(policy::SetIndex set) { return TG_POLICY_EMPTY_SET + set; }

    std::uint32_t add_set(const policy::RuleGroupSet& set) {
        image_.emplace_back().set = to_set(set);
        return next_block() - 1;
    }

    tg_policy_table add_ranges(const std::vector<tg_policy_range>& ranges) {
        const tg_policy_table table{next_block(), static_cast<std::uint32_t>(ranges.size())};
        for (std::size_t i = 0; i < ranges.size(); ++i) {
            if (i % TG_RANGES_PER_BLOCK == 0)
                image_.emplace_back();
            image_.back().ranges[i % TG_RANGES_PER_BLOCK] = ranges[i];
        }
        return table;
    }

    tg_policy_table add_addresses() {
        std::vector<tg_policy_range> ranges;
        ranges.reserve(tables_.addresses.size());
        for (const policy::Tables::AddressRange& range : tables_.addresses) {
            tg_policy_range& out = ranges.emplace_back();
            out.high = word_of(range.first, 0);
            out.low = word_of(range.first, 8);
            out.block_set = block_of(range.blocks);
            out.set = block_of(range.group);
            out.flags = (range.meta ? TG_RANGE_META : 0U) | (range.declared ? TG_RANGE_DECLARED : 0U);
        }
        return add_ranges(ranges);
    }

    tg_policy_table add_services() {
        std::vector<tg_policy_range> ranges;
        for (const policy::Tables::ServiceRange& range : tables_.services) {
            tg_policy_range& out = ranges.emplace_back();
            const auto direction = range.direction == policy::Direction::kIngress ? TG_INGRESS : TG_EGRESS;
            out.low = TG_SERVICE_KEY(direction, ip_protocol(range.protocol), range.first_port);
            out.set = block_of(range.groups);
        }
        std::ranges::sort(ranges, {}, &tg_policy_range::low);
        return add_ranges(ranges);
    }

    tg_policy_table add_names() {
        std::vector<tg_policy_name> names;
        names.reserve(tables_.names.size());
        for (const policy::Tables::NameEntry& entry : tables_.names) {
            const auto set_of = [](policy::SetIndex set) { return set == 0 ? 0 : block_of(set); };
            names.push_back({name_id(key_, entry.name), set_of(entry.exact), set_of(entry.suffix)});
        }
        for (std::size_t room = names.size();; room *= 2) {
            NameTable table(room);
            if (!std::ranges::all_of(names, [&](const tg_policy_name& name) { return table.insert(name); }))
                continue;
            const auto buckets = table.buckets();
            const tg_policy_table out{next_block(), static_cast<std::uint32_t>(buckets.size() - 1)};
            image_.insert(image_.end(), buckets.begin(), buckets.end());
            return out;
        }
    }

    void add_denial(tg_policy_head& head) {
        const std::vector<std::uint8_t> record = denial_record(tables_.deny_text);
        head.denial_block = next_block();
        head.denial_length = static_cast<std::uint32_t>(record.size());
        image_.resize(image_.size() + TG_DENIAL_BLOCKS);
        std::span<tg_policy_block> blocks = std::span(image_).last(TG_DENIAL_BLOCKS);
        TAPGATE_ASSERT(record.size() <= blocks.size_bytes());
        std::memcpy(blocks.data(), record.data(), record.size());
    }

    const policy::Tables& tables_;
    const tg_hash_key& key_;
    PolicyImage image_;
};

} // namespace

Result<PolicyImage> build_policy_image(const policy::Tables& tables, std::uint64_t generation,
                                       const tg_hash_key& key) {
    PolicyImage image = ImageBuilder(tables, key).build(generation);
    if (image.size() > TG_POLICY_BLOCKS_MAX)
        return fail(ErrorCode::kLimit,
                    fmt::format("the policy needs {} MiB in the kernel; at most {} are possible",
                                image.size() / 8192, TG_POLICY_BLOCKS_MAX / 8192));
    return image;
}

std::uint64_t policy_digest(const tg_hash_key& key, std::string_view name, std::string_view text,
                            const PolicyImage& image) {
    tg_siphash hash{};
    tg_siphash_start(&hash, key.k0, key.k1);
    const auto add = [&hash](std::span<const std::byte> bytes) {
        tg_siphash_word(&hash, bytes.size());
        while (!bytes.empty()) {
            std::uint64_t word = 0;
            const std::size_t length = std::min(bytes.size(), sizeof word);
            std::memcpy(&word, bytes.data(), length);
            tg_siphash_word(&hash, word);
            bytes = bytes.subspan(length);
        }
    };
    add(std::as_bytes(std::span(name)));
    add(std::as_bytes(std::span(text)));
    tg_policy_block head = image.front();
    head.head.generation = 0;
    add(std::as_bytes(std::span(&head, 1)));
    add(std::as_bytes(std::span(image).subspan(1)));
    const std::uint64_t digest = tg_siphash_finish(&hash, 0, 0);
    return digest != 0 ? digest : 1;
}

} // namespace tapgate::datapath
