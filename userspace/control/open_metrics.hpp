// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/array.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// Metrics as values, and the two ways to write them down.
namespace tapgate::control {

enum class MetricType : std::uint8_t { kGauge, kCounter, kHistogram, kInfo };

using MetricLabels = std::vector<std::pair<std::string_view, std::string>>;

/// A metric family of OpenMetrics 1.0. `name` is without the suffix that samples of its type have (`_total`,
/// `_bucket`, `_info`); where it ends in a unit, `unit` is that word.
struct MetricFamily {
    struct Sample {
        std::string_view suffix;
        MetricLabels labels;
        double value = 0;
    };

    MetricType type = MetricType::kGauge;
    std::string_view name;
    std::string_view help;
    std::string_view unit;
    std::vector<Sample> samples;

    /// A sample with the suffix of its type. The labels of a family's samples are all different.
    void add(MetricLabels labels, double value);
    /// The samples of a histogram. `counts` has one place for each of the ascending `bounds` and one for what
    /// is above them all; each value stands in one of them.
    void add_histogram(std::span<const double> bounds, std::span<const std::uint64_t> counts, double sum);
};

/// The text of OpenMetrics 1.0, with its end mark. What does not print in a label value becomes `?`.
[[nodiscard]] std::string open_metrics_text(std::span<const MetricFamily> families);
inline constexpr std::string_view kOpenMetricsType =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// [{"name","type","help","samples":[{"name","labels":{},"value"}]}]
[[nodiscard]] boost::json::array open_metrics_json(std::span<const MetricFamily> families);

} // namespace tapgate::control
