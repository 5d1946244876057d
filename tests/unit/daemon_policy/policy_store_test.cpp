// SPDX-License-Identifier: Apache-2.0
#include "daemon/policy_store.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace tapgate::daemon {
namespace {

class FakeKernel final : public PolicyInstaller {
  public:
    Result<std::uint64_t> install(const proxy::PolicyGeneration& policy, std::string_view text) override {
        if (refuses)
            return fail(ErrorCode::kLimit, "too many groups");
        if (text == left_text)
            return left_generation;
        installed.push_back(policy.generation);
        return policy.generation;
    }

    std::string left_text = "# nothing";
    std::uint64_t left_generation = 0;

    bool refuses = false;
    std::vector<std::uint64_t> installed;
};

PreparedPolicy prepared(const std::string& name, const std::string& text) {
    auto policy = prepare_policy({}, name, std::make_shared<const std::string>(text), name + ".toml");
    EXPECT_TRUE(policy) << policy.error().message();
    return std::move(*policy);
}

const PolicyOrigin kLoaded{PolicyOrigin::How::kLoad, "ann"};

TEST(PolicyStoreTest, generations_are_numbered_over_all_policies_from_the_first_on) {
    FakeKernel kernel;
    PolicyStore store(40, kernel);
    EXPECT_EQ(store.next_generation(), 40U);
    EXPECT_EQ((*store.commit(prepared("a", ""), kLoaded))->generation->generation, 40U);
    EXPECT_EQ((*store.commit(prepared("b", ""), kLoaded))->generation->generation, 41U);
    EXPECT_EQ((*store.commit(prepared("a", ""), kLoaded))->generation->generation, 42U);
    EXPECT_EQ(kernel.installed, (std::vector<std::uint64_t>{40, 41, 42}));
}

TEST(PolicyStoreTest, what_an_earlier_daemon_has_left_keeps_its_number) {
    FakeKernel kernel;
    kernel.left_text = "# the same";
    kernel.left_generation = 7;
    PolicyStore store(40, kernel);
    EXPECT_EQ((*store.commit(prepared("a", "# the same"), kLoaded))->generation->generation, 7U);
    EXPECT_EQ(store.find("a")->current().generation, 7U);
    EXPECT_EQ((*store.commit(prepared("a", "# another"), kLoaded))->generation->generation, 40U);
}

TEST(PolicyStoreTest, a_policy_that_the_kernel_refuses_changes_nothing) {
    FakeKernel kernel;
    PolicyStore store(1, kernel);
    ASSERT_TRUE(store.commit(prepared("a", "rules = []"), kLoaded));
    kernel.refuses = true;
    const auto refused = store.commit(prepared("a", "rules = [\"allow@any\"]"), kLoaded);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::kLimit);
    EXPECT_FALSE(store.commit(prepared("b", ""), kLoaded));
    EXPECT_EQ(store.find("b"), nullptr);
    EXPECT_EQ(store.find("a")->generation->generation, 1U);
    EXPECT_EQ(store.find("a")->history.size(), 1U);
    EXPECT_EQ(store.next_generation(), 2U);
}

TEST(PolicyStoreTest, history_has_the_last_generations_and_what_they_were) {
    FakeKernel kernel;
    PolicyStore store(1, kernel);
    for (std::size_t i = 0; i < PolicyStore::kHistory + 3; ++i)
        ASSERT_TRUE(store.commit(prepared("a", "# " + std::to_string(i)), kLoaded));
    const PolicyStore::Loaded& loaded = *store.find("a");
    EXPECT_EQ(loaded.history.size(), PolicyStore::kHistory);
    EXPECT_EQ(loaded.current().generation, PolicyStore::kHistory + 3);
    EXPECT_EQ(loaded.find(3), nullptr);
    ASSERT_NE(loaded.find(4), nullptr);
    EXPECT_EQ(*loaded.find(4)->text, "# 3");
    EXPECT_EQ(loaded.find(4)->file, "a.toml");
    EXPECT_EQ(loaded.find(4)->origin.who, "ann");
}

TEST(PolicyStoreTest, large_texts_shorten_the_history_but_never_below_the_one_in_force) {
    FakeKernel kernel;
    PolicyStore store(1, kernel);
    PreparedPolicy large = prepared("a", "");
    large.text = std::make_shared<const std::string>(PolicyStore::kHistoryBytes / 2, '#');
    for (int i = 0; i < 4; ++i)
        ASSERT_TRUE(store.commit(large, kLoaded));
    EXPECT_EQ(store.find("a")->history.size(), 2U);
    EXPECT_EQ(store.find("a")->current().generation, 4U);
}

} // namespace
} // namespace tapgate::daemon
