// SPDX-License-Identifier: Apache-2.0
#include "cli/commands.hpp"
#include "cli/top_screen.hpp"
#include "cli/units.hpp"
#include "control/client.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#define NCURSES_NOMACROS // its functions as functions
#include <curses.h>
#include <unistd.h>

// `tapgate top`: the daemon is asked at intervals and its events are listened to; ncurses puts the lines on
// the terminal.
namespace tapgate::cli {

namespace {

constexpr std::chrono::seconds kReplyTimeout{10};
/// How soon a key is heard and an event shown.
constexpr int kKeyWaitMs = 100;
/// Events taken between two looks at the keyboard.
constexpr unsigned kEventsAtATime = 256;
constexpr std::uint64_t kLongestIntervalS = 3600;

/// The terminal in full-screen mode, as it was again afterwards.
class Terminal {
  public:
    /// kUnsupported: the terminal is of a kind that nobody here knows.
    static Result<std::unique_ptr<Terminal>> open() {
        SCREEN* const screen = ::newterm(nullptr, stdout, stdin);
        if (screen == nullptr) {
            const char* const kind = std::getenv("TERM");
            return fail(ErrorCode::kUnsupported,
                        fmt::format("the terminal ({}) has no full-screen mode that is known here; set TERM",
                                    kind == nullptr ? "TERM is not set" : kind));
        }
        return std::unique_ptr<Terminal>(new Terminal(screen));
    }

    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    ~Terminal() {
        ::endwin();
        ::delscreen(screen_);
    }

    static void draw(const TopScreen& top) {
        ::erase();
        const auto rows = static_cast<std::size_t>(std::max(0, LINES));
        const auto columns = static_cast<std::size_t>(std::max(0, COLS));
        int row = 0;
        for (const std::string& line : top.lines(rows, columns))
            ::mvaddnstr(row++, 0, line.c_str(), static_cast<int>(columns));
        ::refresh();
    }

    /// The next key; ERR if none comes in time.
    static int key() { return ::getch(); }

  private:
    explicit Terminal(SCREEN* screen) : screen_(screen) {
        ::cbreak();
        ::noecho();
        ::keypad(stdscr, TRUE);
        ::curs_set(0);
        ::timeout(kKeyWaitMs);
    }

    SCREEN* screen_;
};

Result<void> sample(control::Client& client, TopScreen& top) {
    const auto status = client.call("status show", {}, kReplyTimeout);
    if (!status)
        return fail(status.error());
    const auto guests = client.call("guest show", {}, kReplyTimeout);
    if (!guests)
        return fail(guests.error());
    const auto flows = client.call("flow show", {}, kReplyTimeout);
    if (!flows)
        return fail(flows.error());
    top.sample(*status, *guests, *flows, TopScreen::Clock::now());
    return {};
}

/// Takes the events that are there.
Result<void> listen(control::Client& events, TopScreen& top) {
    for (unsigned i = 0; i < kEventsAtATime; ++i) {
        const auto event = events.receive(std::chrono::milliseconds(0));
        if (!event && event.error().code() == ErrorCode::kUnavailable)
            return {}; // none
        if (!event)
            return fail(event.error());
        if (!*event)
            return fail(ErrorCode::kUnavailable, "the daemon closed the connection");
        top.event(**event);
    }
    return {};
}

/// Until `q`.
Result<void> show(control::Client& client, control::Client& events, std::chrono::seconds interval) {
    TopScreen top;
    if (auto sampled = sample(client, top); !sampled)
        return sampled;
    const auto terminal = Terminal::open();
    if (!terminal)
        return fail(terminal.error());
    auto next = TopScreen::Clock::now() + interval;
    for (bool is_paused = false;;) {
        if (!is_paused)
            Terminal::draw(top);
        const int key = Terminal::key();
        if (key == 'q' || key == 'Q')
            return {};
        if (key == 'p')
            is_paused = !is_paused;
        if (auto listened = listen(events, top); !listened)
            return listened;
        if (TopScreen::Clock::now() < next)
            continue;
        next = TopScreen::Clock::now() + interval;
        if (auto sampled = sample(client, top); !sampled)
            return sampled;
    }
}

} // namespace

int top(Console& console, const Arguments& arguments) {
    if (console.json())
        return console.usage(
            "top is for people; `status show`, `guest show`, `flow show` and `event monitor` have JSON",
            "top");
    std::chrono::seconds interval{1};
    if (arguments.has("--interval")) {
        const auto seconds = read_number("--interval", arguments.get("--interval"));
        if (!seconds || *seconds == 0 || *seconds > kLongestIntervalS)
            return console.usage("--interval is a number of seconds, 1 to 3600", "top");
        interval = std::chrono::seconds(*seconds);
    }
    if (::isatty(STDOUT_FILENO) == 0 || ::isatty(STDIN_FILENO) == 0)
        return console.failed(Error(ErrorCode::kUnsupported, "top needs a terminal"));
    auto client = control::Client::connect(console.socket);
    auto events = control::Client::connect(console.socket);
    if (!client || !events)
        return console.failed(client ? events.error() : client.error());
    if (const auto started = events->call("event monitor", {}, kReplyTimeout); !started)
        return console.failed(started.error());
    // The terminal is given back before an error is printed.
    const auto shown = show(*client, *events, interval);
    return shown ? kExitOk : console.failed(shown.error());
}

} // namespace tapgate::cli
