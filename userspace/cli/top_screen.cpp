// SPDX-License-Identifier: Apache-2.0
#include "cli/top_screen.hpp"

#include "cli/reply.hpp"
#include "cli/table.hpp"
#include "cli/units.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tapgate::cli {

namespace json = boost::json;

namespace {

constexpr std::string_view kKeys = "q quit   p pause";
/// The first sample has nothing to compare with.
constexpr std::string_view kNoRate = "-";

std::uint64_t count(const json::object& object, std::string_view key) {
    return static_cast<std::uint64_t>(std::max<std::int64_t>(0, number(object, key)));
}

std::uint64_t per_second(std::uint64_t before, std::uint64_t now, double seconds) {
    return now <= before || seconds <= 0
               ? 0
               : static_cast<std::uint64_t>(static_cast<double>(now - before) / seconds);
}

std::uint64_t drops_of(const json::object& object) {
    std::uint64_t total = 0;
    for (const json::value& drop : list(object, "drops"))
        total += count(as_object(drop), "packets");
    return total;
}

/// Lines of a table with its first `rows` rows; a last line says how many are not shown.
template <typename Rows, typename Cells>
void append_table(std::vector<std::string>& lines, std::vector<std::string> header, const Rows& all,
                  std::size_t rows, const Cells& cells) {
    if (rows < 2)
        return;
    const bool is_cut = all.size() > rows - 1;
    const std::size_t shown = is_cut ? rows - 2 : all.size();
    Table table(std::move(header));
    for (std::size_t i = 0; i < shown; ++i)
        table.add(cells(all[i]));
    const std::string text = table.text();
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = text.find('\n', begin);
        lines.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    if (is_cut)
        lines.push_back(fmt::format("and {} more", all.size() - shown));
}

} // namespace

void TopScreen::sample(const json::object& status, const json::object& guests, const json::object& flows,
                       Clock::time_point now) {
    const bool is_first = sampled_ == Clock::time_point();
    const double seconds = std::chrono::duration<double>(now - sampled_).count();
    const auto rate = [&](std::uint64_t value) {
        return is_first ? std::string(kNoRate) : format_bytes(value) + "/s";
    };
    sampled_ = now;

    std::map<std::int64_t, Bytes> flow_bytes;
    std::map<std::string, Bytes> guest_rates;
    Bytes total;
    flows_.clear();
    for (const json::value& value : list(flows, "flows")) {
        const json::object& flow = as_object(value);
        const Bytes bytes{count(flow, "bytes_up"), count(flow, "bytes_down")};
        const std::int64_t id = number(flow, "id");
        const Bytes before = flow_bytes_.contains(id) ? flow_bytes_.at(id) : Bytes();
        const Bytes rates{per_second(before.up, bytes.up, seconds),
                          per_second(before.down, bytes.down, seconds)};
        flow_bytes[id] = bytes;
        Bytes& guest = guest_rates[cell(flow, "guest")];
        guest.up += rates.up;
        guest.down += rates.down;
        total.up += rates.up;
        total.down += rates.down;
        flows_.push_back({rates.up + rates.down,
                          {cell(flow, "guest"), cell(flow, "destination"), cell(flow, "name"),
                           cell(flow, "state"), cell(flow, "splice"), rate(rates.up), rate(rates.down),
                           format_duration(std::chrono::seconds(number(flow, "age_seconds")))}});
    }
    flow_bytes_ = std::move(flow_bytes);

    std::map<std::string, std::uint64_t> guest_drops;
    guests_.clear();
    for (const json::value& value : list(guests, "guests")) {
        const json::object& guest = as_object(value);
        const std::string name = cell(guest, "name");
        const std::uint64_t drops = drops_of(guest);
        const auto before = guest_drops_.find(name);
        const std::uint64_t drop_rate =
            before == guest_drops_.end() ? 0 : per_second(before->second, drops, seconds);
        guest_drops[name] = drops;
        const Bytes rates = guest_rates[name];
        guests_.push_back(
            {rates.up + rates.down + drop_rate,
             {name, cell(guest, "state"), cell(guest, "policy"), cell(guest, "generation"),
              cell(guest, "sessions"), cell(guest, "bindings"), rate(rates.up), rate(rates.down),
              fmt::format("{}", drops), is_first ? std::string(kNoRate) : fmt::format("{}/s", drop_rate)}});
    }
    guest_drops_ = std::move(guest_drops);
    for (std::vector<Row>* rows : {&guests_, &flows_})
        std::ranges::sort(*rows, [](const Row& a, const Row& b) {
            return a.weight != b.weight ? a.weight > b.weight : a.cells < b.cells;
        });

    head_ = fmt::format("tapgate {}  up {}  guests {}  sessions {}  sent {}  received {}  events lost {}",
                        cell(status, "version"),
                        format_duration(std::chrono::seconds(number(status, "uptime_seconds"))),
                        cell(status, "guests"), cell(status, "sessions"), rate(total.up), rate(total.down),
                        count(status, "events_lost") + lost_);
}

void TopScreen::event(const json::object& event) {
    if (text(event, "type") == "lost")
        lost_ += count(event, "count");
    if (text(event, "verdict") != "deny" || text(event, "type") == "flow-end")
        return;
    // The time of day: "2026-01-02T03:04:05.678Z".
    const std::string time = cell(event, "time");
    denials_.push_front({time.size() > 19 ? time.substr(11, 8) : time, cell(event, "guest"),
                         cell(event, "type"), cell(event, "name"), cell(event, "destination"),
                         text(event, "rule").empty()
                             ? cell(event, text(event, "reason").empty() ? "basis" : "reason")
                             : cell(event, "rule")});
    if (denials_.size() > kDenialsKept)
        denials_.pop_back();
}

std::vector<std::string> TopScreen::lines(std::size_t rows, std::size_t columns) const {
    std::vector<std::string> lines = {head_, ""};
    // Head, keys, and an empty line before each of the three tables.
    const std::size_t room = rows > 5 ? rows - 5 : 0;
    const std::size_t guests = std::min(guests_.size() + 1, room / 3);
    const std::size_t denials = std::min(denials_.size() + 1, room / 3);
    const std::size_t flows = room - guests - denials;
    const auto cells = [](const Row& row) { return row.cells; };
    append_table(
        lines, {"GUEST", "STATE", "POLICY", "GEN", "SESSIONS", "BINDINGS", "SENT", "RECEIVED", "DROPPED", ""},
        guests_, guests, cells);
    lines.emplace_back();
    append_table(lines, {"GUEST", "DESTINATION", "NAME", "STATE", "SPLICE", "SENT", "RECEIVED", "AGE"},
                 flows_, flows, cells);
    lines.emplace_back();
    append_table(lines, {"DENIED", "GUEST", "WHAT", "NAME", "DESTINATION", "BY"}, denials_, denials,
                 [](const std::vector<std::string>& row) { return row; });
    lines.resize(rows > 0 ? rows - 1 : 0);
    if (rows > 0)
        lines.emplace_back(kKeys);
    for (std::string& line : lines)
        line.resize(std::min(line.size(), columns));
    return lines;
}

} // namespace tapgate::cli
