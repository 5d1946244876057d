// SPDX-License-Identifier: Apache-2.0
#include "policy/cases.hpp"

#include "policy/decide_words.hpp"
#include "policy/document_reader.hpp"
#include "policy/parse.hpp"
#include "policy/policy_reader.hpp"
#include "policy/rule_text.hpp"

#include <fmt/format.h>

#include <utility>

namespace tapgate::policy {

namespace {

using Reader = DocumentReader;
using Node = DocumentNode;

struct Flight {
    FirstFlight flight;
    std::optional<std::string> sni;
    std::optional<std::string> host;
};

bool read_text(Reader& reader, const Node& node, std::string_view what, std::string& text) {
    const auto* string = node.string();
    if (!string)
        return reader.wrong_type(node, what, "a string");
    text = *string;
    return true;
}

bool read_address(Reader& reader, const Node& node, IpAddress& address) {
    std::string text;
    if (!read_text(reader, node, "an address", text))
        return false;
    const auto parsed = IpAddress::parse(text);
    if (!parsed)
        return reader.wrong(node.location, fmt::format("'{}' is not an IP address", text));
    address = *parsed;
    return true;
}

bool read_gateway(Reader& reader, const Node& node, Case& c) {
    if (!node.array())
        return reader.wrong_type(node, "gateway", "a list");
    for (const Node& item : *node.array())
        if (!read_address(reader, item, c.gateway.emplace_back()))
            return false;
    return true;
}

/// Reads a table of lists, each under a name.
template <typename Read>
bool read_by_name(Reader& reader, const Node& node, std::string_view what, const Read& read_item) {
    if (!node.table())
        return reader.wrong_type(node, what, "a table");
    for (const DocumentMember& member : *node.table()) {
        auto name = Name::from_user(member.key);
        if (!name)
            return reader.wrong(member.location, name.error().message());
        if (!member.value.array())
            return reader.wrong_type(member.value, member.key, "a list");
        for (const Node& item : *member.value.array())
            if (!read_item(*name, item))
                return false;
    }
    return true;
}

bool read_bindings(Reader& reader, const Node& node, Case& c) {
    return read_by_name(reader, node, "bindings", [&](const Name& name, const Node& item) {
        IpAddress address;
        if (!read_address(reader, item, address))
            return false;
        c.bindings[address].push_back({name, {}});
        return true;
    });
}

bool read_aliases(Reader& reader, const Node& node, Case& c) {
    return read_by_name(reader, node, "aliases", [&](const Name& name, const Node& item) {
        std::string text;
        return read_text(reader, item, "an alias", text) &&
               reader.take(item, Name::from_user(text), c.aliases[name].emplace_back());
    });
}

/// "ADDRESS:PORT", or an address alone (for ICMP).
bool read_destination(Reader& reader, const Node& node, Case& c) {
    std::string text;
    if (!read_text(reader, node, "dst", text))
        return false;
    c.has_destination = true;
    if (const auto endpoint = Endpoint::parse(text)) {
        c.destination = *endpoint;
        c.has_port = true;
        return true;
    }
    const auto address = IpAddress::parse(text);
    if (!address)
        return reader.wrong(node.location,
                            fmt::format("'{}' is not ADDRESS:PORT; IPv6 stands in brackets", text));
    c.destination.address = *address;
    return true;
}

/// Names are taken as the guest would put them on the wire: what is not a name there makes a bad flight.
bool read_flight(Reader& reader, const Node& node, Case& c) {
    static constexpr Reader::Field<Flight> kFields[] = {
        {"kind",
         [](Reader& r, const Node& n, Flight& f) {
             return r.word(n, "kind of first flight", kFirstFlightKindWords, f.flight.kind);
         }},
        {"sni", [](Reader& r, const Node& n, Flight& f) { return read_text(r, n, "sni", f.sni.emplace()); }},
        {"host",
         [](Reader& r, const Node& n, Flight& f) { return read_text(r, n, "host", f.host.emplace()); }},
        {"connect_port",
         [](Reader& r, const Node& n, Flight& f) {
             const auto* number = n.integer();
             if (!number || *number < 1 || *number > 65535)
                 return r.wrong_type(n, "connect_port", "a port");
             f.flight.connect_port = static_cast<std::uint16_t>(*number);
             return true;
         }},
        {"ech",
         [](Reader& r, const Node& n, Flight& f) {
             if (!n.boolean())
                 return r.wrong_type(n, "ech", "true or false");
             f.flight.ech = *n.boolean();
             return true;
         }},
    };
    Flight read;
    if (!reader.fields(node, "first_flight", kFields, read))
        return false;
    FirstFlight& flight = read.flight;
    if (flight.kind == FirstFlightKind::kTls && read.sni) {
        flight.name = Name::from_wire(*read.sni);
        if (!flight.name)
            flight.kind = FirstFlightKind::kTlsBad;
    } else if (flight.kind == FirstFlightKind::kTls) {
        flight.kind = FirstFlightKind::kTlsNoSni;
    } else if (flight.kind == FirstFlightKind::kHttp && read.host) {
        flight.name = Name::from_wire(*read.host);
        flight.literal = IpAddress::parse(*read.host);
        if (!flight.name && !flight.literal)
            flight.kind = FirstFlightKind::kHttpBad;
    }
    c.flight = flight;
    return true;
}

bool read_expectation(Reader& reader, const Node& node, Case& c) {
    static constexpr Reader::Field<Case> kFields[] = {
        {"syn", [](Reader& r, const Node& n,
                   Case& v) { return r.word(n, "verdict", kVerdictWords, v.expected_syn.emplace()); }},
        {"verdict",
         [](Reader& r, const Node& n, Case& v) {
             return r.word(n, "verdict", kVerdictWords, v.expected_verdict.emplace());
         }},
    };
    if (!reader.fields(node, "expect", kFields, c))
        return false;
    if (!c.expected_syn && !c.expected_verdict)
        return reader.wrong(node.location, "expect names neither syn nor verdict");
    return true;
}

bool read_case(Reader& reader, const Node& node, Case& c) {
    static constexpr Reader::Field<Case> kFields[] = {
        {"id", [](Reader& r, const Node& n, Case& v) { return read_text(r, n, "id", v.id); }},
        {"note",
         [](Reader& r, const Node& n, Case&) {
             std::string note;
             return read_text(r, n, "note", note);
         }},
        {"policy", [](Reader& r, const Node& n, Case& v) { return read_policy(r, n, v.policy); }},
        {"gateway", read_gateway},
        {"bindings", read_bindings},
        {"aliases", read_aliases},
        {"dst", read_destination},
        {"proto",
         [](Reader& r, const Node& n, Case& v) { return r.word(n, "protocol", kProtocols, v.protocol); }},
        {"direction",
         [](Reader& r, const Node& n, Case& v) { return r.word(n, "direction", kDirections, v.direction); }},
        {"first_flight", read_flight},
        {"query",
         [](Reader& r, const Node& n, Case& v) { return read_text(r, n, "query", v.query.emplace()); }},
        {"transport",
         [](Reader& r, const Node& n, Case& v) {
             static constexpr Words<Protocol, 2> kTransports = {
                 {{"udp", Protocol::kUdp}, {"tcp", Protocol::kTcp}}};
             return r.word(n, "transport", kTransports, v.transport);
         }},
        {"expect", read_expectation},
    };
    if (!reader.fields(node, "a case", kFields, c))
        return false;
    if (c.query.has_value() == c.has_destination)
        return reader.wrong(node.location, "a case has either dst or query");
    const bool icmp = c.protocol == Protocol::kIcmpV4 || c.protocol == Protocol::kIcmpV6;
    if (c.has_destination && !icmp && !c.has_port)
        return reader.wrong(node.location, "dst has no port");
    if (c.query && c.expected_syn)
        return reader.wrong(node.location, "a query has no syn verdict");
    return true;
}

} // namespace

Result<void> for_each_case(std::string_view text, std::string_view file,
                           const std::function<Result<void>(Case&&)>& visit) {
    std::uint32_t number = 0;
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(line.size() + 1, text.size()));
        ++number;
        if (line.find_first_not_of(" \t\r") == std::string_view::npos)
            continue;
        const auto document = read_json_document(line, file, number);
        if (!document)
            return fail(document.error());
        DocumentReader reader(file);
        Case c;
        c.id = fmt::format("line {}", number);
        c.location = document->location;
        if (!read_case(reader, *document, c))
            return fail(reader.error());
        c.policy.source = file;
        if (auto visited = visit(std::move(c)); !visited)
            return visited;
    }
    return {};
}

