// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"
#include "cli/commands.hpp"
#include "cli/live_policy.hpp"
#include "cli/reply.hpp"
#include "cli/units.hpp"
#include "control/client.hpp"
#include "policy/learn.hpp"
#include "policy/parse.hpp"

#include <boost/json/parse.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <map>
#include <optional>

// `policy learn`: the events of a guest under a policy that allows much, turned into one that allows what the
// guest did.
namespace tapgate::cli {

namespace json = boost::json;

namespace {

using Clock = std::chrono::steady_clock;

/// The learning ends when nothing came for this long after its end or an interrupt, so that what was under
/// way is still heard; at the latest after kLongestTail.
constexpr std::chrono::milliseconds kSlice{200};
constexpr std::chrono::seconds kLongestTail{5};
/// What was denied all the same: how much of it is told apart, and shown as text.
constexpr std::size_t kMostDenials = 1000;
constexpr std::size_t kMostDenialsShown = 20;

/// A signal handler can reach nothing else.
volatile std::sig_atomic_t interrupted = 0;

/// Has SIGINT and SIGTERM end the learning instead of the program, while in scope.
class EndOnSignal {
  public:
    EndOnSignal() {
        interrupted = 0;
        struct sigaction action{};
        action.sa_handler = [](int) { interrupted = 1; };
        ::sigaction(SIGINT, &action, &before_int_);
        ::sigaction(SIGTERM, &action, &before_term_);
    }

    EndOnSignal(const EndOnSignal&) = delete;
    EndOnSignal& operator=(const EndOnSignal&) = delete;

    ~EndOnSignal() {
        ::sigaction(SIGINT, &before_int_, nullptr);
        ::sigaction(SIGTERM, &before_term_, nullptr);
    }

  private:
    struct sigaction before_int_{};
    struct sigaction before_term_{};
};

/// A guest as it is watched.
class Lesson {
  public:
    Lesson(std::string guest, control::Client client)
        : guest_(std::move(guest)), client_(std::move(client)) {}

    /// Notes what an event says.
    Result<void> take(const json::object& event) {
        const std::string_view type = text(event, "type");
        if (type == "lost") {
            lost_ += static_cast<std::uint64_t>(std::max<std::int64_t>(0, number(event, "count")));
            return {};
        }
        const bool is_denied = text(event, "verdict") == "deny";
        const auto name = policy::Name::from_wire(text(event, "name"));
        if (type == "dns" && name) {
            if (is_denied)
                note_denial(fmt::format("question for {}", name->text()));
            else
                learner_.note_question(*name);
            return {};
        }
        const auto destination = Endpoint::parse(text(event, "destination"));
        if (!destination || (type != "verdict" && type != "drop"))
            return {};
        if (is_denied) {
            note_denial(fmt::format("flow to {}{}", destination->to_string(),
                                    name ? " as " + name->text() : std::string()));
            return {};
        }
        return type == "verdict" ? take_connection(event, *destination, name) : Result<void>();
    }

    /// The addresses of the names, to know which are not public.
    Result<void> finish() {
        const auto bindings = bound({});
        if (!bindings)
            return fail(bindings.error());
        for (const json::value& value : *bindings) {
            const auto name = policy::Name::from_wire(text(as_object(value), "name"));
            const auto address = IpAddress::parse(text(as_object(value), "address"));
            if (name && address)
                learner_.note_address(*name, *address);
        }
        return {};
    }

    [[nodiscard]] const policy::Learner& learner() const { return learner_; }

    [[nodiscard]] const std::map<std::string, std::uint64_t>& denied() const { return denied_; }

    [[nodiscard]] std::uint64_t lost() const { return lost_; }

  private:
    void note_denial(std::string what) {
        if (denied_.size() >= kMostDenials && !denied_.contains(what))
            what = "others";
        ++denied_[std::move(what)];
    }

    Result<void> take_connection(const json::object& event, const Endpoint& destination,
                                 const std::optional<policy::Name>& name) {
        std::vector<policy::Name> names;
        const bool is_guessed = text(event, "name_source") == "bindings";
        if (name)
            names.push_back(*name);
        if (is_guessed) {
            json::object args;
            args["address"] = destination.address.to_string();
            const auto bindings = bound(std::move(args));
            if (!bindings)
                return fail(bindings.error());
            for (const json::value& value : *bindings) {
                auto other = policy::Name::from_wire(text(as_object(value), "name"));
                if (other && std::ranges::find(names, *other) == names.end())
                    names.push_back(std::move(*other));
            }
        }
        learner_.note_connection(destination, names, is_guessed);
        return {};
    }

    Result<json::array> bound(json::object args) {
        args["guest"] = guest_;
        const auto reply = client_.call("dns show", args);
        if (!reply)
            return fail(reply.error());
        return list(*reply, "bindings");
    }

