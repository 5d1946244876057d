// SPDX-License-Identifier: Apache-2.0
#include "carriers.hpp"
#include "harness/sandbox.hpp"
#include "load.hpp"

#include <boost/json.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

// Connections through bare forwarding, tapgate, HAProxy and nginx, in turn. See README.md.

namespace tapgate::test {
namespace {

constexpr unsigned kDefaultRounds = 5;
constexpr unsigned kDefaultMilliseconds = 1000;
constexpr unsigned kClients = 16;
constexpr unsigned kIdleFlows = 500;

struct Way {
    std::unique_ptr<Carrier> carrier;
    std::unique_ptr<Servers> servers;
};

/// What was measured, by what it is and by carrier, a value for each round.
class Results {
  public:
    void add(const std::string& what, const std::string& carrier, double value) {
        if (std::ranges::find(order_, what) == order_.end())
            order_.push_back(what);
        values_[what][carrier].push_back(value);
    }

    /// The median of each and, in parentheses, its ratio to that of the first carrier.
    void print(const std::vector<std::string>& carriers) const {
        fmt::print("{:34}", "median (ratio to the first)");
        for (const std::string& carrier : carriers)
            fmt::print(" {:>18}", carrier);
        fmt::print("\n");
        for (const std::string& what : order_) {
            fmt::print("{:34}", what);
            const double first = median(what, carriers.front());
            for (const std::string& carrier : carriers) {
                const double value = median(what, carrier);
                const std::string ratio = first > 0 ? fmt::format("({:.2f})", value / first) : "";
                fmt::print(" {:>10.2f} {:>7}", value, ratio);
            }
            fmt::print("\n");
        }
    }

    [[nodiscard]] boost::json::object to_json() const {
        boost::json::object all;
        for (const std::string& what : order_) {
            boost::json::object row;
            for (const auto& [carrier, values] : values_.at(what))
                row[carrier] = boost::json::value_from(values);
            all[what] = std::move(row);
        }
        return all;
    }

  private:
    [[nodiscard]] double median(const std::string& what, const std::string& carrier) const {
        const auto found = values_.at(what).find(carrier);
        if (found == values_.at(what).end())
            return 0;
        std::vector<double> values = found->second;
        const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
        std::ranges::nth_element(values, middle);
        return *middle;
    }

    std::vector<std::string> order_;
    std::map<std::string, std::map<std::string, std::vector<double>>> values_;
};

/// Everything but memory, once through one carrier.
class Round {
  public:
    Round(Results& results, std::chrono::milliseconds time) : results_(results), time_(time) {}

    void bulk(const Way& way, bool up, unsigned streams) {
        const BulkResult result = measure_bulk(*way.carrier, *way.servers, up, streams, time_);
        const std::string what =
            fmt::format("{}, {} stream{}", up ? "up" : "down", streams, streams == 1 ? "" : "s");
        add(what + ", Gbit/s", way, result.gigabits_per_second);
        add(what + ", CPU s/GB", way, result.cpu_seconds_per_gigabyte);
    }

    void connects(const Way& way) {
        add_attempts(way, "new connections", "a new connection",
                     measure_connects(*way.carrier, kClients, time_));
    }

    void denials(const Way& way) {
        add_attempts(way, "denied SYNs", "a denied SYN", measure_denials(*way.carrier, kClients, time_));
    }

    void latency(const Way& way) {
        const LatencyResult result = measure_latency(*way.carrier, time_);
        add("64 bytes to and fro, median us", way, result.median_us);
        add("64 bytes to and fro, 99 % us", way, result.p99_us);
    }

  private:
    void add_attempts(const Way& way, std::string_view many, std::string_view one,
                      const ConnectResult& result) {
        add(fmt::format("{} a second", many), way, result.per_second);
        add(fmt::format("{}, median us", one), way, result.median_us);
        add(fmt::format("{}, 99 % us", one), way, result.p99_us);
        add(fmt::format("{}, failed", many), way, static_cast<double>(result.failed));
    }

    void add(const std::string& what, const Way& way, double value) {
        results_.add(what, way.carrier->name(), value);
    }

    Results& results_;
    std::chrono::milliseconds time_;
};

/// With `bulk_only`, nothing but bulk, by forwarding and the kernel splice: many rounds in little time.
int run(bool bulk_only, unsigned rounds, std::chrono::milliseconds time, const char* json_file) {
    std::vector<Way> ways;
    std::vector<std::string> names;
    for (std::unique_ptr<Carrier>& carrier : make_carriers()) {
        if (bulk_only && ways.size() == 2)
            break;
        auto servers = std::make_unique<Servers>(*carrier);
        names.push_back(carrier->name());
        ways.push_back({std::move(carrier), std::move(servers)});
    }
    Results results;
    Round round(results, time);
    const auto measure_all = [&](unsigned i) {
        // Interleaved: the machine changes from minute to minute. Who comes first changes from round to
        // round.
        const auto each = [&](const auto& measure) {
            for (std::size_t k = 0; k < ways.size(); ++k)
                measure(ways[(i + k) % ways.size()]);
        };
        for (const unsigned streams : {1U, 8U, 64U}) {
            for (const bool up : {true, false})
                each([&](const Way& way) { round.bulk(way, up, streams); });
        }
        if (!bulk_only) {
            each([&](const Way& way) { round.connects(way); });
            each([&](const Way& way) { round.denials(way); });
            each([&](const Way& way) { round.latency(way); });
        }
        fmt::print(stderr, "round {} of {}\n", i + 1, rounds);
    };
    std::string failure;
    try {
        for (unsigned i = 0; i < rounds; ++i)
            measure_all(i);
        for (std::size_t i = 0; !bulk_only && i < ways.size(); ++i)
            results.add("memory of an idle flow, KiB", names[i],
                        measure_idle_memory(*ways[i].carrier, kIdleFlows) / 1024);
    } catch (const std::exception& error) {
        failure = error.what(); // what was measured until then is not lost
    }
    results.print(names);
    if (json_file != nullptr) {
        boost::json::object report;
        report["schema"] = 1;
        report["rounds"] = rounds;
        report["milliseconds"] = time.count();
        report["values"] = results.to_json();
        std::ofstream file(json_file);
        file << boost::json::serialize(report) << "\n" << std::flush;
        if (!file)
            throw std::runtime_error(fmt::format("cannot write {}", json_file));
    }
    if (!failure.empty())
        throw std::runtime_error(failure);
    return 0;
}

} // namespace
} // namespace tapgate::test

int main(int argc, char** argv) {
    using namespace tapgate::test;
    const bool bulk_only = argc > 1 && std::string_view(argv[1]) == "bulk";
    if (bulk_only) {
        --argc;
        ++argv;
    }
    const auto number = [&](int index, unsigned otherwise) {
        return argc > index ? static_cast<unsigned>(std::strtoul(argv[index], nullptr, 10)) : otherwise;
    };
    std::signal(SIGPIPE, SIG_IGN);
    try {
        enter_sandbox("nameserver 192.0.2.1\n");
        return run(bulk_only, number(1, kDefaultRounds),
                   std::chrono::milliseconds(number(2, kDefaultMilliseconds)), argc > 3 ? argv[3] : nullptr);
    } catch (const std::exception& error) {
        fmt::print(stderr, "splice_bench: {}\n", error.what());
        return 1;
    }
}
