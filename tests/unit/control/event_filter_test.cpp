// SPDX-License-Identifier: Apache-2.0
#include "control/event_filter.hpp"

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

namespace tapgate::control {
namespace {

namespace json = boost::json;

json::object object(std::string_view text) {
    return json::parse(json::string_view(text.data(), text.size())).as_object();
}

bool matches(std::string_view args, std::string_view event) {
    const auto filter = EventFilter::parse(object(args));
    EXPECT_TRUE(filter.has_value()) << args;
    return filter && filter->matches(object(event));
}

constexpr std::string_view kVerdict =
    R"({"type":"verdict","guest":"vm1","name":"www.Example.com.","source":"192.0.2.2:4000",
        "destination":"[2001:db8::1]:443","verdict":"deny","basis":"default"})";
constexpr std::string_view kDrop =
    R"({"type":"drop","guest":"vm2","source":"192.0.2.6:1","destination":"203.0.113.1:9","reason":"udp"})";

TEST(EventFilter, without_words_everything_passes) {
    EXPECT_TRUE(matches("{}", kVerdict));
    EXPECT_TRUE(matches(R"({"guest":null})", "{}"));
}

TEST(EventFilter, each_word_selects_and_all_have_to_be_met) {
    EXPECT_TRUE(matches(R"({"guest":"vm1"})", kVerdict));
    EXPECT_FALSE(matches(R"({"guest":"vm"})", kVerdict));
    EXPECT_TRUE(matches(R"({"verdict":"deny"})", kVerdict));
    EXPECT_FALSE(matches(R"({"verdict":"allow"})", kVerdict));
    EXPECT_TRUE(matches(R"({"guest":"vm1","verdict":"deny","reason":"default"})", kVerdict));
    EXPECT_FALSE(matches(R"({"guest":"vm2","verdict":"deny","reason":"default"})", kVerdict));
}

TEST(EventFilter, a_name_selects_itself_and_what_is_below_it_whatever_the_case) {
    for (const char* name : {"www.example.com", "WWW.EXAMPLE.COM.", "example.com", "com"})
        EXPECT_TRUE(matches(std::string(R"({"name":")") + name + "\"}", kVerdict)) << name;
    for (const char* name : {"ample.com", "a.www.example.com", "example.org"})
        EXPECT_FALSE(matches(std::string(R"({"name":")") + name + "\"}", kVerdict)) << name;
    EXPECT_FALSE(matches(R"({"name":"example.com"})", kDrop)) << "has no name";
}

TEST(EventFilter, an_address_selects_either_end_in_any_spelling) {
    EXPECT_TRUE(matches(R"({"address":"192.0.2.2"})", kVerdict));
    EXPECT_TRUE(matches(R"({"address":"::ffff:192.0.2.2"})", kVerdict));
    EXPECT_TRUE(matches(R"({"address":"2001:0db8:0::1"})", kVerdict));
    EXPECT_FALSE(matches(R"({"address":"192.0.2.20"})", kVerdict));
}

TEST(EventFilter, a_drop_counts_as_denied_and_its_reason_is_one) {
    EXPECT_TRUE(matches(R"({"verdict":"deny","reason":"udp"})", kDrop));
    EXPECT_FALSE(matches(R"({"verdict":"allow"})", kDrop));
    EXPECT_FALSE(matches(R"({"verdict":"deny"})", R"({"type":"guest","guest":"vm2"})"));
}

TEST(EventFilter, outcomes_and_ends_are_reasons_too) {
    EXPECT_TRUE(matches(R"({"reason":"nxdomain"})", R"({"type":"dns","reason":"","outcome":"nxdomain"})"));
    EXPECT_TRUE(matches(R"({"reason":"idle"})", R"({"type":"flow-end","how":"idle"})"));
}

TEST(EventFilter, that_events_were_lost_concerns_everybody) {
    EXPECT_TRUE(matches(R"({"guest":"vm1","name":"a.test"})", R"({"type":"lost","count":3})"));
}

TEST(EventFilter, what_cannot_be_meant_is_refused) {
    for (const char* args :
         {R"({"address":"www.example.com"})", R"({"address":"192.0.2.0/24"})", R"({"verdict":"denied"})",
          R"({"name":""})", R"({"name":"."})", R"({"guest":1})"})
        EXPECT_FALSE(EventFilter::parse(object(args)).has_value()) << args;
}

} // namespace
} // namespace tapgate::control
