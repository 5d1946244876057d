// SPDX-License-Identifier: Apache-2.0
#include "daemon/flow_log.hpp"

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include <sys/resource.h>
#include <sys/stat.h>

namespace tapgate::daemon {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;

class FlowLogTest : public testing::Test {
  protected:
    FlowLogTest() {
        std::string name = (fs::temp_directory_path() / "tapgate-flows-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr)
            throw std::runtime_error("no temporary directory");
        dir_ = name;
        settings_.file = (dir_ / "flows.jsonl").string();
    }

    ~FlowLogTest() override {
        std::error_code ignored;
        fs::remove_all(dir_, ignored);
    }

    static json::object record(int number) {
        json::object object;
        object["number"] = number;
        object["name"] = "a\nb\x1b\"";
        return object;
    }

    /// The numbers of the records in a file; a test failure if a line is not a record.
    [[nodiscard]] std::vector<std::int64_t> numbers(const std::string& suffix = "") const {
        std::ifstream file(settings_.file + suffix);
        std::vector<std::int64_t> found;
        for (std::string line; std::getline(file, line);) {
            boost::system::error_code error;
            const json::value value = json::parse(line, error);
            EXPECT_FALSE(error) << line;
            if (!error)
                found.push_back(value.at("number").as_int64());
        }
        return found;
    }

    [[nodiscard]] std::unique_ptr<FlowFile> open() const {
        auto log = FlowFile::open(settings_);
        EXPECT_TRUE(log.has_value()) << log.error().message();
        return std::move(*log);
    }

    fs::path dir_;
    FlowLogSettings settings_;
};

TEST_F(FlowLogTest, each_record_is_a_line_at_once_and_a_new_daemon_goes_on) {
    {
        const auto log = open();
        log->write(record(1));
        EXPECT_EQ(numbers(), (std::vector<std::int64_t>{1}));
        log->write(record(2));
    }
    open()->write(record(3));
    EXPECT_EQ(numbers(), (std::vector<std::int64_t>{1, 2, 3}));
    struct stat status{};
    ASSERT_EQ(::stat(settings_.file.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07U, 0U) << "not for everybody";
}

TEST_F(FlowLogTest, files_are_bounded_in_size_and_number_and_nothing_is_lost_between_them) {
    settings_.bytes = 200;
    settings_.files = 3;
    const auto log = open();
    for (int i = 0; i < 100; ++i) {
        log->write(record(i));
        ASSERT_LE(fs::file_size(settings_.file), settings_.bytes);
    }
    std::vector<std::int64_t> all;
    for (const char* suffix : {".3", ".2", ".1", ""}) {
        for (const std::int64_t number : numbers(suffix))
            all.push_back(number);
    }
    ASSERT_GT(all.size(), 8U);
    for (std::size_t i = 0; i < all.size(); ++i)
        EXPECT_EQ(all[i], 100 - static_cast<std::int64_t>(all.size() - i));
    EXPECT_FALSE(fs::exists(settings_.file + ".4"));
    EXPECT_EQ(log->failures(), 0U);
}

TEST_F(FlowLogTest, a_directory_that_goes_away_costs_records_and_nothing_else) {
    settings_.bytes = 200;
    const auto log = open();
    log->write(record(1));
    fs::remove_all(dir_);
    for (int i = 0; i < 20; ++i)
        log->write(record(i)); // needs a fresh file in between
    EXPECT_GT(log->failures(), 0U);
    fs::create_directory(dir_);
    const std::uint64_t failures = log->failures();
    log->write(record(100));
    EXPECT_EQ(log->failures(), failures);
    EXPECT_EQ(numbers(), (std::vector<std::int64_t>{100}));
}

TEST_F(FlowLogTest, a_record_that_fits_only_in_part_is_not_written_in_part) {
    const auto log = open();
    log->write(record(1));
    const auto size = fs::file_size(settings_.file);
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    rlimit tight = before;
    tight.rlim_cur = size + 10; // a write then ends there, as on a full disk
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
    log->write(record(2));
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_EQ(log->failures(), 1U);
    EXPECT_EQ(fs::file_size(settings_.file), size);
    log->write(record(3));
    EXPECT_EQ(numbers(), (std::vector<std::int64_t>{1, 3}));
}

TEST_F(FlowLogTest, what_is_no_file_or_has_no_directory_is_an_error_at_start) {
    fs::create_directory(settings_.file);
    EXPECT_FALSE(FlowFile::open(settings_).has_value());
    settings_.file = (dir_ / "missing/flows.jsonl").string();
    const auto missing = FlowFile::open(settings_);
    ASSERT_FALSE(missing.has_value());
    EXPECT_EQ(missing.error().message(),
              "open the flow log " + settings_.file + ": No such file or directory");
    fs::create_symlink("/dev/null", dir_ / "link");
    settings_.file = (dir_ / "link").string();
    EXPECT_FALSE(FlowFile::open(settings_).has_value()) << "a link could point anywhere";
}

} // namespace
} // namespace tapgate::daemon
