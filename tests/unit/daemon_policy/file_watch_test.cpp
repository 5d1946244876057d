// SPDX-License-Identifier: Apache-2.0
#include "daemon/file_watch.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include <stdlib.h>

namespace tapgate::daemon {
namespace {

namespace fs = std::filesystem;

/// inotify has told of an operation by the time it returns, so nothing is waited for here.
class FileWatchTest : public testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = (fs::temp_directory_path() / "file-watch-XXXXXX").string();
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        directory_ = pattern;
        file_ = directory_ / "policy.toml";
        write(file_, "old");
        watch_.add(file_);
        EXPECT_EQ(changes(), std::set<std::string>());
    }

    void TearDown() override { fs::remove_all(directory_); }

    static void write(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }

    std::set<std::string> changes() { return watch_.read_changes(); }

    [[nodiscard]] std::set<std::string> the_file() const { return {file_.string()}; }

    fs::path directory_;
    fs::path file_;
    FileWatch watch_ = *FileWatch::open();
};

TEST_F(FileWatchTest, a_write_counts_when_the_writer_has_closed_the_file) {
    std::ofstream writer(file_);
    writer << "half" << std::flush;
    EXPECT_EQ(changes(), std::set<std::string>());
    writer.close();
    EXPECT_EQ(changes(), the_file());
    EXPECT_EQ(changes(), std::set<std::string>());
}

TEST_F(FileWatchTest, a_file_moved_into_its_place_has_changed) {
    write(directory_ / "fresh", "new");
    EXPECT_EQ(changes(), std::set<std::string>());
    fs::rename(directory_ / "fresh", file_);
    EXPECT_EQ(changes(), the_file());
}

TEST_F(FileWatchTest, other_files_beside_it_are_nothing_to_it) {
    write(directory_ / "other", "x");
    fs::rename(directory_ / "other", directory_ / "another");
    EXPECT_EQ(changes(), std::set<std::string>());
}

TEST_F(FileWatchTest, a_symlink_beside_it_through_which_it_leads_has_changed_it) {
    fs::create_directory(directory_ / "one");
    write(directory_ / "one" / "policy.toml", "1");
    fs::create_symlink("one", directory_ / "..data");
    fs::remove(file_);
    fs::create_symlink("..data/policy.toml", file_);
    EXPECT_EQ(changes(), the_file());
    fs::create_symlink("two", directory_ / "..data_tmp");
    fs::rename(directory_ / "..data_tmp", directory_ / "..data");
    EXPECT_EQ(changes(), the_file());
}

TEST_F(FileWatchTest, a_directory_that_is_replaced_is_found_again_by_restore) {
    const fs::path aside = directory_.string() + "-aside";
    fs::rename(directory_, aside);
    EXPECT_EQ(changes(), std::set<std::string>());
    EXPECT_EQ(watch_.restore(), std::set<std::string>());
    fs::create_directory(directory_);
    EXPECT_EQ(watch_.restore(), the_file());
    EXPECT_EQ(watch_.restore(), std::set<std::string>());
    write(file_, "new");
    EXPECT_EQ(changes(), the_file());
    fs::remove_all(aside);
}

} // namespace
} // namespace tapgate::daemon
