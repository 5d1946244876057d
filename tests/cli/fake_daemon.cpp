// SPDX-License-Identifier: Apache-2.0
#include "fake_daemon.hpp"

#include "cli/run.hpp"

#include <boost/asio/post.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <sstream>

namespace tapgate::cli {

namespace asio = boost::asio;
namespace json = boost::json;

TempDir::TempDir() : path_((std::filesystem::temp_directory_path() / "tapgate-XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr)
        std::abort();
}

TempDir::~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

std::string TempDir::write(const std::string& name, std::string_view text) const {
    std::ofstream(file(name), std::ios::binary) << text;
    return file(name);
}

FakeDaemon::FakeDaemon(std::initializer_list<std::pair<std::string, std::string>> replies) {
    server_.emplace(context_, socket_);
    for (const auto& [command, text] : replies) {
        const json::object reply = json::parse(text).as_object();
        server_->add(command, [this, reply](json::object args) -> asio::awaitable<Result<json::object>> {
            const std::lock_guard lock(mutex_);
            last_args_ = json::serialize(args);
            if (const json::value* error = reply.if_contains("error"))
                co_return fail(ErrorCode::kNotFound, std::string(error->as_string()));
            co_return reply;
        });
    }
    const auto started = server_->start();
    if (!started)
        std::abort();
    thread_ = std::thread([this] { context_.run(); });
}

FakeDaemon::~FakeDaemon() {
    asio::post(context_, [this] { server_.reset(); });
    work_.reset();
    thread_.join();
}

std::string FakeDaemon::last_args() {
    const std::lock_guard lock(mutex_);
    return last_args_;
}

void FakeDaemon::publish_to_monitor(const std::vector<json::object>& events) {
    const auto on_server = [this](auto function) {
        std::packaged_task<bool()> task(std::move(function));
        auto result = task.get_future();
        asio::post(context_, [&task] { task(); });
        return result.get();
    };
    while (!on_server([this] { return server_->has_monitors(); }))
        std::this_thread::yield();
    on_server([&] {
        for (const json::object& event : events)
            server_->publish(event);
        return true;
    });
}

void FakeDaemon::stop() {
    std::promise<void> stopped;
    asio::post(context_, [&] {
        server_.reset();
        stopped.set_value();
    });
    stopped.get_future().get();
}

Outcome run_cli(std::vector<std::string> words) {
    std::ostringstream out;
    std::ostringstream err;
    Outcome outcome;
    outcome.exit_code = run(words, out, err);
    outcome.out = out.str();
    outcome.err = err.str();
    return outcome;
}

} // namespace tapgate::cli
