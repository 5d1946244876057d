// SPDX-License-Identifier: Apache-2.0
#include "control/metrics_server.hpp"

#include "base/log.hpp"
#include "control/accept.hpp"
#include "control/open_metrics.hpp"
#include "net/async.hpp"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <fmt/format.h>

#include <list>
#include <optional>
#include <utility>

#include <netinet/in.h>
#include <sys/socket.h>

namespace tapgate::control {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;

namespace {

using Response = http::response<http::string_body>;

constexpr std::string_view kPath = "/metrics";

Response plain(http::status status, std::string text) {
    Response response(status, 11);
    response.set(http::field::content_type, "text/plain; charset=utf-8");
    response.body() = std::move(text);
    return response;
}

std::string_view path_of(boost::string_view target) {
    const std::string_view whole(target.data(), target.size());
    return whole.substr(0, whole.find('?'));
}

} // namespace

struct MetricsServer::State {
    State(asio::io_context& io_context, Render make_text, const MetricsServerLimits& server_limits)
        : context(io_context), render(std::move(make_text)), limits(server_limits), acceptor(io_context),
          accept_pause(io_context) {}

    asio::io_context& context;
    Render render;
    MetricsServerLimits limits;
    tcp::acceptor acceptor;
    asio::steady_timer accept_pause;
    std::list<beast::tcp_stream*> streams; // oldest first
    std::string text;
    std::optional<std::chrono::steady_clock::time_point> rendered;

    const std::string& current() {
        const auto now = std::chrono::steady_clock::now();
        if (!rendered || now - *rendered >= limits.freshness) {
            text = render();
            rendered = now;
        }
        return text;
    }

    Response answer(const http::request<http::empty_body>& request) {
        if (path_of(request.target()) != kPath)
            return plain(http::status::not_found, "the metrics are at /metrics\n");
        if (request.method() != http::verb::get) {
            Response response = plain(http::status::method_not_allowed, "only GET is served\n");
            response.set(http::field::allow, "GET");
            return response;
        }
        Response response(http::status::ok, 11);
        response.set(http::field::content_type,
                     boost::string_view(kOpenMetricsType.data(), kOpenMetricsType.size()));
        response.body() = current();
        return response;
    }

    static asio::awaitable<void> accept(std::shared_ptr<State> state);
    static asio::awaitable<void> serve(std::shared_ptr<State> state, tcp::socket socket);
};

asio::awaitable<void> MetricsServer::State::serve(std::shared_ptr<State> state, tcp::socket socket) {
    /// Keeps State::streams true, however the coroutine ends.
    struct Registration {
        Registration(State& owner, beast::tcp_stream& entry) : state(owner), stream(entry) {
            state.streams.push_back(&stream);
        }

        Registration(const Registration&) = delete;
        Registration& operator=(const Registration&) = delete;

        ~Registration() { state.streams.remove(&stream); }

        State& state;
        beast::tcp_stream& stream;
    };

    beast::tcp_stream stream(std::move(socket));
    const Registration registration(*state, stream);
    beast::flat_buffer buffer(state->limits.request_bytes);
    http::request_parser<http::empty_body> parser;
    parser.header_limit(static_cast<std::uint32_t>(state->limits.request_bytes));
    stream.expires_after(state->limits.timeout);
    const auto [error, length] = co_await http::async_read(stream, buffer, parser, net::kAsTuple);
    // What is no HTTP gets an answer, who went away or was too slow does not.
    const bool is_malformed = error &&
                              error.category() == http::make_error_code(http::error::bad_method).category() &&
                              error != http::error::end_of_stream && error != http::error::partial_message;
    if (error && !is_malformed)
        co_return;
    Response response = is_malformed ? plain(http::status::bad_request, "not a request that is served here\n")
                                     : state->answer(parser.get());
    response.keep_alive(false);
    response.prepare_payload();
    stream.expires_after(state->limits.timeout);
    // Whether the client took it is the client's business.
    static_cast<void>(co_await http::async_write(stream, response, net::kAsTuple));
    boost::system::error_code ignored;
    stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
}

asio::awaitable<void> MetricsServer::State::accept(std::shared_ptr<State> state) {
    const auto take = [&state](tcp::socket socket) {
        if (state->streams.size() >= state->limits.connections) {
            state->streams.front()->close();
            state->streams.pop_front();
        }
        net::spawn(state->context.get_executor(), "metrics client", serve(state, std::move(socket)));
    };
    co_await accept_clients(state->acceptor, state->accept_pause, "metrics", take);
}

Result<std::unique_ptr<MetricsServer>> MetricsServer::start(asio::io_context& context, const Endpoint& listen,
                                                            Render render,
                                                            const MetricsServerLimits& limits) {
    auto state = std::make_shared<State>(context, std::move(render), limits);
    sockaddr_storage address{};
    const unsigned length = listen.to_sockaddr(address);
    tcp::endpoint endpoint;
    endpoint.resize(length);
    std::memcpy(endpoint.data(), &address, length);
    boost::system::error_code error;
    state->acceptor.open(endpoint.protocol(), error);
    if (!error)
        state->acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error)
        state->acceptor.bind(endpoint, error);
    if (!error)
        state->acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error)
        return fail(ErrorCode::kIo, fmt::format("serve metrics on {}: {}; metrics_listen chooses another "
                                                "address, \"\" serves none",
                                                listen.to_string(), error.message()));
    net::spawn(context.get_executor(), "metrics accept", State::accept(state));
    return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(state)));
}

MetricsServer::MetricsServer(std::shared_ptr<State> state) : state_(std::move(state)) {}

MetricsServer::~MetricsServer() {
    boost::system::error_code ignored;
    state_->acceptor.close(ignored);
    state_->accept_pause.cancel();
    for (beast::tcp_stream* stream : state_->streams)
        stream->close();
}

Endpoint MetricsServer::endpoint() const {
    boost::system::error_code ignored;
    const tcp::endpoint local = state_->acceptor.local_endpoint(ignored);
    sockaddr_storage storage{};
    std::memcpy(&storage, local.data(), local.size());
    return Endpoint::from_sockaddr(storage).value_or(Endpoint());
}

} // namespace tapgate::control
