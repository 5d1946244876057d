// SPDX-License-Identifier: Apache-2.0
#include "datapath/verdict_engine.hpp"
#include "harness/random_policy.hpp"
#include "program_fixture.hpp"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

// The kernel's verdicts on random flows under random policies. Set TAPGATE_SEED and TAPGATE_CASES to look
// further; the target policy_property runs 200,000 cases of each.

namespace tapgate::test {

namespace {

using policy::test::Flow;

/// Enough that the kernel's grace period for each new policy does not take all the time.
constexpr std::size_t kFlowsPerPolicy = 50;

class PolicyPropertyTest : public testing::Test {
  protected:
    void SetUp() override {
        auto engine = datapath::VerdictEngine::open();
        ASSERT_TRUE(engine) << engine.error().message();
        engine_ = std::move(*engine);
    }

    void use(policy::Policy policy) {
        auto compiled = policy::CompiledPolicy::compile(std::move(policy));
        ASSERT_TRUE(compiled) << compiled.error().message();
        policy_ = *compiled;
        const auto used = engine_->use(*policy_);
        ASSERT_TRUE(used) << used.error().message();
    }

    /// Compares the kernel's judgement with the decision functions, and counts the verdict.
    void compare(const Flow& flow, std::size_t number) {
        const policy::FlowFacts facts = flow.facts();
        const auto kernel = engine_->judge(facts);
        ASSERT_TRUE(kernel) << kernel.error().message();
        if (!*kernel)
            return;
        const policy::Decision decision = policy::decide_syn(*policy_, facts);
        std::optional<std::size_t> group;
        if (decision.rule)
            group = policy_->rule_group_of(static_cast<policy::RuleIndex>(*decision.rule));
        const auto where = [&] {
            return "seed " + std::to_string(seed_) + ", case " + std::to_string(number) + "\n" +
                   policy::test::describe(policy_->policy(), flow);
        };
        ASSERT_EQ((*kernel)->policy_verdict(), decision.verdict) << where();
        ASSERT_EQ((*kernel)->rule_group, group) << where();
        ++seen_.at(static_cast<std::size_t>(decision.verdict));
    }

    std::size_t seed_ = policy::test::from_environment("TAPGATE_SEED", policy::test::kDefaultSeed);
    std::size_t cases_ = policy::test::from_environment("TAPGATE_CASES", is_quick() ? 2'000 : 10'000);
    std::unique_ptr<datapath::VerdictEngine> engine_;
    std::shared_ptr<const policy::CompiledPolicy> policy_;
    std::array<std::size_t, 3> seen_{}; // by policy::Verdict
};

TEST_F(PolicyPropertyTest, the_kernel_agrees_with_the_decision_functions_and_with_a_plain_walk) {
    policy::test::Generator generator(seed_);
    for (std::size_t i = 0; i < cases_; ++i) {
        if (i % kFlowsPerPolicy == 0) {
            ASSERT_NO_FATAL_FAILURE(use(generator.policy()));
        }
        const Flow flow = generator.flow();
        ASSERT_NO_FATAL_FAILURE(compare(flow, i));
        const policy::Verdict walked =
            flow.protocol == policy::Protocol::kTcp
                ? policy::test::reference_syn(policy_->policy(), flow)
                : policy::test::reference_with_name(policy_->policy(), flow, nullptr);
        ASSERT_EQ(walked, policy::decide_syn(*policy_, flow.facts()).verdict)
            << policy::test::describe(policy_->policy(), flow);
    }
    // A generator that hardly ever allows, denies or defers would test nothing.
    for (const std::size_t count : seen_)
        EXPECT_GT(count, cases_ / 20);
}

TEST_F(PolicyPropertyTest, the_kernel_agrees_with_the_decision_function_on_questions) {
    policy::test::Generator generator(seed_);
    for (std::size_t i = 0; i < cases_; ++i) {
        if (i % kFlowsPerPolicy == 0) {
            ASSERT_NO_FATAL_FAILURE(use(generator.query_policy()));
        }
        const policy::Name name = generator.any_name();
        const auto kernel = engine_->judge_question(name);
        ASSERT_TRUE(kernel) << kernel.error().message();
        const policy::Decision decision = policy::decide_query(*policy_, name, policy::Protocol::kUdp);
        const bool denied = decision.verdict == policy::Verdict::kDeny;
        const policy::Verdict expected = denied && policy::alias_could_allow(*policy_, decision)
                                             ? policy::Verdict::kDefer
                                             : decision.verdict;
        const auto where = [&] {
            return "seed " + std::to_string(seed_) + ", case " + std::to_string(i) + ", " + name.text() +
                   "\n" + policy::to_json(policy_->policy());
        };
        ASSERT_EQ(kernel->policy_verdict(), expected) << where();
        if (expected != policy::Verdict::kDefer) {
            std::optional<std::size_t> group;
            if (decision.rule)
                group = policy_->rule_group_of(static_cast<policy::RuleIndex>(*decision.rule));
            ASSERT_EQ(kernel->rule_group, group) << where();
        }
        ++seen_.at(static_cast<std::size_t>(expected));
    }
    for (const std::size_t count : seen_)
        EXPECT_GT(count, cases_ / 20);
}

/// Addresses and blocks close to each other and to every edge there is.
class AddressGenerator {
  public:
    explicit AddressGenerator(std::uint64_t seed) : random_(seed) {}

