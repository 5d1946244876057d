// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"
#include "control/args.hpp"
#include "daemon/commands.hpp"
#include "daemon/daemon.hpp"
#include "daemon/reply_json.hpp"
#include "policy/ground.hpp"
#include "policy/parse.hpp"
#include "policy/remedy.hpp"
#include "proxy/judgement.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <utility>

// `why`: what would become of a guest's attempt, by walking the decision on what is there now. The question
// to the name, the bindings, the SYN (which the BPF program judges itself), and what the guest may send
// first.
namespace tapgate::daemon {

namespace {

constexpr std::uint16_t kHttpPort = 80;
/// Of a name's addresses, and of an address's names, that many are walked; the rest is counted.
constexpr std::size_t kMostWalked = 8;

using policy::FirstFlight;
using policy::FirstFlightKind;
using policy::Verdict;

struct Wanted {
    std::optional<policy::Name> name;
    std::optional<IpAddress> address;
    std::uint16_t port = policy::kLikelyPort;
};

/// "NAME", "ADDRESS", either with ":PORT", an IPv6 address with a port in brackets.
Result<Wanted> read_wanted(const std::string& text) {
    if (const auto address = IpAddress::parse(text))
        return Wanted{std::nullopt, address, policy::kLikelyPort};
    if (const auto endpoint = Endpoint::parse(text))
        return Wanted{std::nullopt, endpoint->address, endpoint->port};
    const std::size_t colon = text.rfind(':');
    std::uint16_t port = policy::kLikelyPort;
    if (colon != std::string::npos) {
        const char* const end = text.data() + text.size();
        const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, port);
        if (error != std::errc() || stop != end || port == 0)
            return fail(ErrorCode::kInvalid,
                        fmt::format("'{}' is not NAME[:PORT] or ADDRESS[:PORT]", printable(text, 300)));
    }
    auto name = policy::Name::from_user(std::string_view(text).substr(0, colon));
    if (!name)
        return fail(ErrorCode::kInvalid, name.error().message());
    return Wanted{std::move(*name), std::nullopt, port};
}

json::string_view word(Verdict verdict) {
    const std::string_view text = policy::verdict_name(verdict);
    return {text.data(), text.size()};
}

/// The steps of one walk, and what comes out of it.
class Walk {
  public:
    Walk(Daemon& daemon, const GuestRegistry::Attached& attached, Wanted wanted)
        : daemon_(daemon), attached_(attached), compiled_(*attached.guest.policy->compiled),
          wanted_(std::move(wanted)) {}

    Result<json::object> run() {
        if (wanted_.name)
            walk_query();
        if (auto walked = wanted_.name ? walk_addresses_of_name() : walk_address(*wanted_.address); !walked)
            return fail(walked.error());
        return reply();
    }

  private:
    json::object& add_step(std::string_view step, std::string_view subject, std::string_view text) {
        json::object& object = steps_.emplace_back(json::object()).as_object();
        object["step"] = step;
        object["for"] = subject;
        object["verdict"] = nullptr;
        object["text"] = text;
        return object;
    }

    json::object& add_verdict(std::string_view step, std::string_view subject,
                              const policy::Explanation& explanation) {
        json::object& object = add_step(step, subject, explanation.summary);
        object["verdict"] = word(explanation.decision.verdict);
        put_rule(object, proxy::deciding_rule(compiled_, explanation.decision));
        object["basis"] = policy::basis_name(explanation.decision.basis);
        return object;
    }

    void deny(std::string_view step, std::string_view subject, std::string text) {
        add_step(step, subject, text)["verdict"] = word(Verdict::kDeny);
        note_obstacle(std::move(text));
    }

    /// The first thing in the way is the one to be told.
    void note_obstacle(std::string text) {
        ++denials_;
        if (!remedy_)
            remedy_ = policy::Remedy{std::nullopt, std::nullopt, std::move(text)};
    }

    void walk_query() {
        const policy::Name& name = *wanted_.name;
        const policy::Explanation explanation =
            policy::ground_of_query(compiled_, name, policy::Protocol::kUdp);
        json::object& step = add_verdict("query", name.text(), explanation);
        if (explanation.decision.verdict != Verdict::kDeny) {
            if (std::string over = policy::over_length(compiled_.policy().dns, name); !over.empty()) {
                deny("query", name.text(), std::move(over));
                is_query_denied_ = true;
            }
        } else if (policy::alias_could_allow(compiled_, explanation.decision)) {
            step["verdict"] = word(Verdict::kDefer);
            step["text"] =
                explanation.summary + "; asked all the same, since an alias in the answer may be allowed";
        } else {
            is_query_denied_ = true;
            ++denials_;
        }
    }

