// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/bytes.hpp"
#include "net/relay_session.hpp"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace tapgate::net {

/// What a copying relay reads into; shared by the sessions of a worker. Larger gains nothing over loopback
/// and starts to fall out of the second-level cache.
using CopyBuffer = std::array<std::uint8_t, 128UL * 1024>;

/// A session over Asio's reactor. Two pump coroutines, one per direction, and two watches:
///
///     wait readable -> recv() into the scratch buffer -> send() -> again, until recv() has nothing
///                                                          |
///                         what the sink does not take: a copy of the tail, kept until the sink has taken it
///
/// The reactor runs one coroutine at a time and a pump never waits with bytes in the scratch buffer, so one
/// buffer serves all sessions and stays in the cache; an idle session holds none and a stalled one its tail
/// alone. While its sink is stalled a pump does not read, so an RST of the source would go unnoticed: hence
/// the watches.
class CopySession : public RelaySession, public std::enable_shared_from_this<CopySession> {
  public:
    CopySession(boost::asio::ip::tcp::socket guest, boost::asio::ip::tcp::socket upstream,
                std::shared_ptr<CopyBuffer> scratch, const RelayOptions& options);

    void start();

  protected:
    /// The pump of one direction: returns once its source has ended or the session has. After each wait the
    /// session may have ended, its sockets closed.
    virtual boost::asio::awaitable<void> carry(Direction direction);

    /// Sends `length` bytes at `data`, which need not outlive the call; false when the session has ended
    /// instead.
    boost::asio::awaitable<bool> send_all(Direction direction, const std::uint8_t* data, std::size_t length);
    /// One recv() of the source of `direction` into the scratch buffer, `most` bytes of it: the count, 0 at
    /// FIN, -1 when there is nothing to read or the session has ended over an error.
    std::ptrdiff_t receive(Direction direction, std::size_t most = std::tuple_size_v<CopyBuffer>);
    void source_ended(Direction direction);

    /// A pump holds nothing of its direction at this moment. May end the session.
    virtual void between_buffers() {}

    /// `bytes` were read from the source of `direction` and go to the sink next.
    virtual void passing(Direction /*direction*/, ByteView /*bytes*/) {}

    /// The source of `direction` has sent FIN, which goes to the sink next.
    virtual void passing_end(Direction /*direction*/) {}

    /// True while bytes of `direction` wait for their sink.
    [[nodiscard]] bool is_sending(Direction direction) const {
        return is_sending_[static_cast<std::size_t>(direction)];
    }

    boost::asio::ip::tcp::socket& socket(RelayParty party) {
        return sockets_[party == RelayParty::kGuest ? 0 : 1];
    }

    [[nodiscard]] const CopyBuffer& scratch() const { return *scratch_; }

    void release() override;
    /// Ends the watches; their sockets are closed or no longer this session's.
    void stop_watching();

  private:
    static boost::asio::awaitable<void> pump(std::shared_ptr<CopySession> self, Direction direction);
    void watch(RelayParty party);
    void look_for_error(RelayParty party);

    std::array<boost::asio::ip::tcp::socket, 2> sockets_;
    std::array<boost::asio::steady_timer, 2> watch_pauses_;
    std::shared_ptr<CopyBuffer> scratch_;
    std::array<bool, 2> is_sending_{};
};

} // namespace tapgate::net
