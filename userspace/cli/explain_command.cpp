// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"
#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "cli/live_policy.hpp"
#include "cli/reply.hpp"
#include "cli/table.hpp"
#include "cli/units.hpp"
#include "control/client.hpp"
#include "policy/compile.hpp"
#include "policy/decide.hpp"
#include "policy/decide_words.hpp"
#include "policy/parse.hpp"
#include "policy/words.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <optional>
#include <vector>

// `policy explain`: a question made from the options, the policy from a file or from the daemon, the walk
// from the policy library.
namespace tapgate::cli {

namespace json = boost::json;

namespace {

constexpr policy::Words<policy::Protocol, 4> kProtocols = {{
    {"tcp", policy::Protocol::kTcp},
    {"udp", policy::Protocol::kUdp},
    {"icmpv4", policy::Protocol::kIcmpV4},
    {"icmpv6", policy::Protocol::kIcmpV6},
}};

std::unexpected<Error> invalid(std::string message) {
    return fail(ErrorCode::kInvalid, std::move(message));
}

/// A connection, as far as the options say what is known of it.
struct FlowQuestion {
    Endpoint destination;
    policy::Protocol protocol = policy::Protocol::kTcp;
    std::optional<policy::FirstFlight> flight;
    std::vector<policy::BoundName> bound;
    std::vector<IpAddress> host_addresses;
};

Result<policy::Protocol> read_protocol(const Arguments& arguments, policy::Protocol otherwise) {
    if (!arguments.has("--proto"))
        return otherwise;
    return policy::find_word("protocol", arguments.get("--proto"), kProtocols);
}

Result<policy::Name> read_name(std::string_view option, const std::string& text) {
    auto name = policy::Name::from_user(text);
    if (!name)
        return fail(name.error().with_context(option));
    return name;
}

/// The first flight that --sni, --host and --kind describe; nothing if there is none of them.
Result<std::optional<policy::FirstFlight>> read_flight(const Arguments& arguments) {
    const bool sni = arguments.has("--sni");
    const bool host = arguments.has("--host");
    if (!sni && !host && !arguments.has("--kind"))
        return std::optional<policy::FirstFlight>();
    if (sni && host)
        return invalid("--sni and --host exclude each other: a first flight is TLS or HTTP");
    policy::FirstFlight flight;
    flight.kind = sni ? policy::FirstFlightKind::kTls : policy::FirstFlightKind::kHttp;
    if (arguments.has("--kind")) {
        const auto kind = policy::find_word("kind", arguments.get("--kind"), policy::kFirstFlightKindWords);
        if (!kind)
            return fail(kind.error());
        if ((sni || host) && *kind != flight.kind)
            return invalid(
                fmt::format("--kind {} has no {}", arguments.get("--kind"), sni ? "--sni" : "--host"));
        if (!sni && *kind == policy::FirstFlightKind::kTls)
            return invalid("--kind tls needs --sni NAME; a hello without a name is tls-no-sni");
        flight.kind = *kind;
    }
    if (sni || host) {
        const std::string_view option = sni ? "--sni" : "--host";
        auto name = read_name(option, arguments.get(option));
        if (!name)
            return fail(name.error());
        flight.name = std::move(*name);
    }
    return std::optional(std::move(flight));
}

/// Adds "NAME=ADDRESS" if it concerns the destination.
Result<void> add_binding(const std::string& text, FlowQuestion& question) {
    const std::size_t equals = text.find('=');
    const auto address = equals == std::string::npos
                             ? std::nullopt
                             : IpAddress::parse(std::string_view(text).substr(equals + 1));
    if (!address)
        return invalid(fmt::format("--bind '{}' is not NAME=ADDRESS", printable(text, 80)));
    auto name = read_name("--bind", text.substr(0, equals));
    if (!name)
        return fail(name.error());
    if (*address == question.destination.address)
        question.bound.push_back({std::move(*name), {}});
    return {};
}

/// Adds the live bindings and gateways of a guest, as the daemon has them.
Result<void> add_live_state(const std::string& socket, const std::string& guest, FlowQuestion& question) {
    auto client = control::Client::connect(socket);
    if (!client)
        return fail(client.error());
    json::object args;
    args["name"] = guest;
    const auto shown = client->call("guest show", args);
    if (!shown)
        return fail(shown.error());
    for (const json::value& value : list(*shown, "guests"))
        std::ranges::copy(addresses(as_object(value), "gateways"),
                          std::back_inserter(question.host_addresses));
    args.clear();
    args["guest"] = guest;
    const auto bindings = client->call("dns show", args);
    if (!bindings)
        return fail(bindings.error());
    for (const json::value& value : list(*bindings, "bindings")) {
        const json::object& binding = as_object(value);
        const auto address = IpAddress::parse(text(binding, "address"));
        auto name = policy::Name::from_wire(text(binding, "name"));
        if (!name || address != question.destination.address)
            continue;
        policy::BoundName& bound = question.bound.emplace_back(policy::BoundName{std::move(*name), {}});
        for (const json::value& text : list(binding, "aliases")) {
            if (auto alias = text.is_string() ? policy::Name::from_wire(std::string_view(text.as_string()))
                                              : std::nullopt)
                bound.aliases.push_back(std::move(*alias));
        }
    }
    return {};
}

Result<FlowQuestion> read_flow(const Arguments& arguments, const std::string& socket) {
    FlowQuestion question;
    const auto destination = Endpoint::parse(arguments.get("--dst"));
    if (!destination)
        return invalid(fmt::format("--dst '{}' is not ADDRESS:PORT, such as 192.0.2.1:443 or "
                                   "[2001:db8::1]:443",
                                   printable(arguments.get("--dst"), 80)));
    question.destination = *destination;
    const auto protocol = read_protocol(arguments, policy::Protocol::kTcp);
    if (!protocol)
        return fail(protocol.error());
    question.protocol = *protocol;
    auto flight = read_flight(arguments);
    if (!flight)
        return fail(flight.error());
    if (*flight && question.protocol != policy::Protocol::kTcp)
        return invalid("only a TCP connection has a first flight: leave out --sni, --host and --kind");
    question.flight = std::move(*flight);
    for (const std::string& binding : arguments.all("--bind"))
        if (const auto added = add_binding(binding, question); !added)
            return fail(added.error());
    if (arguments.has("--guest"))
        if (const auto added = add_live_state(socket, arguments.get("--guest"), question); !added)
            return fail(added.error());
    return question;
}

/// The first flight of a live flow's facts; nothing if nobody has looked at it.
std::optional<policy::FirstFlight> flight_of(const json::object& facts) {
    const json::object& shown = member(facts, "first_flight");
    if (shown.empty())
        return std::nullopt;
    policy::FirstFlight flight;
    if (const auto kind = policy::find_word("kind", text(shown, "kind"), policy::kFirstFlightKindWords))
        flight.kind = *kind;
    if (auto name = policy::Name::from_wire(text(shown, "name")))
        flight.name = std::move(*name);
    flight.literal = IpAddress::parse(text(shown, "literal"));
    if (const json::value* port = shown.if_contains("connect_port"); port != nullptr && port->is_number())
        flight.connect_port = port->to_number<std::uint16_t>();
    if (flight.connect_port == 0)
        flight.connect_port.reset();
    flight.ech = cell(shown, "ech") == "true";
    return flight;
}

/// What the daemon admitted a live flow on.
Result<FlowQuestion> read_live_flow(const std::string& socket, std::uint64_t id) {
    auto client = control::Client::connect(socket);
    if (!client)
        return fail(client.error());
    json::object args;
    args["id"] = id;
    const auto shown = client->call("flow show", args);
    if (!shown)
        return fail(shown.error());
    const json::array& flows = list(*shown, "flows");
    const auto incomplete = [] {
        return fail(ErrorCode::kUnsupported, "the daemon did not send what the flow was admitted on");
    };
    if (flows.empty())
        return incomplete();
    const json::object& facts = member(as_object(flows.front()), "facts");
    const auto destination = Endpoint::parse(text(facts, "destination"));
    if (!destination)
        return incomplete();
    FlowQuestion question;
    question.destination = *destination;
    question.flight = flight_of(facts);
    for (const json::value& value : list(facts, "bound"))
        if (const auto* string = value.if_string())
            if (auto name = policy::Name::from_wire(*string))
                question.bound.push_back({std::move(*name), {}});
    question.host_addresses = addresses(facts, "host_addresses");
    return question;
}

/// The connection that the options describe or name.
Result<FlowQuestion> read_question(const Arguments& arguments, const std::string& socket) {
    if (!arguments.has("--flow"))
        return read_flow(arguments, socket);
    const auto id = read_number("--flow", arguments.get("--flow"));
    if (!id)
        return fail(id.error());
    return read_live_flow(socket, *id);
}

/// A word with a slash or a policy file's extension, or the name of a file here, is a FILE; else it is the
/// NAME of a policy that the daemon has.
bool names_file(const std::string& word) {
    std::error_code ignored;
    return word == "-" || word.find('/') != std::string::npos || word.ends_with(".toml") ||
           word.ends_with(".json") || std::filesystem::is_regular_file(word, ignored);
}

Result<policy::Policy> load_policy(const std::string& word, const std::string& socket) {
    if (names_file(word)) {
        const auto text = read_file(word, kMaxPolicyBytes);
        if (!text)
            return fail(text.error());
        return policy::parse(*text, word);
    }
    auto policy = live_policy(socket, word);
    if (!policy && policy.error().code() == ErrorCode::kUnavailable)
        return fail(policy.error().with_context(fmt::format("there is no file {}, and", word)));
    return policy;
}

std::string rule_text(const policy::CompiledPolicy& compiled, std::size_t rule) {
    return policy::format_rule(compiled.policy().rules.at(rule));
}

json::object explanation_json(const policy::CompiledPolicy& compiled,
                              const policy::Explanation& explanation) {
    const policy::Decision& decision = explanation.decision;
    const std::string_view verdict = policy::verdict_name(decision.verdict);
    const std::string_view basis = policy::basis_name(decision.basis);
    json::array steps;
    for (const policy::ExplainStep& step : explanation.steps) {
        json::object object;
        object["rule"] = step.rule + 1;
        object["place"] = step.place;
        object["text"] = rule_text(compiled, step.rule);
        object["matched"] = step.matched;
        object["reason"] = step.reason;
        steps.push_back(std::move(object));
    }
    json::object object;
    object["verdict"] = json::string_view(verdict.data(), verdict.size());
    object["basis"] = json::string_view(basis.data(), basis.size());
    object["rule"] = decision.rule ? rule_text(compiled, *decision.rule) : "";
    object["place"] = explanation.place;
    object["address_group"] = explanation.address_group;
    object["summary"] = explanation.summary;
    object["steps"] = std::move(steps);
    return object;
}

std::string explanation_text(const policy::CompiledPolicy& compiled, const policy::Explanation& explanation) {
    std::string text = printable(explanation.summary, 1024) + "\n";
    if (!explanation.address_group.empty())
        text += fmt::format("the address is in group {}\n", explanation.address_group);
    if (explanation.steps.empty())
        return text;
    Table table({"RULE", "PLACE", "MATCH", "TEXT", "WHY"});
    for (const policy::ExplainStep& step : explanation.steps)
        table.add({fmt::format("{}", step.rule + 1), step.place.empty() ? "-" : printable(step.place, 512),
                   step.matched ? "yes" : "no", printable(rule_text(compiled, step.rule)),
                   printable(step.reason, 512)});
    return text + table.text();
}

} // namespace

int policy_explain(Console& console, const Arguments& arguments) {
    const int subjects = arguments.has("--dst") + arguments.has("--query") + arguments.has("--flow");
    if (subjects != 1)
        return console.usage(
            "say what to explain: a connection with --dst ADDRESS:PORT, a live one with --flow ID, or a DNS "
            "question with --query NAME",
            "policy explain");
    const std::string word = arguments.get("FILE|NAME");
    auto parsed = load_policy(word, console.socket);
    if (!parsed)
        return console.failed(parsed.error());
    const auto compiled = policy::CompiledPolicy::compile(std::move(*parsed));
    if (!compiled)
        return console.failed(compiled.error());

    policy::Explanation explanation;
    if (arguments.has("--query")) {
        const auto name = read_name("--query", arguments.get("--query"));
        if (!name)
            return console.failed(name.error());
        const auto transport = read_protocol(arguments, policy::Protocol::kUdp);
        if (!transport)
            return console.failed(transport.error());
        explanation = policy::explain_query(**compiled, *name, *transport);
    } else {
        const auto question = read_question(arguments, console.socket);
        if (!question)
            return console.failed(question.error());
        policy::FlowFacts facts;
        facts.destination = question->destination;
        facts.protocol = question->protocol;
        facts.bound = question->bound;
        facts.host_addresses = question->host_addresses;
        explanation = policy::explain_flow(**compiled, facts, question->flight);
    }
    if (console.json())
        console.print(explanation_json(**compiled, explanation));
    else
        console.print(explanation_text(**compiled, explanation));
    return kExitOk;
}

} // namespace tapgate::cli
