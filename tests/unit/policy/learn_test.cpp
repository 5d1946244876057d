// SPDX-License-Identifier: Apache-2.0
#include "policy/learn.hpp"
#include "policy/parse.hpp"
#include "support.hpp"

#include <gtest/gtest.h>

#include <array>

namespace tapgate::policy {
namespace {

using test::address;
using test::compiled;
using test::name;

std::vector<std::string> texts(const std::vector<LearnedRule>& rules) {
    std::vector<std::string> texts;
    for (const LearnedRule& learned : rules)
        texts.push_back(format_rule(learned.rule) + " " + std::to_string(learned.connections) + "/" +
                        std::to_string(learned.questions));
    return texts;
}

using Texts = std::vector<std::string>;

TEST(Learn, a_name_gets_one_rule_with_the_ports_that_were_used) {
    Learner learner;
    const std::array names = {name("a.example")};
    learner.note_question(names[0]);
    learner.note_connection({address("8.8.8.8"), 443}, names, false);
    learner.note_connection({address("8.8.4.4"), 443}, names, false);
    learner.note_connection({address("8.8.8.8"), 80}, names, false);
    learner.note_connection({address("8.8.8.8"), 22}, {}, false);
    const auto observed = compiled("default_egress = \"allow\"");
    EXPECT_EQ(texts(learner.rules(*observed, {})),
              (Texts{"allow@a.example:tcp:80,443 3/1", "allow@8.8.8.8:tcp:22 1/0"}));
}

TEST(Learn, a_name_that_was_only_asked_for_opens_nothing_but_its_question) {
    Learner learner;
    learner.note_question(name("_http._tcp.a.example"));
    const auto observed = compiled("default_egress = \"allow\"");
    const auto rules = learner.rules(*observed, {});
    EXPECT_EQ(texts(rules), Texts{"allow@_http._tcp.a.example:udp:53 0/1"});
    const auto learned = compiled(learned_policy(observed->policy(), rules));
    EXPECT_EQ(decide_query(*learned, name("_http._tcp.a.example"), Protocol::kUdp).verdict, Verdict::kAllow);
    EXPECT_EQ(decide_query(*learned, name("a.example"), Protocol::kUdp).verdict, Verdict::kDeny);
}

TEST(Learn, answers_that_could_not_be_given_otherwise_make_a_rule_private_ok) {
    Learner learner;
    const std::array inside = {name("in.example")};
    const std::array outside = {name("out.example")};
    learner.note_connection({address("10.0.0.1"), 443}, inside, false);
    learner.note_connection({address("192.0.2.1"), 443}, outside, false);
    const auto observed = compiled("rules = [\"allow@any\"]\n[groups]\npublic = [\"192.0.2.0/24\"]");
    EXPECT_EQ(texts(learner.rules(*observed, {})),
              (Texts{"allow@in.example:tcp:443 (private-ok) 1/0", "allow@out.example:tcp:443 1/0"}));
    learner.note_address(outside[0], address("10.0.0.2"));
    EXPECT_EQ(texts(learner.rules(*observed, {})).back(), "allow@out.example:tcp:443 (private-ok) 1/0");
}

TEST(Learn, the_text_is_the_policy) {
    Learner learner;
    const std::array names = {name("a.example"), name("b.example")};
    learner.note_question(names[0]);
    learner.note_connection({address("10.0.0.1"), 443}, names, true);
    learner.note_connection({address("2001:db8::1"), 80}, {}, false);
    const auto observed =
        compiled("rules = [\"deny@learn.invalid\", \"allow@any\"]\nsplice = \"uring\"\n[groups]\n"
                 "corp = [\"10.0.0.0/8\", \"2001:db8::/32\"]\n"
                 "[dns]\nresolve = \"allowed\"\nmax_label = 30\nmax_name = 100\nnames_per_zone = 50\n"
                 "[tls]\nno_sni = \"cache\"\nech = \"strip\"\n[http]\nhost = \"first\"\n"
                 "[deny]\nlive_flows = \"drain 60s\"\nstyle = \"reset\"\ntext = 'ask \"us\" at C:\\here'\n");
    const auto rules = learner.rules(*observed, {});
    const std::string text = learned_text(observed->policy(), rules);
    EXPECT_EQ(to_json(test::parsed(text)), to_json(learned_policy(observed->policy(), rules))) << text;
    EXPECT_NE(text.find("# 1 connections, 1 questions, known by its address alone"), std::string::npos)
        << text;
    EXPECT_EQ(text.find("allow@any"), std::string::npos);
}

TEST(Learn, a_guest_that_makes_names_up_fills_no_memory_and_the_list_says_so) {
    Learner learner;
    for (std::size_t i = 0; i < Learner::kMostTargets; ++i)
        learner.note_question(name("n" + std::to_string(i) + ".example"));
    EXPECT_FALSE(learner.is_overfull());
    learner.note_question(name("n0.example"));
    EXPECT_FALSE(learner.is_overfull());
    learner.note_question(name("one.more.example"));
    EXPECT_TRUE(learner.is_overfull());
    const auto observed = compiled("default_egress = \"allow\"");
    EXPECT_EQ(learner.rules(*observed, {}).size(), Learner::kMostTargets);
}

} // namespace
} // namespace tapgate::policy