    Result<void> walk_addresses_of_name() {
        const policy::Name& name = *wanted_.name;
        std::vector<datapath::Binding> bindings = daemon_.datapath().bindings(attached_.guest.id);
        std::erase_if(bindings,
                      [&](const datapath::Binding& binding) { return binding.name != name.text(); });
        if (bindings.empty()) {
            add_step(
                "binding", name.text(),
                "the guest holds no address for this name: it has not asked, the answer has expired, or it "
                "was not given");
            walk_unbound_name();
            return {};
        }
        std::ranges::sort(bindings, {}, &datapath::Binding::address);
        std::optional<IpAddress> before;
        std::size_t addresses = 0;
        for (const datapath::Binding& binding : bindings) {
            add_binding(binding);
            if (before == binding.address) // by another chain of aliases
                continue;
            before = binding.address;
            if (++addresses > kMostWalked)
                break;
            if (auto walked = walk_flow(binding.address); !walked)
                return walked;
        }
        if (addresses > kMostWalked)
            add_step("binding", name.text(), "it has more addresses, which are not walked here");
        return {};
    }

    Result<void> walk_address(const IpAddress& address) {
        std::size_t told = 0;
        for (const datapath::Binding& binding : daemon_.datapath().bindings(attached_.guest.id)) {
            if (binding.address == address && ++told <= kMostWalked)
                add_binding(binding);
        }
        if (told == 0)
            add_step("binding", address.to_string(), "the guest was told no name that has this address");
        return walk_flow(address);
    }

    void add_binding(const datapath::Binding& binding) {
        const auto left =
            std::chrono::duration_cast<std::chrono::seconds>(binding.expires - BootClock::now()).count();
        json::object& step =
            add_step("binding", binding.address.to_string(),
                     fmt::format("{}{} for {} s more", binding.name,
                                 binding.aliases.empty()
                                     ? std::string()
                                     : fmt::format(" by way of {}", fmt::join(binding.aliases, ", ")),
                                 left));
        step["name"] = binding.name;
        step["aliases"] = json::array(binding.aliases.begin(), binding.aliases.end());
        step["expires_seconds"] = left;
    }

    /// What rules on names would say once the guest was told an address of it, as far as that can be known:
    /// for a public address that no block names.
    void walk_unbound_name() {
        proxy::SessionFacts facts;
        facts.destination = {IpAddress::from_v4(0xc611ffff), wanted_.port}; // 198.17.255.255
        facts.host = daemon_.host_addresses();
        facts.gateways = attached_.guest.gateways;
        facts.bound.push_back({*wanted_.name, {}});
        if (policy::group_of(compiled_, facts.destination.address, facts.host_addresses()) != "public")
            return;
        is_assumed_ = true;
        const policy::Explanation at_syn = policy::ground_of_flow(compiled_, facts.flow(), std::nullopt);
        add_verdict("syn", fmt::format("a public address, port {}", wanted_.port), at_syn)["assumed"] = true;
        conclude_syn(facts, at_syn.decision);
    }

