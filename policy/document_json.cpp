// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"
#include "policy/document.hpp"

#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/parse.hpp>
#include <fmt/format.h>

#include <charconv>
#include <unordered_set>

namespace tapgate::policy {

namespace {

/// Takes no values: Boost's parser is used here as the judge of what is JSON (RFC 8259).
struct SyntaxOnly {
    using Code = boost::json::error_code;
    using Text = boost::json::string_view;
    static constexpr std::size_t max_object_size = static_cast<std::size_t>(-1);
    static constexpr std::size_t max_array_size = static_cast<std::size_t>(-1);
    static constexpr std::size_t max_key_size = static_cast<std::size_t>(-1);
    static constexpr std::size_t max_string_size = static_cast<std::size_t>(-1);

    bool on_document_begin(Code&) { return true; }

    bool on_document_end(Code&) { return true; }

    bool on_object_begin(Code&) { return true; }

    bool on_object_end(std::size_t, Code&) { return true; }

    bool on_array_begin(Code&) { return true; }

    bool on_array_end(std::size_t, Code&) { return true; }

    bool on_key_part(Text, std::size_t, Code&) { return true; }

    bool on_key(Text, std::size_t, Code&) { return true; }

    bool on_string_part(Text, std::size_t, Code&) { return true; }

    bool on_string(Text, std::size_t, Code&) { return true; }

    bool on_number_part(Text, Code&) { return true; }

    bool on_int64(std::int64_t, Text, Code&) { return true; }

    bool on_uint64(std::uint64_t, Text, Code&) { return true; }

    bool on_double(double, Text, Code&) { return true; }

    bool on_bool(bool, Code&) { return true; }

    bool on_null(Code&) { return true; }

    bool on_comment_part(Text, Code&) { return true; }

    bool on_comment(Text, Code&) { return true; }
};

/// Turns offsets into lines and columns. Offsets must be asked for in ascending order, so that a file of one
/// long line costs linear time.
class LineCounter {
  public:
    LineCounter(std::string_view text, std::uint32_t first_line) : text_(text), where_{first_line, 1} {}

    SourceLocation at(std::size_t offset) {
        for (; offset_ < offset && offset_ < text_.size(); ++offset_) {
            const auto byte = static_cast<unsigned char>(text_[offset_]);
            if (byte == '\n')
                where_ = {where_.line + 1, 1};
            else if ((byte & 0xc0U) != 0x80U) // continuation bytes of UTF-8 are no characters
                ++where_.column;
        }
        return where_;
    }

  private:
    std::string_view text_;
    std::size_t offset_ = 0;
    SourceLocation where_;
};

/// The first member whose key another one has before it; null if there is none.
const DocumentMember* repeated_key(const DocumentNode::Table& members) {
    if (members.size() <= 8) { // most objects are rules: a hash table would cost more than the rest
        for (auto member = members.begin(); member != members.end(); ++member)
            if (std::find_if(members.begin(), member, [&](const DocumentMember& earlier) {
                    return earlier.key == member->key;
                }) != member)
                return &*member;
        return nullptr;
    }
    std::unordered_set<std::string_view> keys;
    for (const DocumentMember& member : members)
        if (!keys.insert(member.key).second)
            return &member;
    return nullptr;
}

/// What would be right, for the mistakes that are made most.
std::string_view hint_for(const boost::json::error_code& error) {
    if (error == boost::json::error::syntax)
        return "; JSON has no comments, no trailing commas, and double quotes alone";
    if (error == boost::json::error::incomplete)
        return "; the file is cut short";
    if (error == boost::json::error::extra_data)
        return "; one object is all there may be";
    return {};
}

/// Builds the located tree of text that Boost.JSON has accepted; nothing is checked again but what JSON
/// leaves open: keys that stand twice.
class TreeBuilder {
  public:
    TreeBuilder(std::string_view text, std::string_view file, std::uint32_t first_line)
        : text_(text), file_(file), lines_(text, first_line) {}

    Result<DocumentNode> root(const StreamedList* streamed) { return value(streamed); }

