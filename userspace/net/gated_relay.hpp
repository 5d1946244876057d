// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/bytes.hpp"
#include "net/copy_session.hpp"
#include "net/relay.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

namespace tapgate::net {

/// Why a gate is offered bytes.
enum class GateCue : std::uint8_t {
    kBytes, ///< more has come, or the upstream has sent something
    kEnd,   ///< the guest has sent FIN: there will be no more
    kLate,  ///< the deadline of the last step has passed
};

/// What a gate says of the bytes that it was offered.
struct GateStep {
    enum class Then : std::uint8_t {
        kMore,   ///< offer again when more has come; after kEnd nothing may be left behind `pass`
        kAnswer, ///< read nothing more from the guest until the upstream has sent something or ended
        kOpen,   ///< everything behind `pass` goes upstream too, and the gate is asked no more
        kRefuse, ///< ends the session; nothing behind `pass` goes upstream
    };

    std::size_t pass = 0; ///< bytes at the front that go upstream
    Then then = Then::kMore;
    std::optional<std::chrono::steady_clock::time_point> deadline = std::nullopt; ///< of kMore, see kLate
};

/// Decides what of a guest's bytes may go upstream. Called on the worker's thread, never after the session
/// has ended.
class RelayGate {
  public:
    RelayGate() = default;
    RelayGate(const RelayGate&) = delete;
    RelayGate& operator=(const RelayGate&) = delete;
    virtual ~RelayGate() = default;

    /// `held` is all that has come from the guest and did not pass yet; what it held last time is still its
    /// beginning. At the start nothing has come.
    virtual GateStep offer(ByteView held, GateCue cue) = 0;
    /// The upstream has sent `bytes`, which go to the guest next.
    virtual void answered(ByteView bytes) = 0;
    /// The upstream has sent its FIN.
    virtual void answer_ended() = 0;
    /// The most bytes it wants held at a time. A gate that holds so many asks for no more.
    [[nodiscard]] virtual std::size_t capacity() const = 0;
};

struct GatedResult {
    RelayResult relay;
    /// With kRefused: something that the upstream has sent was not handed to the guest completely.
    bool guest_is_owed = false;
    /// With kOpened: the rest of the session is the caller's to carry.
    std::optional<boost::asio::ip::tcp::socket> upstream = std::nullopt;
};

/// Carries sessions as the `copy` relay does, but lets a gate decide what the guest's bytes may do. Ends,
/// resets, timeouts and the relay's lifetime are those of Relay.
class GatedRelay {
  public:
    GatedRelay() = default;
    GatedRelay(const GatedRelay&) = delete;
    GatedRelay& operator=(const GatedRelay&) = delete;
    ~GatedRelay();

    /// As Relay::run(), with these differences. `gate` is borrowed until this returns. When it refuses
    /// (kRefused) the upstream is reset, and `guest` is still connected and the caller's. When it opens, both
    /// sockets are the caller's (kOpened) as soon as nothing is between them; never, once one direction has
    /// ended.
    boost::asio::awaitable<GatedResult> run(boost::asio::ip::tcp::socket& guest,
                                            boost::asio::ip::tcp::socket upstream,
                                            const RelayOptions& options, RelayGate& gate);

  private:
    std::shared_ptr<CopyBuffer> scratch_ = std::make_shared<CopyBuffer>();
    RelaySessions sessions_;
};

} // namespace tapgate::net
