// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/error_code.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace tapgate::net {

/// Completion token of the data path: `auto [error, n] = co_await socket.async_...(.., kAsTuple);`
inline constexpr boost::asio::as_tuple_t<boost::asio::use_awaitable_t<>> kAsTuple{};

/// Runs `task` on `executor` on its own. An exception that escapes it is logged with `name` and counted in
/// escaped_exceptions(), and ends only this task; operation_aborted is how a cancelled coroutine ends and is
/// neither.
void spawn(const boost::asio::any_io_executor& executor, std::string name, boost::asio::awaitable<void> task);

/// The same; `cancel` ends the task when it emits boost::asio::cancellation_type::terminal on the executor's
/// thread. It is held until nothing of the task is left: Asio keeps state of the task in the signal, and uses
/// it once more after the task has returned.
void spawn(const boost::asio::any_io_executor& executor, std::string name, boost::asio::awaitable<void> task,
           std::shared_ptr<boost::asio::cancellation_signal> cancel);

/// Exceptions that escaped from spawned tasks since the process started. Any thread.
[[nodiscard]] std::uint64_t escaped_exceptions();

/// Waits until `socket` can be read (data, FIN or error) or `deadline` has passed; consumes nothing.
///
/// Gives no error, asio::error::timed_out, asio::error::operation_aborted when the calling coroutine was
/// cancelled, or the error of the wait. The wait is withdrawn before this returns; other operations on the
/// socket are left alone and the socket stays usable.
boost::asio::awaitable<boost::system::error_code>
wait_readable_until(boost::asio::ip::tcp::socket& socket, std::chrono::steady_clock::time_point deadline);
boost::asio::awaitable<boost::system::error_code>
wait_readable_until(boost::asio::ip::udp::socket& socket, std::chrono::steady_clock::time_point deadline);

/// The same for writing; a pending connect() is decided once this gives no error.
boost::asio::awaitable<boost::system::error_code>
wait_writable_until(boost::asio::ip::tcp::socket& socket, std::chrono::steady_clock::time_point deadline);

} // namespace tapgate::net
