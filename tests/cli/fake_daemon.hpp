// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "control/server.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json/object.hpp>

#include <initializer_list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace tapgate::cli {

/// A directory of its own, removed with what is in it.
class TempDir {
  public:
    TempDir();
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    ~TempDir();

    [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }

    /// Writes a file there; returns its path.
    [[nodiscard]] std::string write(const std::string& name, std::string_view text) const;

  private:
    std::string path_;
};

/// A control socket whose commands give replies prepared by the test.
class FakeDaemon {
  public:
    /// Commands and their replies in JSON. A reply with an "error" member is a refusal.
    explicit FakeDaemon(std::initializer_list<std::pair<std::string, std::string>> replies);
    FakeDaemon(const FakeDaemon&) = delete;
    FakeDaemon& operator=(const FakeDaemon&) = delete;
    ~FakeDaemon();

    [[nodiscard]] const std::string& socket() const { return socket_; }

    /// The arguments of the last request, as JSON text.
    [[nodiscard]] std::string last_args();
    /// Waits for a monitor and sends it the events.
    void publish_to_monitor(const std::vector<boost::json::object>& events);
    /// Closes all connections and the socket.
    void stop();

  private:
    TempDir dir_;
    std::string socket_ = dir_.file("control.sock");
    boost::asio::io_context context_;
    boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{context_.get_executor()};
    std::optional<control::Server> server_;
    std::mutex mutex_;
    std::string last_args_; // guarded by mutex_
    std::thread thread_;
};

/// What a command line printed and returned.
struct Outcome {
    int exit_code = 0;
    std::string out;
    std::string err;
};

Outcome run_cli(std::vector<std::string> words);

} // namespace tapgate::cli
