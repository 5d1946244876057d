// SPDX-License-Identifier: Apache-2.0
#include "net/async.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/system/system_error.hpp>
#include <spdlog/spdlog.h>

#include <atomic>
#include <exception>
#include <memory>
#include <utility>

namespace tapgate::net {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

// The one piece of process-wide state here: a count has no reader that could be misled by sharing it.
std::atomic<std::uint64_t> escaped_count{0};

void report_escape(const std::string& name, const std::exception_ptr& escaped) {
    if (!escaped)
        return;
    try {
        std::rethrow_exception(escaped);
    } catch (const boost::system::system_error& error) {
        if (error.code() == asio::error::operation_aborted)
            return;
        spdlog::error("{}: ended by an exception: {}", name, error.what());
    } catch (const std::exception& error) {
        spdlog::error("{}: ended by an exception: {}", name, error.what());
    } catch (...) {
        spdlog::error("{}: ended by an exception of unknown type", name);
    }
    escaped_count.fetch_add(1, std::memory_order_relaxed);
}

/// Shared by the waiting coroutine and the handler of the socket's wait, whichever lives longer.
struct Wait {
    explicit Wait(const asio::any_io_executor& executor) : deadline(executor) {}

    asio::steady_timer deadline;
    asio::cancellation_signal withdraw;
    bool is_decided = false;
    error_code outcome;
};

// The coroutine waits for the timer, which carries its cancellation; the socket's wait runs beside it under a
// signal of its own, so that a timeout withdraws this wait and no other operation of the socket.
template <typename Socket>
asio::awaitable<error_code> wait_until(Socket& socket, asio::socket_base::wait_type what,
                                       std::chrono::steady_clock::time_point deadline) {
    const auto wait = std::make_shared<Wait>(co_await asio::this_coro::executor);
    auto on_socket = asio::bind_cancellation_slot(wait->withdraw.slot(), [wait](const error_code& error) {
        wait->is_decided = true;
        wait->outcome = error;
        wait->deadline.cancel();
    });
    wait->deadline.expires_at(deadline);
    socket.async_wait(what, std::move(on_socket));

    const auto [timer_error] = co_await wait->deadline.async_wait(kAsTuple);
    if (wait->is_decided)
        co_return wait->outcome;
    wait->withdraw.emit(asio::cancellation_type::terminal);
    if (timer_error)
        co_return timer_error;
    co_return error_code(asio::error::timed_out);
}

} // namespace

void spawn(const asio::any_io_executor& executor, std::string name, asio::awaitable<void> task) {
    asio::co_spawn(executor, std::move(task), [name = std::move(name)](const std::exception_ptr& escaped) {
        report_escape(name, escaped);
    });
}

void spawn(const asio::any_io_executor& executor, std::string name, asio::awaitable<void> task,
           std::shared_ptr<asio::cancellation_signal> cancel) {
    const asio::cancellation_slot slot = cancel->slot();
    auto on_end = [name = std::move(name), executor,
                   cancel = std::move(cancel)](const std::exception_ptr& escaped) mutable {
        report_escape(name, escaped);
        // This handler itself lies in the signal's memory: what holds the signal must outlive it.
        asio::post(executor, [cancel = std::move(cancel)] {});
    };
    asio::co_spawn(executor, std::move(task), asio::bind_cancellation_slot(slot, std::move(on_end)));
}

std::uint64_t escaped_exceptions() {
    return escaped_count.load(std::memory_order_relaxed);
}

asio::awaitable<error_code> wait_readable_until(asio::ip::tcp::socket& socket,
                                                std::chrono::steady_clock::time_point deadline) {
    return wait_until(socket, asio::socket_base::wait_read, deadline);
}

asio::awaitable<error_code> wait_readable_until(asio::ip::udp::socket& socket,
                                                std::chrono::steady_clock::time_point deadline) {
    return wait_until(socket, asio::socket_base::wait_read, deadline);
}

asio::awaitable<error_code> wait_writable_until(asio::ip::tcp::socket& socket,
                                                std::chrono::steady_clock::time_point deadline) {
    return wait_until(socket, asio::socket_base::wait_write, deadline);
}

} // namespace tapgate::net
