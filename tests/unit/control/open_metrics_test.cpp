// SPDX-License-Identifier: Apache-2.0
#include "control/open_metrics.hpp"

#include <boost/json/serialize.hpp>
#include <gtest/gtest.h>

#include <array>

namespace tapgate::control {
namespace {

std::vector<MetricFamily> examples() {
    MetricFamily guests{MetricType::kGauge, "guests", "Guests.", {}, {}};
    guests.add({}, 3);
    MetricFamily drops{MetricType::kCounter, "drops", "What \"fell\".", {}, {}};
    drops.add({{"reason", "udp"}, {"guest", "a\"b\\c\nd\xff"}}, 9007199254740991.0);
    drops.add({{"reason", "arp"}, {"guest", ""}}, 0);
    MetricFamily build{MetricType::kInfo, "build", "What runs.", {}, {}};
    build.add({{"version", "1.0"}}, 1);
    MetricFamily latency{MetricType::kHistogram, "latency_seconds", "How long.", "seconds", {}};
    latency.add_histogram(std::array{0.0005, 0.5, 1.0}, std::array<std::uint64_t, 4>{1, 0, 2, 4}, 12.25);
    return {guests, drops, build, latency};
}

// That it is OpenMetrics at all is for an independent parser to say (tests/netns/check_metrics.py).
TEST(OpenMetrics, each_type_has_its_samples_and_hostile_labels_stay_in_their_quotes) {
    EXPECT_EQ("\n" + open_metrics_text(examples()), R"(
# TYPE guests gauge
# HELP guests Guests.
guests 3
# TYPE drops counter
# HELP drops What \"fell\".
drops_total{reason="udp",guest="a\"b\\c?d?"} 9007199254740991
drops_total{reason="arp",guest=""} 0
# TYPE build info
# HELP build What runs.
build_info{version="1.0"} 1
# TYPE latency_seconds histogram
# UNIT latency_seconds seconds
# HELP latency_seconds How long.
latency_seconds_bucket{le="0.0005"} 1
latency_seconds_bucket{le="0.5"} 1
latency_seconds_bucket{le="1.0"} 3
latency_seconds_bucket{le="+Inf"} 7
latency_seconds_count 7
latency_seconds_sum 12.25
# EOF
)");
    EXPECT_EQ(open_metrics_text({}), "# EOF\n");
}

TEST(OpenMetrics, json_has_the_same_samples) {
    const std::vector<MetricFamily> all = examples();
    EXPECT_EQ(boost::json::serialize(open_metrics_json(std::span(all).first(1))),
              R"([{"name":"guests","type":"gauge","help":"Guests.",)"
              R"("samples":[{"name":"guests","labels":{},"value":3E0}]}])");
    EXPECT_EQ(open_metrics_json(all).at(3).at("samples").as_array().size(), 6U);
}

} // namespace
} // namespace tapgate::control
