// SPDX-License-Identifier: Apache-2.0
#include "policy/doh_names.hpp"
#include "policy/parse.hpp"
#include "support.hpp"

#include <gtest/gtest.h>

namespace tapgate::policy {
namespace {

using test::parsed;

std::string error_of(std::string_view text) {
    const auto policy = parse(text, "p");
    return policy ? "no error" : policy.error().message();
}

constexpr std::string_view kFull = R"(
default_egress  = "deny"
default_ingress = "allow"
rules = [
  "allow@dns",
  "deny@meta",
  "allow@pypi.org:tcp:443",
  "allow@*.pythonhosted.org:tcp:443",
  "allow@[2001:db8:7::/48]:tcp:80,443",
  "allow:ingress@203.0.113.0/24:tcp:22",
  { action = "allow", destination = "*.corp.example", protocols = ["tcp"], ports = [443, "8000-8080"], options = ["private-ok", "cname"] },
  { action = "deny", direction = "any", destination = { group = "link_local" }, protocols = "any", ports = "any" },
  { action = "deny", destination = { cidr = "2001:db8::/32" }, ports = [{ start = 1, end = 9 }] },
  { action = "deny", destination = "corp" },
]
splice = "uring"
[groups]
corp = ["10.20.0.0/16", "2001:db8:20::/48"]
public = ["198.51.100.0/24"]
[dns]
resolve = "allowed"
max_label = 40
max_name = 100
names_per_zone = 60
[tls]
no_sni = "cache"
ech    = "strip"
[http]
host   = "first"
[deny]
live_flows = "drain 2m"
style      = "reset"
text       = "ask platform@example.com, süß"
)";

TEST(Parse, every_field_of_the_toml_form_is_read) {
    const Policy policy = parsed(kFull);
    EXPECT_EQ(policy.default_egress, Action::kDeny);
    EXPECT_EQ(policy.default_ingress, Action::kAllow);
    EXPECT_EQ(policy.splice, Splice::kUring);
    EXPECT_TRUE(policy.dns.only_allowed_names);
    EXPECT_EQ(policy.dns.max_label, 40U);
    EXPECT_EQ(policy.dns.max_name, 100U);
    EXPECT_EQ(policy.dns.names_per_zone, 60U);
    std::vector<std::string> rules;
    for (const Rule& rule : policy.rules)
        rules.push_back(format_rule(rule));
    EXPECT_EQ(rules,
              (std::vector<std::string>{
                  "allow@dns", "deny@meta", "allow@pypi.org:tcp:443", "allow@*.pythonhosted.org:tcp:443",
                  "allow@[2001:db8:7::/48]:tcp:80,443", "allow:ingress@203.0.113.0/24:tcp:22",
                  "allow@*.corp.example:tcp:443,8000-8080 (private-ok, cname)", "deny:any@link-local",
                  "deny@[2001:db8::/32]:any:1-9", "deny@corp"}));
    EXPECT_EQ(policy.rules[1].location.line, 6U);
    EXPECT_EQ(policy.rules[1].location.column, 3U);
    EXPECT_EQ(policy.groups.at("corp").size(), 2U);
    EXPECT_EQ(policy.no_sni, NoSni::kCache);
    EXPECT_EQ(policy.ech, Ech::kStrip);
    EXPECT_EQ(policy.http_host, HttpHost::kFirst);
    EXPECT_EQ(policy.live_flows, LiveFlows::kDrain);
    EXPECT_EQ(policy.drain, std::chrono::minutes(2));
    EXPECT_EQ(policy.deny_style, DenyStyle::kReset);
    EXPECT_EQ(policy.deny_text, "ask platform@example.com, süß");
    EXPECT_EQ(policy.source, "p");
}

TEST(Parse, the_empty_file_denies_everything) {
    for (const std::string_view text : {"", "# nothing\n", "{}", " \n {} \n", "rules = []"}) {
        const Policy policy = parsed(text);
        EXPECT_EQ(policy.default_egress, Action::kDeny);
        EXPECT_EQ(policy.default_ingress, Action::kDeny);
        EXPECT_TRUE(policy.rules.empty());
        EXPECT_EQ(policy.no_sni, NoSni::kDeny);
        EXPECT_FALSE(policy.splice);
    }
}

TEST(Parse, the_json_form_of_the_design_is_accepted_as_it_stands) {
    const Policy policy = parsed(
        R"({"default_egress":"deny","rules":[{"direction":"egress","destination":{"domain":"pypi.org"},)"
        R"("protocols":["tcp"],"ports":[{"start":443,"end":443}],"action":"allow"},)"
        R"({"destination":"any","action":"deny"},)"
        R"({"destination":{"cidr":"10.0.0.0/8"},"action":"deny"},)"
        R"({"destination":{"domain_suffix":".b\u00fccher.de"},"action":"deny"},)"
        R"({"destination":{"group":"link_local"},"action":"deny"},)"
        R"({"destination":{"group":"metadata"},"action":"deny"}]})");
    std::vector<std::string> rules;
    for (const Rule& rule : policy.rules)
        rules.push_back(format_rule(rule));
    EXPECT_EQ(rules, (std::vector<std::string>{"allow@pypi.org:tcp:443", "deny@any", "deny@10.0.0.0/8",
                                               "deny@*.xn--bcher-kva.de", "deny@link-local", "deny@meta"}));
}

TEST(Parse, a_policy_written_as_json_reads_back_the_same) {
    const std::string once = to_json(parsed(kFull));
    const Policy again = parsed(once);
    EXPECT_EQ(to_json(again), once);
    const Policy first = parsed(kFull);
    ASSERT_EQ(again.rules.size(), first.rules.size());
    for (std::size_t i = 0; i < first.rules.size(); ++i)
        EXPECT_EQ(format_rule(again.rules[i]), format_rule(first.rules[i]));
    EXPECT_EQ(again.splice, first.splice);
    EXPECT_EQ(again.groups, first.groups);
    EXPECT_EQ(again.deny_text, first.deny_text);
    EXPECT_EQ(again.deny_style, first.deny_style);
    EXPECT_EQ(again.dns.only_allowed_names, first.dns.only_allowed_names);
    EXPECT_EQ(again.dns.names_per_zone, first.dns.names_per_zone);
    EXPECT_EQ(again.drain, first.drain);
    EXPECT_EQ(again.default_ingress, first.default_ingress);
}

TEST(Parse, doh_stands_for_a_rule_on_each_public_resolver) {
    const Policy policy = parsed("rules = [\"allow@a.example\", \"deny@doh:tcp:443\"]");
    ASSERT_EQ(policy.rules.size(), 1 + kDohTargets.size());
    for (std::size_t i = 0; i < kDohTargets.size(); ++i) {
        const Rule& rule = policy.rules[i + 1];
        EXPECT_EQ(format_rule(rule), "deny@" + std::string(kDohTargets[i]) + ":tcp:443");
        EXPECT_EQ(rule.location.column, 29U);
    }
    // Neither the table form nor [groups] knows it as a group.
    EXPECT_EQ(parsed("rules = [{ action = \"deny\", destination = \"doh\" }]").rules.size(),
              kDohTargets.size());
    EXPECT_FALSE(parse("rules = [{ action = \"deny\", destination = { group = \"doh\" } }]", "p"));
}

TEST(Parse, errors_in_toml_say_where_what_and_what_would_be_right) {
    const std::pair<std::string_view, std::string_view> kCases[] = {
        {"defualt_egress = \"deny\"",
         "p:1:1: unknown key in the policy: 'defualt_egress'; did you mean 'default_egress'? valid: "
         "default_egress, default_ingress, rules, splice, groups, dns, tls, http, deny"},
        {"default_egress = \"denied\"",
         "p:1:18: unknown action 'denied'; did you mean 'deny'? valid: allow, deny"},
        {"default_egress = true", "p:1:18: action must be a string, not true or false"},
        {"default_egress = \"deny\"\ndefault_egress = \"allow\"", "p:2:18: "},
        {"rules = \"allow@any\"", "p:1:9: rules must be a list, not a string"},
        {"rules = [\n  \"allow@any\",\n    \"alow@any\",\n]",
         "p:3:5: unknown action 'alow'; did you mean 'allow'? valid: allow, deny"},
        {"rules = [\n  \"allow@bücher.de\", \"deny@10.0.0.1/8\" ]",
         "p:2:22: 10.0.0.1/8 has host bits set; the network is 10.0.0.0/8"},
        {"rules = [ 7 ]", "p:1:11: a rule must be a string or a table, not a number"},
        {"rules = [ 1979-05-27 ]", "p:1:11: a rule must be a string or a table, not a date or time"},
        {"rules = [ \"allow@a\\u0000b.example\" ]",
         "p:1:11: 'allow@a\\x00b.example' has a space or control character; a rule reads "
         "ACTION[:DIRECTION]@TARGET[:PROTOCOLS[:PORTS]], such as allow@pypi.org:tcp:443"},
        {"[[rules]]\ndestination = \"any\"",
         "p:1:1: the rule has no action; write action = \"allow\" or \"deny\""},
        {"rules = [{ action = \"deny\" }]",
         "p:1:10: the rule has no destination; write \"any\" if that is meant"},
        {"rules = [{ action = \"deny\", destination = \"any\", prots = [1] }]",
         "p:1:50: unknown key in a rule: 'prots'; did you mean 'ports'? valid: action, direction, "
         "destination, protocols, ports, options"},
        {"rules = [{ action = \"deny\", destination = \"any\", ports = [] }]",
         "p:1:58: ports is an empty list; leave the key out for any port"},
        {"rules = [{ action = \"deny\", destination = \"any\", protocols = [] }]",
         "p:1:62: protocols is an empty list; leave the key out for any protocol"},
        {"rules = [{ action = \"deny\", destination = \"any\", ports = [70000] }]",
         "p:1:59: 70000 is not a port; ports are 1 to 65535"},
        {"rules = [{ action = \"deny\", destination = \"any\", ports = [-1] }]",
         "p:1:59: -1 is not a port; ports are 1 to 65535"},
        {"rules = [{ action = \"deny\", destination = \"any\", ports = [{ start = 1 }] }]",
         "p:1:59: a port range needs both start and end"},
        {"rules = [{ action = \"deny\", destination = \"any\", ports = [1.5] }]",
         "p:1:59: a port must be a number, a string or a table of start and end, not a fraction"},
        {"rules = [{ action = \"deny\", destination = \"any\", protocols = [\"icmpv4\"], ports = [1] }]",
         "p:1:10: icmpv4 has no ports; write a rule of its own for it, without ports"},
        {"rules = [{ action = \"deny\", destination = {} }]",
         "p:1:43: a destination has exactly one of cidr, domain, domain_suffix and group"},
        {"rules = [{ action = \"deny\", destination = { cidr = \"10.0.0.0/8\", group = \"host\" } }]",
         "p:1:43: a destination has exactly one of cidr, domain, domain_suffix and group"},
        {"rules = [{ action = \"deny\", destination = { domian = \"a.example\" } }]",
         "p:1:45: unknown key in destination: 'domian'; did you mean 'domain'? valid: cidr, domain, "
         "domain_suffix, group"},
        {"rules = [{ action = \"allow\", destination = \"10.0.0.0/8\", options = [\"private-ok\"] }]",
         "p:1:10: the option private-ok is for rules on names; 10.0.0.0/8 is none"},
        {"rules = [{ action = \"deny\", destination = \"a.example\", options = [\"private-ok\"] }]",
         "p:1:10: the option private-ok is for allow rules"},
        {"rules = [{ action = \"deny\", destination = \"a.example\", options = [\"cnames\"] }]",
         "p:1:67: unknown option 'cnames'; did you mean 'cname'? valid: private-ok, cname"},
        {"[groups]\ncorp = []",
         "p:2:8: group corp is an empty list; a group has at least one address or block"},
        {"[groups]\ncorp = \"10.0.0.0/8\"", "p:2:8: group corp must be a list, not a string"},
        {"[groups]\ncorp = [\"10.0.0.0/8\", \"10.0.0.1/8\"]",
         "p:2:23: 10.0.0.1/8 has host bits set; the network is 10.0.0.0/8"},
        {"[groups]\nCorp = [\"10.0.0.0/8\"]",
         "p:2:1: 'Corp' cannot name a group; a group name is a lower-case letter, then letters, digits, '-' "
         "and '_', at most 63 in all"},
        {"[groups]\ndns = [\"10.0.0.0/8\"]",
         "p:2:1: 'dns' cannot name a group; the word has a meaning of its own in rules"},
        {"[groups]\ndoh = [\"10.0.0.0/8\"]",
         "p:2:1: 'doh' cannot name a group; the word has a meaning of its own in rules"},
        {"[dns]\nresolve = \"allow\"",
         "p:2:11: unknown value of resolve 'allow'; did you mean 'allowed'? valid: all, allowed"},
        {"[dns]\nmax_label = 64", "p:2:13: max_label is from 1 to 63; leave it out for no limit"},
        {"[dns]\nmax_name = 0", "p:2:12: max_name is from 1 to 253; leave it out for no limit"},
        {"[dns]\nnames_per_zone = \"many\"", "p:2:18: names_per_zone must be a number, not a string"},
        {"[dns]\nmax_lable = 3",
         "p:2:1: unknown key in [dns]: 'max_lable'; did you mean 'max_label'? valid: resolve, max_label, "
         "max_name, names_per_zone"},
        {"[groups]\nlink_local = [\"10.0.0.0/8\"]",
         "p:2:1: unknown group 'link_local'; did you mean the built-in 'link-local'?"},
        {"[groups]\na = [\"10.0.0.0/8\"]\nb = [\"10.0.0.0/8\"]",
         "p:3:6: 10.0.0.0/8 is in group a already; groups are disjoint"},
        {"[tls]\nno_sni = \"denied\"",
         "p:2:10: unknown value of no_sni 'denied'; did you mean 'deny'? valid: deny, cache"},
        {"[tls]\nesni = \"deny\"", "p:2:1: unknown key in [tls]: 'esni'; valid: no_sni, ech"},
        {"tls = 1", "p:1:7: [tls] must be a table, not a number"},
        {"[http]\nhost = \"evry\"",
         "p:2:8: unknown value of host 'evry'; did you mean 'every'? valid: every, first, ignore"},
        {"[deny]\nlive_flows = \"drain 0s\"",
         "p:2:14: live_flows is \"cut\", \"keep\" or \"drain 30s\" (1s to 24h)"},
        {"[deny]\nlive_flows = \"drain 25h\"",
         "p:2:14: live_flows is \"cut\", \"keep\" or \"drain 30s\" (1s to 24h)"},
        {"[deny]\nlive_flows = \"cut 30s\"",
         "p:2:14: live_flows is \"cut\", \"keep\" or \"drain 30s\" (1s to 24h)"},
        {"[deny]\nlive_flows = \"drian 30s\"",
         "p:2:14: unknown value of live_flows 'drian'; did you mean 'drain'? valid: cut, drain, keep"},
        {"[deny]\ntext = \"a\\nb\"",
         "p:2:8: text has a character that does not print; write one line of text"},
        {"[deny]\ntext = \"\\u202eb\"",
         "p:2:8: text has a character that does not print; write one line of text"},
        {"[deny]\ntext = \"\\u0085\"",
         "p:2:8: text has a character that does not print; write one line of text"},
    };
    for (const auto& [text, message] : kCases) {
        const std::string error = error_of(text);
        if (message.ends_with(": ")) {
            EXPECT_TRUE(error.starts_with(message)) << error;
        } else {
            EXPECT_EQ(error, message) << text;
        }
    }
    EXPECT_EQ(error_of("[deny]\ntext = \"" + std::string(201, 'x') + '"'),
              "p:2:8: text has 201 bytes; at most 200 fit a denial");
}

TEST(Parse, errors_of_toml_syntax_have_their_place) {
    EXPECT_TRUE(error_of("rules = [\n \"a\" \"b\" ]").starts_with("p:2:6: "))
        << error_of("rules = [\n \"a\" \"b\" ]");
    EXPECT_TRUE(error_of("= 1").starts_with("p:1:1: ")) << error_of("= 1");
    EXPECT_TRUE(error_of("a = \"\xff\"").starts_with("p:1:")) << error_of("a = \"\xff\"");
    EXPECT_EQ(error_of(std::string_view("a = 1\nb\0c", 9)), "p:2:2: a NUL byte; a policy is UTF-8 text");
}

TEST(Parse, errors_in_json_have_line_and_column_too) {
    const std::pair<std::string_view, std::string_view> kCases[] = {
        {"{\n  \"rules\": [\n    \"allow@any\",\n    \"deny@publc:tpc\"\n  ]\n}",
         "p:4:5: unknown protocol 'tpc'; did you mean 'tcp'? valid: tcp, udp, icmpv4, icmpv6"},
        {"{\"rule\": []}",
         "p:1:2: unknown key in the policy: 'rule'; did you mean 'rules'? valid: default_egress, "
         "default_ingress, rules, splice, groups, dns, tls, http, deny"},
        {"{\"default_egress\": \"deny\",\n \"default_egress\": \"allow\"}",
         "p:2:2: the key 'default_egress' stands twice in one object; keep one"},
        {"{\"default_egress\": \"deny\",\n \"default\\u005fegress\": \"allow\"}",
         "p:2:2: the key 'default_egress' stands twice in one object; keep one"},
        {"{\"rules\": [\"\\u0041llow@bücher.de\", null]}",
         "p:1:12: unknown action 'Allow'; did you mean 'allow'? valid: allow, deny"},
        {"{\"rules\": [\"allow@bücher.de\", null]}", "p:1:31: a rule must be a string or a table, not null"},
        {"{\"rules\": [1.5]}", "p:1:12: a rule must be a string or a table, not a fraction"},
        {"{\"rules\": [99999999999999999999]}", "p:1:12: a rule must be a string or a table, not a fraction"},
        {"{\"rules\": [true, []]}", "p:1:12: a rule must be a string or a table, not true or false"},
        {"{\"rules\": [\n]\n} x", "p:3:3: this is not JSON: extra data; one object is all there may be"},
        {"{\"rules\": [\n\"a\"", "p:2:4: this is not JSON: incomplete JSON; the file is cut short"},
        {"{\"rules\": [\n1,]}", "p:2:3: this is not JSON: syntax error; JSON has no comments, no trailing "
                                "commas, and double quotes alone"},
        {"{'rules': []}", "p:1:2: this is not JSON: syntax error; JSON has no comments, no trailing commas, "
                          "and double quotes alone"},
        {"{\"a\": \"\xff\"}", "p:1:8: this is not JSON: syntax error; JSON has no comments, no trailing "
                              "commas, and double quotes alone"},
    };
    for (const auto& [text, message] : kCases)
        EXPECT_EQ(error_of(text), message) << text;
    EXPECT_TRUE(error_of("{\"a\":" + std::string(1000, '[')).ends_with("this is not JSON: too deep"))
        << error_of("{\"a\":" + std::string(1000, '['));
    EXPECT_FALSE(parse_json("", "p"));
    EXPECT_EQ(parse_json("[]", "p").error().message(), "p:1:1: the policy must be a table, not a list");
}

TEST(Parse, deep_nesting_in_toml_is_an_error) {
    const std::string text = "rules = " + std::string(100'000, '[');
    EXPECT_TRUE(error_of(text).starts_with("p:1:")) << error_of(text);
}

TEST(Parse, a_file_over_the_cap_is_refused_unread) {
    const std::string text((std::size_t{256} << 20U) + 1, '#');
    EXPECT_EQ(error_of(text), "p: larger than 256 MiB");
}

TEST(Parse, a_policy_cut_at_any_byte_is_taken_or_refused_with_a_place) {
    const std::string json = to_json(parsed(kFull));
    for (const std::string_view whole : {std::string_view(kFull), std::string_view(json)})
        for (std::size_t i = 0; i < whole.size(); ++i)
            if (const auto policy = parse(whole.substr(0, i), "p"); !policy) {
                EXPECT_TRUE(policy.error().message().starts_with("p:")) << policy.error().message();
            }
}

} // namespace
} // namespace tapgate::policy
