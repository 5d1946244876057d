// SPDX-License-Identifier: Apache-2.0
#include "daemon/flow_syslog.hpp"

#include <boost/asio/io_context.hpp>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <stdexcept>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace tapgate::daemon {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;

/// What syslogd has: a datagram socket at a path.
class SyslogReader {
  public:
    explicit SyslogReader(const std::string& path)
        : path_(path), socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        if (::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
            throw std::runtime_error("bind " + path);
    }

    SyslogReader(const SyslogReader&) = delete;
    SyslogReader& operator=(const SyslogReader&) = delete;

    ~SyslogReader() { ::unlink(path_.c_str()); }

    /// The next message; empty if there is none now.
    [[nodiscard]] std::string read() const {
        std::array<char, 8192> bytes{};
        const ssize_t length = ::recv(socket_.get(), bytes.data(), bytes.size(), 0);
        return length < 0 ? "" : std::string(bytes.data(), static_cast<std::size_t>(length));
    }

  private:
    std::string path_;
    UniqueFd socket_;
};

class FlowSyslogTest : public testing::Test {
  protected:
    FlowSyslogTest() {
        std::string name = (fs::temp_directory_path() / "tapgate-syslog-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr)
            throw std::runtime_error("no temporary directory");
        dir_ = name;
        path_ = dir_ / "log";
    }

    ~FlowSyslogTest() override {
        std::error_code ignored;
        fs::remove_all(dir_, ignored);
    }

    [[nodiscard]] std::unique_ptr<FlowSyslog> open() {
        auto log = FlowSyslog::open(context_, path_);
        EXPECT_TRUE(log.has_value()) << log.error().message();
        return std::move(*log);
    }

    static json::object record(std::size_t number) {
        json::object object;
        object["number"] = number;
        object["name"] = "a\nb";
        object["text"] = std::string(1000, 'x'); // so that a few thousand fill the queue
        return object;
    }

    static std::string message(std::size_t number) {
        return "<30>tapgate-flow[" + std::to_string(::getpid()) + "]: {\"number\":" + std::to_string(number) +
               R"(,"name":"a\nb","text":")" + std::string(1000, 'x') + R"("})";
    }

    /// As the daemon's loop, until a message arrives; empty if none does.
    [[nodiscard]] std::string receive(const SyslogReader& reader) {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        std::string received = reader.read();
        while (received.empty() && std::chrono::steady_clock::now() < deadline) {
            context_.restart();
            context_.run_for(std::chrono::milliseconds(5));
            received = reader.read();
        }
        return received;
    }

    boost::asio::io_context context_{1};
    fs::path dir_;
    std::string path_;
};

TEST_F(FlowSyslogTest, a_record_is_a_message_in_the_form_of_syslog) {
    const SyslogReader reader(path_);
    const auto log = open();
    log->write(record(1));
    EXPECT_EQ(reader.read(), message(1));
    EXPECT_EQ(log->failures(), 0U);
}

TEST_F(FlowSyslogTest, what_a_slow_reader_has_no_room_for_is_kept_in_order_up_to_a_bound) {
    const SyslogReader reader(path_);
    const auto log = open();
    std::size_t written = 0;
    while (log->failures() == 0 && written < 100'000)
        log->write(record(written++));
    EXPECT_GT(written, FlowSyslog::kMostWaiting / 2000);
    EXPECT_EQ(log->failures(), 1U);
    for (std::size_t number = 0; number < written - 1; ++number)
        ASSERT_EQ(receive(reader), message(number));
    log->write(record(written));
    EXPECT_EQ(receive(reader), message(written)) << "there is room again";
    EXPECT_EQ(log->failures(), 1U);
}

TEST_F(FlowSyslogTest, a_reader_that_was_restarted_is_found_again) {
    auto reader = std::make_unique<SyslogReader>(path_);
    const auto log = open();
    reader.reset();
    log->write(record(1));
    log->write(record(2));
    EXPECT_EQ(log->failures(), 2U) << "nobody is there";
    reader = std::make_unique<SyslogReader>(path_);
    log->write(record(3));
    EXPECT_EQ(reader->read(), message(3));
    reader.reset();
    reader = std::make_unique<SyslogReader>(path_);
    log->write(record(4));
    EXPECT_EQ(reader->read(), message(4));
    EXPECT_EQ(log->failures(), 2U);
}

TEST_F(FlowSyslogTest, what_waits_for_a_reader_that_goes_away_is_counted_as_lost) {
    auto reader = std::make_unique<SyslogReader>(path_);
    const auto log = open();
    // More than a socket ever queues: net.unix.max_dgram_qlen and the sender's buffer bound it.
    constexpr std::size_t kWritten = 2'000;
    for (std::size_t number = 0; number < kWritten; ++number)
        log->write(record(number));
    ASSERT_EQ(log->failures(), 0U);
    std::size_t queued = 0;
    while (!reader->read().empty())
        ++queued;
    ASSERT_LT(queued, kWritten);
    reader.reset();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (log->failures() == 0 && std::chrono::steady_clock::now() < deadline) {
        context_.restart();
        context_.run_for(std::chrono::milliseconds(5));
    }
    EXPECT_EQ(log->failures(), kWritten - queued);
}

TEST_F(FlowSyslogTest, nobody_who_listens_is_an_error_at_start) {
    const auto log = FlowSyslog::open(context_, path_);
    ASSERT_FALSE(log.has_value());
    EXPECT_EQ(log.error().message(), "connect to the syslog socket " + path_ + ": No such file or directory");
}

} // namespace
} // namespace tapgate::daemon