    Result<void> walk_flow(const IpAddress& address) {
        proxy::SessionFacts facts;
        facts.destination = {address, wanted_.port};
        if (auto learned = facts.learn(daemon_.kernel(), attached_.guest, daemon_.host_addresses()); !learned)
            return learned;
        const std::string subject = facts.destination.to_string();
        const auto verdict = daemon_.datapath().judge_flow(attached_.ifindex, facts.destination);
        if (!verdict)
            return fail(verdict.error().with_context("ask the BPF program"));
        const datapath::Judgement& judged = verdict->judgement;
        if (judged.verdict == TG_VERDICT_NONE && verdict->reason == TG_DROP_NONE) {
            json::object& step =
                add_step("syn", subject,
                         fmt::format("allow: port {} is for DNS, wherever the guest sends it; the "
                                     "daemon answers, and judges each question",
                                     wanted_.port));
            step["verdict"] = word(Verdict::kAllow);
            ++allowances_;
            return {};
        }
        if (judged.verdict == TG_VERDICT_NONE) {
            deny("syn", subject, std::string(datapath::drop_reason_text(verdict->reason)));
            return {};
        }
        const policy::Explanation at_syn = policy::ground_of_flow(compiled_, facts.flow(), std::nullopt);
        json::object& step = add_verdict("syn", subject, at_syn);
        step["address_group"] = at_syn.address_group;
        step["kernel_verdict"] = word(judged.policy_verdict());
        const bool agree = judged.policy_verdict() == at_syn.decision.verdict &&
                           judged.generation == attached_.guest.policy->generation;
        step["agree"] = agree;
        if (!agree) {
            // Never seen (I7): the guest meets what the kernel says.
            step["text"] = fmt::format(
                "the kernel says {} by generation {}, the daemon {} by generation {}: please "
                "report this",
                policy::verdict_name(judged.policy_verdict()), judged.generation,
                policy::verdict_name(at_syn.decision.verdict), attached_.guest.policy->generation);
            spdlog::error("why: BPF and userspace disagree on a flow of {} to {}", attached_.guest.name,
                          subject);
        }
        if (judged.verdict != TG_VERDICT_DENY && verdict->reason != TG_DROP_NONE) {
            deny("syn", subject, std::string(datapath::drop_reason_text(verdict->reason)));
            return {};
        }
        conclude_syn(facts, at_syn.decision);
        return {};
    }

    void conclude_syn(const proxy::SessionFacts& facts, const policy::Decision& at_syn) {
        switch (at_syn.verdict) {
        case Verdict::kDeny:
            note_denial(facts, std::nullopt, at_syn);
            return;
        case Verdict::kAllow:
            ++allowances_;
            add_carrier(facts, std::nullopt);
            return;
        case Verdict::kDefer:
            break;
        }
        std::optional<FirstFlight> carried;
        for (const FirstFlight& flight : flights(facts)) {
            const policy::Explanation explanation = policy::ground_of_flow(compiled_, facts.flow(), flight);
            json::object& step = add_verdict("first-flight", flight_text(flight), explanation);
            step["kind"] = policy::first_flight_kind_name(flight.kind);
            // With a name wanted, only what carries it counts; the others are shown for the client that does
            // not.
            const bool counts = !wanted_.name || flight.name;
            if (explanation.decision.verdict == Verdict::kDeny) {
                if (counts)
                    note_denial(facts, flight, explanation.decision);
            } else if (counts) {
                ++allowances_;
                if (!carried)
                    carried = flight;
            }
        }
        if (carried)
            add_carrier(facts, carried);
    }

    /// What the guest may send first that makes a difference.
    [[nodiscard]] std::vector<FirstFlight> flights(const proxy::SessionFacts& facts) const {
        std::vector<policy::Name> names;
        if (wanted_.name) {
            names.push_back(*wanted_.name);
        } else {
            for (const policy::BoundName& bound : facts.bound)
                if (names.size() < kMostWalked && std::ranges::find(names, bound.name) == names.end())
                    names.push_back(bound.name);
        }
        const bool is_http = wanted_.port == kHttpPort;
        std::vector<FirstFlight> flights;
        for (policy::Name& name : names) {
            FirstFlight& flight = flights.emplace_back();
            flight.kind = is_http ? FirstFlightKind::kHttp : FirstFlightKind::kTls;
            flight.name = std::move(name);
        }
        if (!is_http)
            flights.emplace_back().kind = FirstFlightKind::kTlsNoSni;
        flights.emplace_back().kind = FirstFlightKind::kPlain;
        return flights;
    }

    static std::string flight_text(const FirstFlight& flight) {
        switch (flight.kind) {
        case FirstFlightKind::kTls:
            return "TLS to " + flight.name->text();
        case FirstFlightKind::kHttp:
            return "HTTP to " + flight.name->text();
        case FirstFlightKind::kTlsNoSni:
            return "TLS without a name";
        case FirstFlightKind::kTlsBad:
        case FirstFlightKind::kHttpBad:
        case FirstFlightKind::kPlain:
            break;
        }
        return "another protocol";
    }

    void note_denial(const proxy::SessionFacts& facts, const std::optional<FirstFlight>& flight,
                     const policy::Decision& decision) {
        ++denials_;
        if (!remedy_)
            remedy_ = policy::remedy_for_flow(compiled_, facts.flow(), flight, decision,
                                              wanted_.name ? &*wanted_.name : nullptr);
    }