    std::string guest_;
    control::Client client_;
    policy::Learner learner_;
    std::map<std::string, std::uint64_t> denied_;
    std::uint64_t lost_ = 0;
};

/// The guest's row of `guest show`.
Result<json::object> find_guest(control::Client& client, const std::string& guest) {
    json::object args;
    args["name"] = guest;
    const auto shown = client.call("guest show", args);
    if (!shown)
        return fail(shown.error());
    const json::array& guests = list(*shown, "guests");
    if (guests.empty() || text(as_object(guests.front()), "state") != "attached")
        return fail(ErrorCode::kNotFound, fmt::format("guest '{}' is not attached", guest));
    return as_object(guests.front());
}

/// Reads events until `end` or an interrupt.
Result<void> watch(control::Client& events, Lesson& lesson, std::optional<Clock::time_point> end) {
    std::optional<Clock::time_point> last;
    for (;;) {
        if (!last && (interrupted != 0 || (end && Clock::now() >= *end)))
            last = Clock::now() + kLongestTail;
        const auto event = events.receive(kSlice);
        const bool is_quiet = !event && event.error().code() == ErrorCode::kUnavailable;
        if (last && (is_quiet || Clock::now() >= *last))
            return {};
        if (is_quiet)
            continue;
        if (!event)
            return fail(event.error());
        if (!*event)
            return fail(ErrorCode::kUnavailable, "the daemon closed the connection");
        if (auto taken = lesson.take(**event); !taken)
            return taken;
    }
}

json::object lesson_json(const std::string& guest, const policy::Policy& observed, const Lesson& lesson,
                         const std::vector<policy::LearnedRule>& rules) {
    json::array learned;
    for (const policy::LearnedRule& rule : rules) {
        json::object object;
        object["rule"] = policy::format_rule(rule.rule);
        object["connections"] = rule.connections;
        object["questions"] = rule.questions;
        object["guessed"] = rule.is_guessed;
        learned.push_back(std::move(object));
    }
    json::object denied;
    for (const auto& [what, count] : lesson.denied())
        denied[what] = count;
    json::object object;
    object["guest"] = guest;
    object["rules"] = std::move(learned);
    object["policy"] = json::parse(policy::to_json(policy::learned_policy(observed, rules)));
    object["denied"] = std::move(denied);
    object["lost"] = lesson.lost();
    object["complete"] = lesson.lost() == 0 && !lesson.learner().is_overfull();
    return object;
}

std::string lesson_text(const std::string& guest, const std::string& observe, const policy::Policy& observed,
                        const Lesson& lesson, const std::vector<policy::LearnedRule>& rules) {
    std::string shown =
        fmt::format("# What guest {} did under policy {}.\n", printable(guest), printable(observe));
    std::size_t lines = 0;
    for (const auto& [what, count] : lesson.denied()) {
        if (++lines > kMostDenialsShown) {
            shown += fmt::format("# and {} more\n", lesson.denied().size() - kMostDenialsShown);
            break;
        }
        shown += fmt::format("# denied, so not learned: {}, {} times\n", what, count);
    }
    return shown + policy::learned_text(observed, rules);
}

} // namespace

int policy_learn(Console& console, const Arguments& arguments) {
    const std::string guest = arguments.get("--guest");
    std::optional<Clock::time_point> end;
    if (arguments.has("--for")) {
        const auto duration = read_duration("--for", arguments.get("--for"));
        if (!duration)
            return console.usage(duration.error().message(), "policy learn");
        end = Clock::now() + *duration;
    }
    auto client = control::Client::connect(console.socket);
    if (!client)
        return console.failed(client.error());
    const auto row = find_guest(*client, guest);
    if (!row)
        return console.failed(row.error());
    const std::string observe(text(*row, "policy"));
    const auto observed = live_policy(console.socket, observe);
    if (!observed)
        return console.failed(observed.error());
    const auto compiled = policy::CompiledPolicy::compile(*observed);
    if (!compiled)
        return console.failed(compiled.error());

    auto events = control::Client::connect(console.socket);
    if (!events)
        return console.failed(events.error());
    json::object args;
    args["guest"] = guest;
    const EndOnSignal signals;
    if (const auto started = events->call("event monitor", args); !started)
        return console.failed(started.error());
    console.note(fmt::format("learning from guest {}{}", printable(guest),
                             end ? "" : "; Ctrl-C ends it and prints what was learned"));
    Lesson lesson(guest, std::move(*client));
    if (auto watched = watch(*events, lesson, end); !watched)
        return console.failed(watched.error());
    if (auto finished = lesson.finish(); !finished)
        return console.failed(finished.error());

    const std::vector<policy::LearnedRule> rules =
        lesson.learner().rules(**compiled, addresses(*row, "gateways"));
    if (console.json())
        console.print(lesson_json(guest, *observed, lesson, rules));
    else
        console.print(lesson_text(guest, observe, *observed, lesson, rules));
    if (lesson.lost() == 0 && !lesson.learner().is_overfull())
        return kExitOk;
    if (console.json()) // the object says so
        return kExitFailed;
    return console.failed(Error(
        ErrorCode::kLimit, lesson.lost() != 0
                               ? fmt::format("{} events were lost: the list is not complete", lesson.lost())
                               : std::string("the guest did more than is noted: the list is not complete")));
}

} // namespace tapgate::cli