std::vector<BoundName> bound_names(const Case& c) {
    std::vector<BoundName> bound;
    if (const auto found = c.bindings.find(c.destination.address); found != c.bindings.end())
        bound = found->second;
    for (BoundName& binding : bound)
        if (const auto found = c.aliases.find(binding.name); found != c.aliases.end())
            binding.aliases = found->second;
    return bound;
}

FlowFacts flow_facts(const Case& c, std::span<const BoundName> bound) {
    FlowFacts facts;
    facts.destination = c.destination;
    facts.protocol = c.protocol;
    facts.direction = c.direction;
    facts.bound = bound;
    facts.host_addresses = c.gateway;
    return facts;
}

CaseOutcome judge_case(const CompiledPolicy& policy, const Case& c) {
    if (c.query) {
        // What is not a name on the wire is no question that the forwarder would pass on.
        const auto name = Name::from_wire(*c.query);
        if (!name)
            return {std::nullopt, Decision{}};
        const auto aliases = c.aliases.find(*name);
        return {std::nullopt,
                decide_query(policy, *name, c.transport,
                             aliases == c.aliases.end() ? std::vector<Name>() : aliases->second)};
    }
    const std::vector<BoundName> bound = bound_names(c);
    const FlowFacts facts = flow_facts(c, bound);
    const Decision syn = decide_syn(policy, facts);
    return {syn, c.flight ? decide_first_flight(policy, facts, *c.flight) : syn};
}

std::string decision_text(const Policy& policy, const Decision& decision) {
    const std::string why = decision.rule ? fmt::format("rule {}: {}", *decision.rule + 1,
                                                        format_rule(policy.rules.at(*decision.rule)))
                                          : std::string(basis_name(decision.basis));
    return fmt::format("{} ({})", verdict_name(decision.verdict), why);
}

} // namespace tapgate::policy
