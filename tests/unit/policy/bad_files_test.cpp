// SPDX-License-Identifier: Apache-2.0
#include "support.hpp"

#include <gtest/gtest.h>

// A file for each mistake, with all that is said about it: the place, what is wrong, and what would be right.

namespace tapgate::policy {
namespace {

using namespace std::string_view_literals;

struct BadFile {
    std::string_view text;
    std::string_view message;
};

constexpr BadFile kBadFiles[] = {
    // TOML that is none
    {"default_egress \"deny\"\n"sv,
     R"(p:1:16: Error while parsing key-value pair: expected '=', saw '"'; a setting reads KEY = VALUE)"},
    {"rules = [\n  \"allow@any,\n]\n"sv,
     "p:2:14: Error while parsing string: unescaped control characters other than TAB (U+0009) are "
     "explicitly prohibited; close the string on its line"},
    {"rules = [\n  \"allow@any\",\n"sv,
     "p:2:16: Error while parsing array: encountered end-of-file; the file is cut short"},
    {"rules = [\n  \"allow@a.example\"\n  \"allow@b.example\"\n]\n"sv,
     R"(p:3:3: Error while parsing array: expected comma or closing ']', saw '"'; commas part the items of a list)"},
    {"default_eg"sv,
     "p:1:11: Error while parsing key-value pair: encountered end-of-file; the file is cut short"},
    {"rules = []\n[tls"sv,
     "p:2:5: Error while parsing table header: encountered end-of-file; the file is cut short"},
    {"rules = [\"\\u00"sv,
     "p:1:15: Error while parsing unicode scalar sequence: encountered end-of-file; the file is cut short"},
    {"default_egress = deny\n"sv,
     "p:1:18: Error while parsing value: could not determine value type; a string stands in double quotes"},
    {"[tls]\nech = \"deny\"\n[tls]\nno_sni = \"deny\"\n"sv,
     "p:3:1: Error while parsing table header: cannot redefine existing table 'tls'; keep one"},
    {"default_egress = \"deny\"\ndefault_egress = \"deny\"\n"sv,
     "p:2:18: Error while parsing key-value pair: cannot redefine existing string 'default_egress'; keep "
     "one"},
    {"[groups]\ncorp = [\"10.0.0.0/8\"]\ncorp = [\"10.1.0.0/16\"]\n"sv,
     "p:3:8: Error while parsing key-value pair: cannot redefine existing array 'corp'; keep one"},
    {"default_egress = \"deny\"\n# caf\xc3\xa9 \xff\n"sv,
     "p:2:8: Encountered invalid utf-8 sequence; a policy is UTF-8 text"},
    {"rules = [\"allow@\xc0\xae.example\"]\n"sv,
     "p:1:16: Encountered invalid utf-8 sequence; a policy is UTF-8 text"},
    {"rules = [\"allow@\xed\xa0\x80.example\"]\n"sv,
     "p:1:16: Encountered invalid utf-8 sequence; a policy is UTF-8 text"},
    {"default_egress = \"deny\"\n# ü\000\n"sv, "p:2:4: a NUL byte; a policy is UTF-8 text"},
    {"\xff\xfe"
     "d\000e\000"sv,
     "p:1:4: a NUL byte; a policy is UTF-8 text"},
    {"default_egress = \"de\001ny\"\n"sv,
     "p:1:21: Error while parsing string: unescaped control characters other than TAB (U+0009) are "
     "explicitly prohibited; close the string on its line"},
    {"[tls]\nrules = [\"allow@any\"]\n"sv, "p:2:1: unknown key in [tls]: 'rules'; valid: no_sni, ech"},
    {"default_egress = 1979-05-27\n"sv, "p:1:18: action must be a string, not a date or time"},
    {"rules = [inf]\n"sv, "p:1:10: a rule must be a string or a table, not a fraction"},
    {"\177ELF\002\001\001"sv, "p:1:1: Error while parsing root table: expected keys, tables, whitespace or "
                              "comments, saw '\\u007F'; a policy is TOML or JSON"},
    {"rules:\n  - allow@any\n"sv,
     "p:1:6: Error while parsing key-value pair: expected '=', saw ':'; a setting reads KEY = VALUE"},
    {"[rules]\nallow = any\n"sv,
     "p:2:9: Error while parsing value: could not determine value type; a string stands in double quotes"},
    {"<!DOCTYPE html>\n<html>\n"sv, "p:1:1: Error while parsing root table: expected keys, tables, "
                                    "whitespace or comments, saw '<'; a policy is TOML or JSON"},
    // JSON, and rules in their table form
    {"{\n \"rules\": [\n  \"allow@any\",\n ]\n}\n"sv,
     "p:4:2: this is not JSON: syntax error; JSON has no comments, no trailing commas, and double quotes "
     "alone"},
    {"{\n // why\n \"rules\": []\n}\n"sv, "p:2:2: this is not JSON: syntax error; JSON has no comments, no "
                                          "trailing commas, and double quotes alone"},
    {R"({"rules": [{"destination": {"domain": "a.ex)"sv,
     "p:1:44: this is not JSON: incomplete JSON; the file is cut short"},
    {"{}\n{}\n"sv, "p:2:1: this is not JSON: extra data; one object is all there may be"},
    {"{\"rules\": [\"\000\"]}"sv, "p:1:13: a NUL byte; a policy is UTF-8 text"},
    {"{\"rules\": [\"allow@a\\u0000.example\"]}"sv,
     "p:1:12: 'allow@a\\x00.example' has a space or control character; a rule reads "
     "ACTION[:DIRECTION]@TARGET[:PROTOCOLS[:PORTS]], such as allow@pypi.org:tcp:443"},
    {"{\"rules\": [\"allow@\xc3.example\"]}"sv, "p:1:19: this is not JSON: syntax error; JSON has no "
                                                "comments, no trailing commas, and double quotes alone"},
    {"{\"rules\": [\"allow@\\ud800.example\"]}"sv, "p:1:25: this is not JSON: syntax error; JSON has no "
                                                   "comments, no trailing commas, and double quotes alone"},
    {"{\"rules\": [],\n \"rules\": []}\n"sv, "p:2:2: the key 'rules' stands twice in one object; keep one"},
    {"{\"rules\": [{\"action\": \"deny\",\n  \"destination\": \"any\", \"action\": \"allow\"}]}\n"sv,
     "p:2:25: the key 'action' stands twice in one object; keep one"},
    {R"({"rules": [443]})"sv, "p:1:12: a rule must be a string or a table, not a number"},
    {R"({"rules": [null]})"sv, "p:1:12: a rule must be a string or a table, not null"},
    {R"({"rules": [{"action":"allow","destination":"any","ports":[443.5]}]})"sv,
     "p:1:59: a port must be a number, a string or a table of start and end, not a fraction"},
    {R"({"rules": [{"action":"allow","destination":"any","ports":["443-80"]}]})"sv,
     "p:1:59: the port range 443-80 runs backwards; write 80-443"},
    {"{\"rules\": [{\"action\":\"allow\",\"destination\":\"any\",\n  \"ports\":[{\"start\":443}]}]}"sv,
     "p:2:12: a port range needs both start and end"},
    {"{\"rules\": [{\"action\":\"allow\",\"destination\":\"any\",\n  \"ports\":[{\"from\":443,\"to\":443}]}]}"sv,
     "p:2:13: unknown key in ports: 'from'; valid: start, end"},
    {R"({"rules": [{"action":true,"destination":"any"}]})"sv,
     "p:1:22: action must be a string, not true or false"},
    {"{\"rules\": [\n  {\"destination\":\"any\"}]}"sv,
     R"(p:2:3: the rule has no action; write action = "allow" or "deny")"},
    {"{\"rules\": [\n  {\"action\":\"deny\"}]}"sv,
     R"(p:2:3: the rule has no destination; write "any" if that is meant)"},
    {R"({"rules": [{"action":"deny","destination":{"domain":"a.example","cidr":"10.0.0.0/8"}}]})"sv,
     "p:1:43: a destination has exactly one of cidr, domain, domain_suffix and group"},
    {R"({"rules": [{"action":"deny","destination":{"host":"a.example"}}]})"sv,
     "p:1:44: unknown key in destination: 'host'; valid: cidr, domain, domain_suffix, group"},
    {R"({"rules": [{"action":"deny","destination":{"group":"privat"}}]})"sv,
     "p:1:12: deny@privat: unknown group 'privat'; did you mean 'private'? valid: any, dns, host, meta, "
     "loopback, private, link-local, multicast, reserved, public (a host name of one label is written "
     "domain=privat)"},
    {R"({"rules": [{"action":"deny","destination":{"cidr":"[10.0.0.0/8]"}}]})"sv,
     "p:1:51: '[10.0.0.0/8]' stands in brackets, which only one-line rules have; write 10.0.0.0/8"},
    {R"({"rules": [{"action":"allow","destination":{"domain_suffix":".com"}}]})"sv,
     "p:1:61: the suffix 'com' has a single label and would match all of it; name at least two, such as "
     "*.example.com"},
    {R"({"rules": [{"action":"allow","destination":"any","protocols":"tcp"}]})"sv,
     "p:1:62: protocols must be a list, not a string"},
    {R"({"rules": [{"action":"allow","destination":"a.example","options":["private_ok"]}]})"sv,
     "p:1:67: unknown option 'private_ok'; did you mean 'private-ok'? valid: private-ok, cname"},
    // keys, words and types
    {"default_egres = \"deny\"\n"sv,
     "p:1:1: unknown key in the policy: 'default_egres'; did you mean 'default_egress'? valid: "
     "default_egress, default_ingress, rules, splice, groups, dns, tls, http, deny"},
    {"rule = [\"allow@any\"]\n"sv,
     "p:1:1: unknown key in the policy: 'rule'; did you mean 'rules'? valid: "
     "default_egress, default_ingress, rules, splice, groups, dns, tls, http, deny"},
    {"[tls]\nsni = \"deny\"\n"sv, "p:2:1: unknown key in [tls]: 'sni'; valid: no_sni, ech"},
    {"[http]\nhosts = \"every\"\n"sv,
     "p:2:1: unknown key in [http]: 'hosts'; did you mean 'host'? valid: host"},
    {"[deny]\nmessage = \"no\"\n"sv,
     "p:2:1: unknown key in [deny]: 'message'; valid: live_flows, style, text"},
    {"default_egress = \"drop\"\n"sv, "p:1:18: unknown action 'drop'; valid: allow, deny"},
    {"splice = \"urin\"\n"sv,
     "p:1:10: unknown way to splice 'urin'; did you mean 'uring'? valid: auto, kernel, "
     "uring, copy"},
    {"splice = true\n"sv, "p:1:10: way to splice must be a string, not true or false"},
    {"[tls]\nech = \"inner\"\n"sv, "p:2:7: unknown value of ech 'inner'; valid: outer, deny, strip"},
    {"[deny]\nlive_flows = \"drain 30\"\n"sv,
     R"(p:2:14: live_flows is "cut", "keep" or "drain 30s" (1s to 24h))"},
    {"[deny]\nlive_flows = \"kill\"\n"sv,
     "p:2:14: unknown value of live_flows 'kill'; valid: cut, drain, keep"},
    {"rules = { a = 1 }\n"sv, "p:1:9: rules must be a list, not a table"},
    {"tls = \"deny\"\n"sv, "p:1:7: [tls] must be a table, not a string"},
    {"groups = [\"10.0.0.0/8\"]\n"sv, "p:1:10: groups must be a table, not a list"},
    {"[groups]\ncorp = [10]\n"sv, "p:2:9: an address block must be a string, not a number"},
    {"[deny]\ntext = 1\n"sv, "p:2:8: text must be a string, not a number"},
    {"default_ingress = [\"deny\"]\n"sv, "p:1:19: action must be a string, not a list"},
    // one-line rules
    {"rules = [\n  \"allow@any\",\n  \"\",\n]\n"sv,
     "p:3:3: '' has no '@'; a rule reads ACTION[:DIRECTION]@TARGET[:PROTOCOLS[:PORTS]], such as "
     "allow@pypi.org:tcp:443"},
    {"rules = [\"allow any\"]\n"sv,
     "p:1:10: 'allow any' has a space or control character; a rule reads "
     "ACTION[:DIRECTION]@TARGET[:PROTOCOLS[:PORTS]], such as allow@pypi.org:tcp:443"},
    {"rules = [\"pypi.org:443\"]\n"sv,
     "p:1:10: 'pypi.org:443' has no '@'; a rule reads ACTION[:DIRECTION]@TARGET[:PROTOCOLS[:PORTS]], such as "
     "allow@pypi.org:tcp:443"},
    {"rules = [\"allow@https://pypi.org/\"]\n"sv, "p:1:10: 'allow@https://pypi.org/' has a URL; write the "
                                                  "host name alone, such as allow@pypi.org:tcp:443"},
    {"rules = [\"alow@pypi.org\"]\n"sv,
     "p:1:10: unknown action 'alow'; did you mean 'allow'? valid: allow, deny"},
    {"rules = [\"allow:egres@pypi.org\"]\n"sv,
     "p:1:10: unknown direction 'egres'; did you mean 'egress'? valid: egress, ingress, any"},
    {"rules = [\"allow@pypi.org:443\"]\n"sv, "p:1:10: 443 stands where the protocols do; write tcp:443"},
    {"rules = [\"allow@pypi.org:tpc:443\"]\n"sv,
     "p:1:10: unknown protocol 'tpc'; did you mean 'tcp'? valid: tcp, udp, icmpv4, icmpv6"},
    {"rules = [\"allow@pypi.org:tcp:0\"]\n"sv, "p:1:10: 0 is not a port; ports are 1 to 65535"},
    {"rules = [\"allow@pypi.org:tcp:65536\"]\n"sv, "p:1:10: 65536 is not a port; ports are 1 to 65535"},
    {"rules = [\"allow@pypi.org:tcp:9000-8000\"]\n"sv,
     "p:1:10: the port range 9000-8000 runs backwards; write 8000-9000"},
    {"rules = [\"allow@pypi.org:tcp:https\"]\n"sv,
     "p:1:10: 'https' is not a port; ports are written any, 443, 8000-8080 or 80,443"},
    {"rules = [\"allow@10.0.0.1:icmpv4:8\"]\n"sv,
     "p:1:10: icmpv4 has no ports; write a rule of its own for it, without ports"},
    {"rules = [\"allow@10.0.0.1:icmp\"]\n"sv,
     "p:1:10: unknown protocol 'icmp'; did you mean 'icmpv4'? valid: tcp, udp, icmpv4, icmpv6"},
    {"rules = [\"deny@10.1.2.3/8\"]\n"sv, "p:1:10: 10.1.2.3/8 has host bits set; the network is 10.0.0.0/8"},
    {"rules = [\"deny@[2001:db8::1/32]\"]\n"sv,
     "p:1:10: 2001:db8::1/32 has host bits set; the network is 2001:db8::/32"},
    {"rules = [\"deny@10.0.0.0/40\"]\n"sv, "p:1:10: '40' is not a prefix length (0 to 32)"},
    {"rules = [\"deny@[2001:db8::/129]\"]\n"sv, "p:1:10: '129' is not a prefix length (0 to 128)"},
    {"rules = [\"deny@10.0.0.256\"]\n"sv,
     "p:1:10: '10.0.0.256' is not a domain name: it ends in a number, as only IP addresses do: four numbers "
     "of 0 to 255, without leading zeros"},
    {"rules = [\"deny@10.1\"]\n"sv, "p:1:10: '10.1' is not a domain name: it ends in a number, as only IP "
                                    "addresses do: four numbers of 0 to 255, without leading zeros"},
    {"rules = [\"deny@10.0/16\"]\n"sv, "p:1:10: '10.0' is not an IP address"},
    {"rules = [\"deny@010.0.0.1\"]\n"sv,
     "p:1:10: '010.0.0.1' is not a domain name: it ends in a number, as only IP addresses do: four numbers "
     "of 0 to 255, without leading zeros"},
    {"rules = [\"deny@[10.0.0.1]\"]\n"sv, "p:1:10: '[10.0.0.1]': brackets are for IPv6; write 10.0.0.1"},
    {"rules = [\"deny@2001:db8::1\"]\n"sv,
     "p:1:10: an IPv6 address stands in brackets, such as [2001:db8::1] or [2001:db8::/32]"},
    {"rules = [\"deny@[fe80::1%eth0]\"]\n"sv, "p:1:10: 'fe80::1%eth0' is not an IP address"},
    {"rules = [\"deny@[2001:db8::1\"]\n"sv, "p:1:10: '[2001:db8::1' has no closing bracket"},
    {"rules = [\"allow@*.com\"]\n"sv, "p:1:10: the suffix 'com' has a single label and would match all of "
                                      "it; name at least two, such as *.example.com"},
    {"rules = [\"allow@cdn.*.example.com\"]\n"sv,
     "p:1:10: 'cdn.*.example.com': '*' stands only as the whole first label, as in *.example.com"},
    {"rules = [\"allow@cdn*.example.com\"]\n"sv,
     "p:1:10: 'cdn*.example.com': '*' stands only as the whole first label, as in *.example.com"},
    {"rules = [\"allow@*\"]\n"sv,
     "p:1:10: '*': '*' stands only as the whole first label, as in *.example.com"},
    {"rules = [\"allow@.example.com\"]\n"sv,
     "p:1:10: '.example.com' is not a domain name: it has an empty label"},
    {"rules = [\"allow@a..example.com\"]\n"sv,
     "p:1:10: 'a..example.com' is not a domain name: it has an empty label"},
    {"rules = [\"allow@aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example\"]\n"sv,
     "p:1:10: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example' is not a domain "
     "name: it has a label longer than 63 octets"},
    {"rules = [\"allow@abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdef.example\"]\n"sv,
     "p:1:10: 'abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg.abcdefg....' is not a "
     "domain name: it is longer than 253 octets"},
    {"rules = [\"allow@a,b.example\"]\n"sv,
     "p:1:10: 'a,b.example' is not a domain name: only letters, digits, '-', '_' and dots stand in a name"},
    {"rules = [\"allow@xn--ü.example\"]\n"sv,
     "p:1:10: 'xn--\\xc3\\xbc.example' is not a domain name: string contains invalid punycode data"},
    {"rules = [\"allow@aאb.example\"]\n"sv,
     "p:1:10: 'a\\xd7\\x90b.example' is not a domain name: string has forbidden bi-directional properties"},
    {"rules = [\"allow@💩.example\"]\n"sv,
     "p:1:10: '\\xf0\\x9f\\x92\\xa9.example' is not a domain name: string contains a disallowed character"},
    {"rules = [\"allow@a\xe2\x80\x8d"
     "b.example\"]\n"sv,
     "p:1:10: 'a\\xe2\\x80\\x8db.example' is not a domain name: string contains a forbidden context-j "
     "character"},
    {"rules = [\"allow@́a.example\"]\n"sv, "p:1:10: '\\xcc\\x81a.example' is not a domain name: string "
                                          "contains a forbidden leading combining character"},
    {"rules = [\"allow@Intranet\"]\n"sv, "p:1:10: 'Intranet' is neither a group nor a name with a dot; for a "
                                         "host name of one label write domain=Intranet"},
    {"rules = [\n  \"allow@any\",\n  \"deny@privte\",\n]\n"sv,
     "p:3:3: deny@privte: unknown group 'privte'; did you mean 'private'? valid: any, dns, host, meta, "
     "loopback, private, link-local, multicast, reserved, public (a host name of one label is written "
     "domain=privte)"},
    {"rules = [\"deny@crop\"]\n[groups]\ncorp = [\"10.0.0.0/8\"]\n"sv,
     "p:1:10: deny@crop: unknown group 'crop'; did you mean 'corp'? valid: any, dns, host, meta, loopback, "
     "private, link-local, multicast, reserved, public, corp (a host name of one label is written "
     "domain=crop)"},
    {"rules = [{ action = \"allow\", destination = \"private\", options = [\"private-ok\"] }]\n"sv,
     "p:1:10: the option private-ok is for rules on names; private is none"},
    {"rules = [{ action = \"deny\", destination = \"a.example\", options = [\"private-ok\"] }]\n"sv,
     "p:1:10: the option private-ok is for allow rules"},
    // [groups]
    {"[groups]\nCorp = [\"10.0.0.0/8\"]\n"sv,
     "p:2:1: 'Corp' cannot name a group; a group name is a lower-case letter, then letters, digits, '-' and "
     "'_', at most 63 in all"},
    {"[groups]\nany = [\"10.0.0.0/8\"]\n"sv,
     "p:2:1: 'any' cannot name a group; the word has a meaning of its own in rules"},
    {"[groups]\ncorp = [\"corp.example\"]\n"sv, "p:2:9: 'corp.example' is not an IP address; write an "
                                                "address or a block, such as 10.0.0.0/8 or 2001:db8::/32"},
    {"[groups]\ncorp = [\"[2001:db8::/32]\"]\n"sv,
     "p:2:9: '[2001:db8::/32]' stands in brackets, which only one-line rules have; write 2001:db8::/32"},
    {"[groups]\ncorp = [\"10.20.0.1/16\"]\n"sv,
     "p:2:9: 10.20.0.1/16 has host bits set; the network is 10.20.0.0/16"},
    {"[groups]\na = [\"10.0.0.0/8\"]\nb = [\"10.0.0.0/8\"]\n"sv,
     "p:3:6: 10.0.0.0/8 is in group a already; groups are disjoint"},
    // [deny]
    {"[deny]\ntext = \"a\\nb\"\n"sv,
     "p:2:8: text has a character that does not print; write one line of text"},
    {"[deny]\nlive_flows = \"drain 0s\"\n"sv,
     R"(p:2:14: live_flows is "cut", "keep" or "drain 30s" (1s to 24h))"},
};

/// What `check` and `load` would say.
std::string error_of(std::string_view text) {
    auto policy = parse(text, "p");
    if (!policy)
        return policy.error().message();
    const auto compiled = CompiledPolicy::compile(std::move(*policy));
    return compiled ? "no error" : compiled.error().message();
}

TEST(BadFiles, each_is_refused_with_its_place_what_is_wrong_and_what_would_be_right) {
    static_assert(std::size(kBadFiles) >= 60);
    for (const BadFile& bad : kBadFiles)
        EXPECT_EQ(error_of(bad.text), bad.message) << bad.text;
}

TEST(BadFiles, a_mistake_at_the_end_of_a_long_file_has_its_place) {
    std::string toml = "rules = [\n";
    std::string json = "{\"rules\": [\n";
    for (int i = 0; i < 20'000; ++i) {
        toml += "  \"allow@a" + std::to_string(i) + ".example\",\n";
        json += "  {\"action\": \"allow\", \"destination\": \"a" + std::to_string(i) + ".example\"},\n";
    }
    EXPECT_EQ(error_of(toml + "  \"alow@any\",\n]\n"),
              "p:20002:3: unknown action 'alow'; did you mean 'allow'? valid: allow, deny");
    EXPECT_EQ(error_of(json + "  {\"action\": \"alow\", \"destination\": \"any\"}]}\n"),
              "p:20002:14: unknown action 'alow'; did you mean 'allow'? valid: allow, deny");
}

TEST(BadFiles, texts_over_a_cap_are_refused) {
    EXPECT_EQ(error_of("rules = [\"allow@" + std::string(10'000, 'a') + "\"]"),
              "p:1:10: the rule is longer than 8192 bytes");
    EXPECT_EQ(error_of("[deny]\ntext = \"" + std::string(201, 'x') + "\""),
              "p:2:8: text has 201 bytes; at most 200 fit a denial");
    EXPECT_EQ(error_of("rules = " + std::string(5'000, '[')),
              "p:1:265: Error while parsing value: exceeded maximum nested value depth of 256 "
              "(TOML_MAX_NESTED_VALUES)");
}

TEST(BadFiles, a_hundred_megabytes_of_nonsense_are_refused_with_a_place) {
    constexpr std::size_t kSize = 100'000'000;
    EXPECT_EQ(error_of(std::string(kSize, '\xff')),
              "p:1:1: Encountered invalid utf-8 sequence; a policy is UTF-8 text");
    EXPECT_EQ(error_of(std::string(kSize, '\0')), "p:1:1: a NUL byte; a policy is UTF-8 text");
    EXPECT_EQ(
        error_of(std::string(kSize, '[')),
        "p:1:3: Error while parsing key: expected bare key starting character or string delimiter, saw '['");
    EXPECT_EQ(error_of(std::string(kSize, '{')), "p:1:2: this is not JSON: syntax error; JSON has no "
                                                 "comments, no trailing commas, and double quotes alone");
}

} // namespace
} // namespace tapgate::policy