    void add_carrier(const proxy::SessionFacts& facts, const std::optional<FirstFlight>& flight) {
        const bool judges_requests = flight && flight->kind == FirstFlightKind::kHttp &&
                                     compiled_.policy().http_host == policy::HttpHost::kEvery;
        const bool is_host = attached_.guest.has_gateway(facts.destination.address);
        const proxy::Carriers& carriers = daemon_.workers().front()->carriers();
        const policy::Splice wanted = compiled_.policy().splice.value_or(daemon_.config().daemon.splice);
        const std::string splice(judges_requests ? "copy"
                                 : is_host       ? carriers.relay(wanted).name()
                                                 : carriers.name(wanted));
        json::object& step = add_step("splice", is_assumed_ ? std::string() : facts.destination.to_string(),
                                      fmt::format("carried by {}{}{}", splice,
                                                  judges_requests ? ", since each request is judged" : "",
                                                  is_host ? ", to the loopback address of the host" : ""));
        step["splice"] = splice;
    }

    json::object reply() {
        if (is_query_denied_ && !remedy_)
            remedy_ = policy::remedy_for_query(compiled_, *wanted_.name, wanted_.port);
        const bool is_denied = is_query_denied_ || allowances_ == 0;
        const std::string_view verdict = is_denied ? "deny" : denials_ == 0 ? "allow" : "depends";
        json::object reply;
        reply["guest"] = attached_.guest.name;
        reply["name"] = wanted_.name ? json::value(wanted_.name->text()) : json::value();
        reply["address"] = wanted_.address ? json::value(wanted_.address->to_string()) : json::value();
        reply["port"] = wanted_.port;
        reply["policy"] = attached_.guest.policy->name;
        reply["generation"] = attached_.guest.policy->generation;
        reply["verdict"] = verdict;
        reply["assumed"] = is_assumed_;
        reply["steps"] = std::move(steps_);
        reply["to_allow"] = remedy_ ? remedy_json() : json::value();
        return reply;
    }

    json::value remedy_json() {
        json::object object;
        object["text"] = policy::remedy_text(compiled_.policy(), *remedy_);
        object["possible"] = remedy_->rule.has_value();
        object["rule"] = remedy_->rule ? json::value(policy::format_rule(*remedy_->rule)) : json::value();
        object["before"] = remedy_->before ? json::value(*remedy_->before + 1) : json::value();
        return object;
    }

    Daemon& daemon_;
    const GuestRegistry::Attached& attached_;
    const policy::CompiledPolicy& compiled_;
    Wanted wanted_;
    json::array steps_;
    std::size_t allowances_ = 0;
    std::size_t denials_ = 0;
    bool is_query_denied_ = false;
    bool is_assumed_ = false;
    std::optional<policy::Remedy> remedy_; // of the first denial
};

Error not_attached(Daemon& daemon, const std::string& name) {
    for (const GuestRegistry::Declared& declared : daemon.guests().declared()) {
        if (declared.config.name == name)
            return {ErrorCode::kNotFound,
                    fmt::format("guest '{}' is not attached, so nothing of it goes anywhere: {}", name,
                                declared.error.empty()
                                    ? fmt::format("there is no interface {}", declared.config.interface)
                                    : declared.error)};
    }
    return {ErrorCode::kNotFound, fmt::format("there is no guest '{}'", name)};
}

Reply why(Daemon& daemon, const json::object& args) {
    if (const auto known = control::only_args(args, {"guest", "target"}); !known)
        return fail(known.error());
    const auto guest = control::required_string(args, "guest");
    const auto target = control::required_string(args, "target");
    if (const Error* error = control::first_error(guest, target))
        return fail(*error);
    auto wanted = read_wanted(*target);
    if (!wanted)
        return fail(wanted.error());
    const GuestRegistry::Attached* attached = daemon.guests().find(std::string_view(*guest));
    if (attached == nullptr)
        return fail(not_attached(daemon, *guest));
    return Walk(daemon, *attached, std::move(*wanted)).run();
}

} // namespace

void add_why_command(control::Server& server, Daemon& daemon) {
    add_command(server, daemon, "why", why);
}

} // namespace tapgate::daemon
