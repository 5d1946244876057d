// SPDX-License-Identifier: Apache-2.0
#include "control/open_metrics.hpp"

#include "base/result.hpp"

#include <boost/json/object.hpp>
#include <fmt/format.h>

#include <cmath>

namespace tapgate::control {

namespace json = boost::json;

namespace {

std::string_view type_word(MetricType type) {
    switch (type) {
    case MetricType::kGauge:
        return "gauge";
    case MetricType::kCounter:
        return "counter";
    case MetricType::kHistogram:
        return "histogram";
    case MetricType::kInfo:
        return "info";
    }
    return "unknown";
}

std::string_view type_suffix(MetricType type) {
    switch (type) {
    case MetricType::kCounter:
        return "_total";
    case MetricType::kInfo:
        return "_info";
    case MetricType::kGauge:
    case MetricType::kHistogram:
        break;
    }
    return {};
}

/// As a label value or a help text may have it: printable ASCII, other bytes as `?`.
std::string escaped(std::string_view text) {
    std::string result;
    for (const char c : text) {
        if (c == '\\' || c == '"')
            result += '\\';
        const auto byte = static_cast<unsigned char>(c);
        result += byte >= 0x20 && byte < 0x7f ? c : '?';
    }
    return result;
}

/// Whole numbers without a fraction, as counters have them.
std::string number(double value) {
    constexpr double kExact = 9007199254740992.0; // 2^53
    if (std::trunc(value) == value && std::abs(value) < kExact)
        return fmt::format("{:.0f}", value);
    return fmt::format("{}", value);
}

void append_sample(std::string& text, const MetricFamily& family, const MetricFamily::Sample& sample) {
    text += family.name;
    text += sample.suffix;
    char separator = '{';
    for (const auto& [key, value] : sample.labels) {
        text += separator;
        text += fmt::format("{}=\"{}\"", key, escaped(value));
        separator = ',';
    }
    text += fmt::format("{} {}\n", sample.labels.empty() ? "" : "}", number(sample.value));
}

} // namespace

void MetricFamily::add(MetricLabels labels, double value) {
    samples.push_back({type_suffix(type), std::move(labels), value});
}

void MetricFamily::add_histogram(std::span<const double> bounds, std::span<const std::uint64_t> counts,
                                 double sum) {
    TAPGATE_ASSERT(type == MetricType::kHistogram && counts.size() == bounds.size() + 1);
    std::uint64_t below = 0;
    for (std::size_t i = 0; i < counts.size(); ++i) {
        below += counts[i];
        std::string bound = i < bounds.size() ? fmt::format("{}", bounds[i]) : "+Inf";
        // The canonical form has a fraction.
        if (bound.find_first_of(".I") == std::string::npos)
            bound += ".0";
        samples.push_back({"_bucket", {{"le", std::move(bound)}}, static_cast<double>(below)});
    }
    samples.push_back({"_count", {}, static_cast<double>(below)});
    samples.push_back({"_sum", {}, sum});
}

std::string open_metrics_text(std::span<const MetricFamily> families) {
    std::string text;
    for (const MetricFamily& family : families) {
        text += fmt::format("# TYPE {} {}\n", family.name, type_word(family.type));
        if (!family.unit.empty())
            text += fmt::format("# UNIT {} {}\n", family.name, family.unit);
        text += fmt::format("# HELP {} {}\n", family.name, escaped(family.help));
        for (const MetricFamily::Sample& sample : family.samples)
            append_sample(text, family, sample);
    }
    return text + "# EOF\n";
}

json::array open_metrics_json(std::span<const MetricFamily> families) {
    json::array array;
    for (const MetricFamily& family : families) {
        json::array samples;
        for (const MetricFamily::Sample& sample : family.samples) {
            json::object labels;
            for (const auto& [key, value] : sample.labels)
                labels[json::string_view(key.data(), key.size())] = escaped(value);
            json::object object;
            object["name"] = fmt::format("{}{}", family.name, sample.suffix);
            object["labels"] = std::move(labels);
            object["value"] = sample.value;
            samples.push_back(std::move(object));
        }
        json::object object;
        object["name"] = json::string_view(family.name.data(), family.name.size());
        object["type"] = json::string_view(type_word(family.type).data(), type_word(family.type).size());
        object["help"] = json::string_view(family.help.data(), family.help.size());
        object["samples"] = std::move(samples);
        array.push_back(std::move(object));
    }
    return array;
}

} // namespace tapgate::control
