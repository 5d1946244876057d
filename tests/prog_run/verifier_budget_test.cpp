// SPDX-License-Identifier: Apache-2.0
#include "program_fixture.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

namespace tapgate::test {

namespace {

/// What the verifier walks for each program; the kernel's limit is 1,000,000. A change that comes near the
/// budget has lost the property that bpf/README.md describes, or needs a larger one for a stated reason.
struct Budget {
    const char* program;
    std::uint32_t instructions;
};

class VerifierBudgetTest : public ProgRunTest {};

TEST_F(VerifierBudgetTest, each_program_stays_within_its_budget) {
    for (const Budget& budget : {Budget{"tap_ingress", 30'000}, Budget{"tap_egress", 30'000}}) {
        const auto* const program = bpf_object__find_program_by_name(product().object(), budget.program);
        ASSERT_NE(program, nullptr);
        bpf_prog_info info{};
        std::uint32_t size = sizeof info;
        ASSERT_EQ(bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size), 0);
        RecordProperty(budget.program, static_cast<int>(info.verified_insns));
        std::printf("%s: %u instructions verified, %u bytes translated, %u bytes jited\n", budget.program,
                    info.verified_insns, info.xlated_prog_len, info.jited_prog_len);
        EXPECT_LE(info.verified_insns, budget.instructions) << budget.program;
    }
}

} // namespace

} // namespace tapgate::test
