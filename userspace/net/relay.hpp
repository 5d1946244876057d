// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

namespace tapgate::net {

/// Bytes a running session has carried so far; written on the worker's thread only.
struct RelayCounters {
    std::uint64_t bytes_up = 0;   ///< taken by the kernel for the upstream
    std::uint64_t bytes_down = 0; ///< taken by the kernel for the guest
};

/// Limits of one session. Both timeouts are of inactivity: any byte carried starts them afresh.
struct RelayOptions {
    RelayOptions() = default;

    RelayOptions(std::chrono::milliseconds idle, std::chrono::milliseconds half_closed,
                 RelayCounters* live_counters)
        : idle_timeout(idle), half_closed_timeout(half_closed), counters(live_counters) {}

    std::chrono::milliseconds idle_timeout = std::chrono::hours(2);
    /// In force instead of idle_timeout once one side has sent its FIN.
    std::chrono::milliseconds half_closed_timeout = std::chrono::minutes(5);
    /// May be null. Borrowed until run() returns or the relay is destroyed.
    RelayCounters* counters = nullptr;
};

/// How a session ended.
enum class RelayEnd : std::uint8_t {
    kFinished, ///< both sides sent FIN and everything was handed to the kernel; `who` sent the first FIN
    kReset, ///< `who` reset the connection or its connection died (`error_number`); the other side got an RST
    kIdle,  ///< nothing moved for the timeout in force; both sides got an RST
    kCancelled, ///< cancelled, or the relay was destroyed; both sides got an RST
    kRefused,   ///< a gate refused what `who` sent (GatedRelay); the other side got an RST
    kOpened,    ///< a gate has opened (GatedRelay); nothing has ended
    kFailed,    ///< this host could not go on (`error_number`, as ENOMEM); both sides got an RST
};

enum class RelayParty : std::uint8_t { kGuest, kUpstream, kDaemon };

/// The stable lower-case word, as used in events: "finished", "guest", ...
[[nodiscard]] std::string_view relay_end_name(RelayEnd end);
[[nodiscard]] std::string_view relay_party_name(RelayParty party);

/// True for an errno that tells of this host, false for one that tells what happened to a connection.
[[nodiscard]] bool is_local_failure(int error_number);

struct RelayResult {
    std::uint64_t bytes_up = 0;   ///< guest -> upstream, handed to the kernel
    std::uint64_t bytes_down = 0; ///< upstream -> guest, handed to the kernel
    RelayEnd how = RelayEnd::kFailed;
    RelayParty who = RelayParty::kDaemon;
    int error_number = 0; ///< errno of kReset and kFailed, else 0
};

/// Carries the bytes of allowed sessions between two connected TCP sockets, both ways, in userspace.
///
/// Bytes are carried verbatim and in order, urgent data in line. A FIN becomes a FIN towards the other side
/// once everything before it was handed to the kernel, each direction by itself; an RST becomes an RST, also
/// one that arrives while the other side takes nothing. A transfer that was cut never ends in a FIN. At most
/// one buffer is in flight per direction, and an idle session holds none.
///
/// One relay belongs to one io_context and is used on its thread only. It is to be destroyed before the
/// io_context, on a thread that may do so safely (the io_context no longer runs, or this is its thread).
/// Sessions still running then are reset; their run() resumes with kCancelled if the io_context runs again.
class Relay {
  public:
    Relay() = default;
    Relay(const Relay&) = delete;
    Relay& operator=(const Relay&) = delete;
    virtual ~Relay() = default;

    /// Carries one session to its end and closes both sockets, whatever happens. Both must be sockets of the
    /// relay's io_context with no operation pending, and have what prepare_to_relay() sets. `options` is
    /// copied.
    ///
    /// Terminal cancellation of the calling coroutine resets both sides and returns kCancelled promptly; as
    /// always in Asio the coroutine stays cancelled, so its next co_await throws operation_aborted unless it
    /// resets its cancellation state.
    virtual boost::asio::awaitable<RelayResult> run(boost::asio::ip::tcp::socket guest,
                                                    boost::asio::ip::tcp::socket upstream,
                                                    const RelayOptions& options) = 0;

    /// The word of the configuration and of events: "uring" or "copy".
    [[nodiscard]] virtual std::string_view name() const = 0;
};

struct UringSettings {
    /// Bytes of one buffer: what one recv can take.
    std::size_t buffer_bytes = std::size_t{128} * 1024;
    /// Buffers shared by all sessions of the worker; a power of two, at most 32768. Pages are touched on
    /// first use.
    unsigned buffer_count = 256;
    /// Entries of the submission queue; a power of two. More may be pending, they wait in userspace.
    unsigned queue_entries = 1024;
};

/// A relay over io_uring with one ring and one pool of provided buffers.
///
/// kUnsupported when io_uring is disabled or the kernel lacks what is needed (5.19: provided-buffer rings,
/// cancelling by descriptor); it is probed by doing it. kInvalid for settings outside their bounds.
Result<std::unique_ptr<Relay>> make_uring_relay(boost::asio::io_context& context,
                                                const UringSettings& settings);

/// A relay over Asio's reactor; needs nothing of the kernel.
std::unique_ptr<Relay> make_copy_relay(boost::asio::io_context& context);

} // namespace tapgate::net
