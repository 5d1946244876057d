// SPDX-License-Identifier: Apache-2.0
// What the fuzzers assert, without libFuzzer and in every build: of each file of their corpora, of its
// beginnings, and of the same with an octet changed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <ostream>
#include <random>
#include <vector>

// X(name) for each target: its entry is called fuzz_name here (CMakeLists.txt).
#define X(name) extern "C" int fuzz_##name(const std::uint8_t* data, std::size_t size);
TAPGATE_FUZZ_TARGETS
#undef X

namespace tapgate {
namespace {

using Input = std::vector<std::uint8_t>;

struct Target {
    const char* name;
    int (*run)(const std::uint8_t* data, std::size_t size);
};

std::ostream& operator<<(std::ostream& stream, const Target& target) {
    return stream << target.name;
}

constexpr Target kTargets[] = {
#define X(name) {#name, fuzz_##name},
    TAPGATE_FUZZ_TARGETS
#undef X
};

class Corpus : public testing::TestWithParam<Target> {};

TEST_P(Corpus, holds_what_the_fuzzer_asserts) {
    constexpr std::size_t kCuts = 64;
    constexpr unsigned kChanges = 64;
    // A failed assertion ends the process; what was printed last says with which file.
    for (const auto& entry :
         std::filesystem::directory_iterator(std::filesystem::path(TAPGATE_FUZZ_CORPORA) / GetParam().name)) {
        std::cout << entry.path().filename() << std::endl;
        std::ifstream content(entry.path(), std::ios::binary);
        const Input input(std::istreambuf_iterator<char>(content), {});
        // A copy of the right size, so that AddressSanitizer sees what is read behind it.
        const auto run = [](Input bytes) {
            bytes.shrink_to_fit();
            EXPECT_EQ(GetParam().run(bytes.data(), bytes.size()), 0);
        };
        run(input);
        const std::size_t step = 1 + input.size() / kCuts;
        for (std::size_t size = 0; size < input.size(); size += step)
            run(Input(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(size)));
        std::mt19937 random(static_cast<std::uint32_t>(input.size()));
        for (unsigned i = 0; i < kChanges && !input.empty(); ++i) {
            Input changed = input;
            changed[random() % changed.size()] = static_cast<std::uint8_t>(random());
            run(changed);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Targets, Corpus, testing::ValuesIn(kTargets),
                         [](const auto& of) { return std::string(of.param.name); });

} // namespace
} // namespace tapgate