    std::size_t below(std::size_t count) { return random_() % count; }

    IpAddress address() {
        static const std::array starts = {*IpAddress::parse("0.0.0.0"),
                                          *IpAddress::parse("10.0.0.0"),
                                          *IpAddress::parse("169.254.169.254"),
                                          *IpAddress::parse("198.51.100.0"),
                                          *IpAddress::parse("255.255.255.255"),
                                          *IpAddress::parse("::"),
                                          *IpAddress::parse("::fffe:ffff:ffff"),
                                          *IpAddress::parse("::1:0:0:0"),
                                          *IpAddress::parse("64:ff9b::a00:0"),
                                          *IpAddress::parse("64:ff9b::c633:6400"),
                                          *IpAddress::parse("2002:a00:1::"),
                                          *IpAddress::parse("2002:c633:6401::"),
                                          *IpAddress::parse("2001:db8::"),
                                          *IpAddress::parse("fe80::"),
                                          *IpAddress::parse("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")};
        IpAddress::Bytes bytes = starts.at(below(starts.size())).bytes();
        // A few bits, mostly at the end.
        for (std::size_t flips = below(3); flips > 0; --flips) {
            const std::size_t bit = below(4) == 0 ? below(128) : 120 + below(8);
            bytes.at(bit / 8) ^= static_cast<std::uint8_t>(0x80U >> (bit % 8));
        }
        return IpAddress(bytes);
    }

    IpPrefix block() {
        const IpAddress inside = address();
        const std::size_t fixed = inside.is_v4() ? 96 : 0;
        const std::size_t length = below(2) == 0 ? 128 - below(9) : fixed + below(129 - fixed);
        IpAddress::Bytes bytes = inside.bytes();
        for (std::size_t bit = length; bit < 128; ++bit)
            bytes.at(bit / 8) &= static_cast<std::uint8_t>(~(0x80U >> (bit % 8)));
        return {IpAddress(bytes), static_cast<unsigned>(length)};
    }

    policy::Policy policy() {
        using policy::BuiltinGroup;
        policy::Policy policy;
        policy.default_egress = below(2) == 0 ? policy::Action::kAllow : policy::Action::kDeny;
        for (const char* group : {"corp", "public", "meta", "host"})
            for (std::size_t count = below(3); count > 0; --count)
                policy.groups[group].push_back(block());
        policy.groups["corp"].push_back(*IpPrefix::parse("198.51.100.0/24"));
        for (std::size_t count = below(12); count > 0; --count) {
            policy::Rule rule;
            rule.action = below(2) == 0 ? policy::Action::kAllow : policy::Action::kDeny;
            if (below(3) == 0)
                rule.target = policy::GroupTarget{std::string("corp")};
            else if (below(2) == 0)
                rule.target = policy::GroupTarget{static_cast<BuiltinGroup>(below(8))};
            else
                rule.target = policy::PrefixTarget{block()};
            policy.rules.push_back(std::move(rule));
        }
        return policy;
    }

    Flow flow() {
        Flow flow;
        flow.destination = address();
        flow.port = 443;
        return flow;
    }

  private:
    std::mt19937_64 random_;
};

TEST_F(PolicyPropertyTest, the_kernel_agrees_on_addresses_at_every_edge) {
    AddressGenerator generator(seed_);
    for (std::size_t i = 0; i < cases_; ++i) {
        if (i % kFlowsPerPolicy == 0) {
            ASSERT_NO_FATAL_FAILURE(use(generator.policy()));
        }
        ASSERT_NO_FATAL_FAILURE(compare(generator.flow(), i));
    }
    EXPECT_GT(seen_.at(static_cast<std::size_t>(policy::Verdict::kAllow)), cases_ / 20);
    EXPECT_GT(seen_.at(static_cast<std::size_t>(policy::Verdict::kDeny)), cases_ / 20);
}

} // namespace

} // namespace tapgate::test
