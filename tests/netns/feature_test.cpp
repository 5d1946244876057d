// SPDX-License-Identifier: Apache-2.0
#include "harness/daemon.hpp"

#include <boost/json.hpp>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>

// `tapgate feature probe` on this kernel: against what the daemon then does, and against what the kernel
// matrix expects of the kernel (vmtests/kernels.toml), which hands it over in TAPGATE_EXPECTED_FEATURES.
namespace tapgate::test {
namespace {

namespace json = boost::json;

struct Probed {
    bool present = false;
    bool required = false;
    std::string instead;
};

class FeatureProbe : public testing::Test {
  protected:
    void SetUp() override {
        const Completed probe = run_program({cli_program(), "-j", "feature", "probe"});
        ASSERT_EQ(probe.exit_code, 0) << probe.out << probe.err;
        reply_ = json::parse(probe.out).as_object();
        for (const json::value& row : reply_.at("splices").as_array())
            splices_[std::string(row.at("name").as_string())] = row.at("usable").as_bool();
        for (const json::value& row : reply_.at("features").as_array()) {
            const json::object& feature = row.as_object();
            Probed& entry = probed_[std::string(feature.at("name").as_string())];
            entry.present = feature.at("present").as_bool();
            entry.required = feature.at("required").as_bool();
            if (const json::value* instead = feature.if_contains("instead"))
                entry.instead = instead->as_string();
        }
    }

    json::object reply_;
    std::map<std::string, Probed> probed_;
    std::map<std::string, bool> splices_;
};

TEST_F(FeatureProbe, every_required_feature_is_found_without_a_daemon) {
    EXPECT_EQ(reply_.at("schema").to_number<int>(), 1);
    EXPECT_TRUE(reply_.at("usable").as_bool());
    for (const auto& [name, feature] : probed_)
        EXPECT_TRUE(feature.present || !feature.required) << name;
}

TEST_F(FeatureProbe, the_text_says_of_each_feature_what_the_json_says) {
    const std::string text = must_run({cli_program(), "feature", "probe"});
    for (const auto& [name, feature] : probed_) {
        const std::size_t line = text.find("\n" + name + " ");
        ASSERT_NE(line, std::string::npos) << name << "\n" << text;
        std::istringstream words(text.substr(line));
        std::string word;
        words >> word >> word;
        EXPECT_EQ(word, feature.present ? "yes" : "no") << name;
        if (!feature.instead.empty()) {
            std::getline(words >> std::ws, word);
            EXPECT_TRUE(word.starts_with(feature.instead)) << word;
        }
    }
}

TEST_F(FeatureProbe, the_daemon_uses_what_the_probe_says) {
    const Topology topology;
    const Daemon daemon(topology, DaemonConfig{});
    const json::object status = daemon.ask({"status", "show"});
    const Probed& tcx = probed_.at("tcx");
    EXPECT_EQ(status.at("attach").as_string(), tcx.present ? "tcx" : tcx.instead);
    const Probed& io_uring = probed_.at("io_uring");
    EXPECT_EQ(status.at("splice").as_string(), io_uring.present ? "uring" : io_uring.instead);
}

TEST_F(FeatureProbe, a_splice_lacks_what_is_missing_of_its_features) {
    EXPECT_EQ(splices_.size(), 3U);
    EXPECT_EQ(splices_.at("kernel"), probed_.at("tcp_repair").present && probed_.at("raw_tcp").present);
    EXPECT_EQ(splices_.at("uring"), probed_.at("io_uring").present);
    EXPECT_TRUE(splices_.at("copy"));
    const std::string text = must_run({cli_program(), "feature", "probe"});
    for (const auto& [name, usable] : splices_)
        EXPECT_NE(text.find(fmt::format("\n{:<6}  {}", name, usable ? "yes" : "no")), std::string::npos)
            << text;
}

TEST_F(FeatureProbe, the_daemon_starts_with_a_splice_if_and_only_if_it_is_usable) {
    const Topology topology;
    for (const auto& [name, usable] : splices_) {
        DaemonConfig config;
        config.daemon = fmt::format("workers = 1\nsplice = \"{}\"", name);
        if (usable)
            EXPECT_EQ(Daemon(topology, config).ask({"status", "show"}).at("splice").as_string(), name);
        else
            EXPECT_THROW(Daemon(topology, config), std::runtime_error) << name;
    }
}

TEST_F(FeatureProbe, the_kernel_has_what_its_row_of_the_matrix_says) {
    const char* expected = std::getenv("TAPGATE_EXPECTED_FEATURES");
    if (expected == nullptr)
        GTEST_SKIP() << "nothing is known of this kernel beforehand";
    for (const auto& [name, present] : json::parse(expected).as_object())
        EXPECT_EQ(probed_.at(name).present, present.as_bool()) << name;
}

} // namespace
} // namespace tapgate::test
