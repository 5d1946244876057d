// SPDX-License-Identifier: Apache-2.0
#include "cli/commands.hpp"
#include "cli/table.hpp"
#include "datapath/requirements.hpp"
#include "net/features.hpp"

#include <boost/json/array.hpp>
#include <boost/json/value_from.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <sys/utsname.h>

namespace tapgate::cli {

namespace json = boost::json;

namespace {

std::string kernel_version() {
    utsname names{};
    ::uname(&names);
    return names.release;
}

std::string instead(const Feature& feature) {
    if (feature.present)
        return "";
    return feature.required() ? "nothing: tapgated does not start" : feature.instead;
}

json::object to_json(const Feature& feature) {
    json::object object;
    object["name"] = feature.name;
    object["text"] = feature.text;
    object["present"] = feature.present;
    object["required"] = feature.required();
    if (!feature.present && !feature.required())
        object["instead"] = feature.instead;
    if (!feature.detail.empty())
        object["detail"] = feature.detail;
    return object;
}

/// A way to carry connections, and the features that it needs beside the required ones.
struct Splice {
    std::string_view name;
    std::vector<std::string_view> needs;
};

/// The words of the configuration, in the order in which they fall back.
const std::vector<Splice>& splices() {
    static const std::vector<Splice> all = {
        {"kernel", {"tcp_repair", "raw_tcp"}}, {"uring", {"io_uring"}}, {"copy", {}}};
    return all;
}

/// The names of the features that are missing for it.
std::vector<std::string> missing_for(const Splice& splice, const std::vector<Feature>& features) {
    std::vector<std::string> missing;
    for (const Feature& feature : features) {
        const bool is_needed =
            feature.required() || std::ranges::find(splice.needs, feature.name) != splice.needs.end();
        if (is_needed && !feature.present)
            missing.push_back(feature.name);
    }
    return missing;
}

} // namespace

int feature_probe(Console& console, const Arguments&) {
    if (const auto allowed = datapath::check_capabilities(); !allowed)
        return console.failed(allowed.error());
    std::vector<Feature> features = datapath::probe_features();
    std::ranges::move(net::probe_features(), std::back_inserter(features));
    const bool usable = std::ranges::all_of(
        features, [](const Feature& feature) { return feature.present || !feature.required(); });

    if (console.json()) {
        json::array rows;
        for (const Feature& feature : features)
            rows.push_back(to_json(feature));
        json::object object;
        object["kernel"] = kernel_version();
        object["usable"] = usable;
        object["features"] = std::move(rows);
        json::array ways;
        for (const Splice& splice : splices()) {
            const std::vector<std::string> missing = missing_for(splice, features);
            ways.push_back(
                {{"name", splice.name}, {"usable", missing.empty()}, {"missing", json::value_from(missing)}});
        }
        object["splices"] = std::move(ways);
        console.print(object);
        return kExitOk;
    }
    Table table({"FEATURE", "PRESENT", "INSTEAD", "MEANING"});
    std::string details;
    for (const Feature& feature : features) {
        table.add({feature.name, feature.present ? "yes" : "no", instead(feature), feature.text});
        if (!feature.detail.empty())
            details += fmt::format("{}: {}\n", feature.name, feature.detail);
    }
    Table ways({"SPLICE", "USABLE", "MISSING"});
    for (const Splice& splice : splices()) {
        const std::vector<std::string> missing = missing_for(splice, features);
        ways.add({std::string(splice.name), missing.empty() ? "yes" : "no",
                  fmt::format("{}", fmt::join(missing, ","))});
    }
    console.print(fmt::format("kernel {}: {}\n{}{}{}", kernel_version(),
                              usable ? "has what tapgated needs" : "lacks what tapgated needs", table.text(),
                              details, ways.text()));
    return kExitOk;
}

} // namespace tapgate::cli
