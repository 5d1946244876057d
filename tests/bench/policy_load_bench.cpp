// SPDX-License-Identifier: Apache-2.0
#include "datapath/policy_image.hpp"
#include "datapath/verdict_engine.hpp"
#include "policy/compile.hpp"
#include "policy/decide.hpp"
#include "policy/parse.hpp"
#include "policy/tables.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

// Loads a large policy the way the daemon does, and prints what each step takes. See README.md.

namespace {

using namespace tapgate;
using Clock = std::chrono::steady_clock;

/// Resident memory of this process in octets (proc(5), statm).
std::size_t resident() {
    std::ifstream statm("/proc/self/statm");
    std::size_t total = 0;
    std::size_t pages = 0;
    statm >> total >> pages;
    return pages * 4096;
}

class Steps {
  public:
    void done(const char* what) {
        const auto now = Clock::now();
        fmt::print("{:28} {:8.0f} ms {:8} MiB\n", what,
                   std::chrono::duration<double, std::milli>(now - last_).count(), resident() >> 20U);
        last_ = Clock::now();
    }

  private:
    Clock::time_point last_ = Clock::now();
};

std::string policy_text(std::size_t names, std::size_t blocks) {
    std::string text = "rules = [\n";
    for (std::size_t i = 0; i < blocks; ++i)
        text += fmt::format("  \"deny@{}.{}.{}.0/24\",\n", 1 + (i >> 16U), (i >> 8U) & 0xffU, i & 0xffU);
    for (std::size_t i = 0; i < names; ++i)
        text += fmt::format("  \"allow@{}host{}.zone{}.example.com:tcp:443\",\n", i % 2 == 0 ? "*." : "", i,
                            i % 1000);
    return text + "]\n";
}

template <typename T>
T need(Result<T> result) {
    if (result)
        return std::move(*result);
    fmt::print(stderr, "{}\n", result.error().message());
    std::exit(EXIT_FAILURE);
}

/// Median time of one verdict, packet building and system calls included, in microseconds.
double verdict_time(datapath::VerdictEngine& engine, const policy::FlowFacts& facts) {
    std::vector<double> times;
    for (int i = 0; i < 2001; ++i) {
        const auto start = Clock::now();
        static_cast<void>(need(engine.judge(facts)));
        times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    }
    std::ranges::nth_element(times, times.begin() + 1000);
    return times[1000];
}

} // namespace

int main(int argc, char** argv) {
    const std::size_t names = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1'000'000;
    const std::size_t blocks = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 100'000;
    const std::string text = policy_text(names, blocks);
    auto engine = need(datapath::VerdictEngine::open());
    fmt::print("{} rules on names, {} on blocks, a file of {} MiB\n", names, blocks, text.size() >> 20U);

    const std::vector<policy::BoundName> bound = {
        {need(policy::Name::from_user("www.host2.zone2.example.com")), {}}};
    policy::FlowFacts facts;
    facts.destination = *Endpoint::parse("198.51.100.1:443");
    facts.bound = bound;
    const auto small = need(policy::CompiledPolicy::compile(
        need(policy::parse("rules = [\"allow@*.host2.zone2.example.com:tcp:443\"]", "small"))));
    if (const auto used = engine->use(*small); !used)
        return EXIT_FAILURE;
    const double before = verdict_time(*engine, facts);

    Steps steps;
    auto parsed = need(policy::parse(text, "bench"));
    steps.done("parse");
    const auto compiled = need(policy::CompiledPolicy::compile(std::move(parsed)));
    steps.done("compile");
    {
        const policy::Tables tables = policy::build_tables(*compiled);
        steps.done("tables");
        const auto image = need(datapath::build_policy_image(tables, 1, {1, 2}));
        steps.done("image");
        fmt::print("{:28} {:8} MiB, {} octets a rule\n", "in the kernel", image.size() >> 13U,
                   image.size() * 128 / std::max<std::size_t>(1, names + blocks));
    }
    steps.done("(freed)");
    if (const auto used = engine->use(*compiled); !used)
        return EXIT_FAILURE;
    steps.done("tables, image and install");
    fmt::print("{:28} {:8.2f} us under 1 rule, {:.2f} us under all\n", "a verdict, with system calls", before,
               verdict_time(*engine, facts));
    const auto start = Clock::now();
    constexpr int kDecisions = 20'000;
    for (int i = 0; i < kDecisions; ++i)
        static_cast<void>(policy::decide_syn(*compiled, facts));
    fmt::print("{:28} {:8.2f} us\n", "a decision in userspace",
               std::chrono::duration<double, std::micro>(Clock::now() - start).count() / kDecisions);
    return EXIT_SUCCESS;
}