  private:
    /// `streamed` is for the members of this value, if it is an object.
    Result<DocumentNode> value(const StreamedList* streamed = nullptr) {
        skip_space();
        DocumentNode node;
        node.location = lines_.at(offset_);
        switch (text_[offset_]) {
        case '{':
            return object(std::move(node), streamed);
        case '[':
            return array(std::move(node));
        case '"':
            node.value = string();
            return node;
        case 't':
        case 'f':
            node.value = scalar() == "true";
            return node;
        case 'n':
            scalar();
            return node;
        default:
            break;
        }
        const std::string_view number = scalar();
        std::int64_t integer = 0;
        const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), integer);
        if (error == std::errc{} && end == number.data() + number.size())
            node.value = integer;
        else
            node.value = DocumentOther{"a fraction"};
        return node;
    }

    void skip_space() { offset_ = std::min(text_.find_first_not_of(" \t\r\n", offset_), text_.size()); }

    /// Steps over `wanted` if it comes next.
    bool next_is(char wanted) {
        skip_space();
        if (text_[offset_] != wanted)
            return false;
        ++offset_;
        return true;
    }

    std::string_view scalar() {
        const std::size_t end = std::min(text_.find_first_of(" \t\r\n,]}", offset_), text_.size());
        const std::string_view token = text_.substr(offset_, end - offset_);
        offset_ = end;
        return token;
    }

    std::string string() {
        const std::size_t begin = offset_;
        bool escaped = false;
        for (++offset_; text_[offset_] != '"'; ++offset_)
            if (text_[offset_] == '\\') {
                escaped = true;
                ++offset_;
            }
        ++offset_;
        const std::string_view token = text_.substr(begin, offset_ - begin);
        if (!escaped)
            return std::string(token.substr(1, token.size() - 2));
        const boost::json::value plain = boost::json::parse({token.data(), token.size()});
        return {plain.get_string().data(), plain.get_string().size()};
    }

    Result<DocumentNode> array(DocumentNode node) {
        ++offset_;
        DocumentNode::Array items;
        if (!next_is(']'))
            do {
                auto item = value();
                if (!item)
                    return item;
                items.push_back(std::move(*item));
            } while (!next_is(']') && next_is(','));
        node.value = std::move(items);
        return node;
    }

    /// The list at the cursor, given away item by item; an empty list stays.
    Result<DocumentNode> streamed_array(const StreamedList& streamed) {
        DocumentNode node;
        node.location = lines_.at(offset_++);
        if (!next_is(']'))
            do {
                auto item = value();
                if (!item)
                    return item;
                if (const auto taken = streamed.take(*item); !taken)
                    return fail(taken.error());
            } while (!next_is(']') && next_is(','));
        node.value = DocumentNode::Array{};
        return node;
    }

    Result<DocumentNode> object(DocumentNode node, const StreamedList* streamed) {
        ++offset_;
        DocumentNode::Table members;
        if (!next_is('}'))
            do {
                skip_space();
                const SourceLocation where = lines_.at(offset_);
                std::string key = string();
                next_is(':');
                skip_space();
                auto item = streamed != nullptr && key == streamed->key && text_[offset_] == '['
                                ? streamed_array(*streamed)
                                : value();
                if (!item)
                    return item;
                members.push_back({std::move(key), where, std::move(*item)});
            } while (!next_is('}') && next_is(','));
        if (const DocumentMember* second = repeated_key(members))
            return fail(error_at(file_, second->location,
                                 fmt::format("the key '{}' stands twice in one object; keep one",
                                             printable(second->key, 80))));
        node.value = std::move(members);
        return node;
    }

    std::string_view text_;
    std::string_view file_;
    LineCounter lines_;
    std::size_t offset_ = 0;
};

} // namespace

Result<DocumentNode> read_json_document(std::string_view text, std::string_view file,
                                        std::uint32_t first_line, const StreamedList* streamed) {
    boost::json::basic_parser<SyntaxOnly> judge{boost::json::parse_options{}};
    boost::json::error_code error;
    const std::size_t end = judge.write_some(false, text.data(), text.size(), error);
    if (!error && end < text.size())
        error = boost::json::error::extra_data;
    if (error)
        return fail(error_at(file, LineCounter(text, first_line).at(end),
                             fmt::format("this is not JSON: {}{}", error.message(), hint_for(error))));
    return TreeBuilder(text, file, first_line).root(streamed);
}

} // namespace tapgate::policy
