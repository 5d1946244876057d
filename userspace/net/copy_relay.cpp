// SPDX-License-Identifier: Apache-2.0
//
// The relay over Asio's reactor: see copy_session.hpp.
#include "net/copy_session.hpp"

#include <utility>

namespace tapgate::net {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

class CopyRelay final : public Relay {
  public:
    ~CopyRelay() override { cancel_all(sessions_); }

    asio::awaitable<RelayResult> run(tcp::socket guest, tcp::socket upstream,
                                     const RelayOptions& options) override {
        const auto session =
            std::make_shared<CopySession>(std::move(guest), std::move(upstream), scratch_, options);
        sessions_.push_back(*session);
        session->start();
        co_return co_await supervise(session);
    }

    [[nodiscard]] std::string_view name() const override { return "copy"; }

  private:
    std::shared_ptr<CopyBuffer> scratch_ = std::make_shared<CopyBuffer>();
    RelaySessions sessions_;
};

} // namespace

std::unique_ptr<Relay> make_copy_relay(asio::io_context& /*context*/) {
    return std::make_unique<CopyRelay>();
}

} // namespace tapgate::net
