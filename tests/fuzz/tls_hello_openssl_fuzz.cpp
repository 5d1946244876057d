// SPDX-License-Identifier: Apache-2.0
#include "base/result.hpp"
#include "tests/harness/hello_mutator.hpp"
#include "tests/unit/proto/hello_differential.hpp"

#include <algorithm>
#include <cstdio>

// No code of OpenSSL's counts as covered, so the mutator that knows what a hello is made of does half of the
// work.
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t capacity);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t capacity,
                                               unsigned int seed) {
    if (seed % 2 == 0)
        return LLVMFuzzerMutate(data, size, capacity);
    const tapgate::test::Bytes stream = tapgate::test::HelloMutator(seed).mutate({data, data + size});
    const std::size_t kept = std::min(stream.size(), capacity);
    std::copy_n(stream.begin(), kept, data);
    return kept;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto comparison = tapgate::proto::compare_with_openssl({data, size});
    if (!comparison.finding.empty())
        std::fprintf(stderr, "finding: %s\n", comparison.finding.c_str());
    TAPGATE_ASSERT(comparison.finding.empty());
    return 0;
}
