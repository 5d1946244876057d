// SPDX-License-Identifier: Apache-2.0
#include "policy/parse.hpp"

#include <gtest/gtest.h>

namespace tapgate::policy {
namespace {

/// The canonical form, or the error.
std::string canonical(std::string_view text) {
    const auto rule = parse_rule(text);
    return rule ? format_rule(*rule) : rule.error().message();
}

TEST(Rule, a_canonical_rule_prints_as_it_was_written) {
    for (const std::string_view text :
         {"allow@dns", "deny@meta", "allow@pypi.org:tcp:443", "allow@*.pythonhosted.org:tcp:443",
          "allow@[2001:db8:7::/48]:tcp:80,443", "allow:ingress@203.0.113.0/24:tcp:22", "deny:any@any",
          "allow@link-local:tcp,udp", "allow@any:icmpv4,icmpv6", "allow@corp:any:8000-8080",
          "allow@192.0.2.1", "allow@domain=localhost", "allow@0.0.0.0/0", "allow@[::/0]", "deny@corp_net-2"})
        EXPECT_EQ(canonical(text), text);
}

TEST(Rule, other_spellings_become_the_canonical_one) {
    EXPECT_EQ(canonical("allow:egress@PyPI.org.:any:any"), "allow@pypi.org");
    EXPECT_EQ(canonical("allow@domain=pypi.org"), "allow@pypi.org");
    EXPECT_EQ(canonical("allow@suffix=pypi.org"), "allow@*.pypi.org");
    EXPECT_EQ(canonical("allow@*.bücher.de"), "allow@*.xn--bcher-kva.de");
    EXPECT_EQ(canonical("allow@any:udp,tcp,udp:443,80,81-90,85-100"), "allow@any:tcp,udp:80-100,443");
    EXPECT_EQ(canonical("allow@any:any:0443"), "allow@any:any:443");
    EXPECT_EQ(canonical("allow@[::ffff:10.0.0.0/104]"), "allow@10.0.0.0/8");
    EXPECT_EQ(canonical("allow@[2001:DB8::0]"), "allow@[2001:db8::]");
    EXPECT_EQ(canonical("allow@10.0.0.1/32"), "allow@10.0.0.1");
    EXPECT_EQ(canonical("allow@any:any:1-65535"), "allow@any:any:1-65535"); // not any: excludes ICMP
}

TEST(Rule, every_mistake_is_told_with_what_would_be_right) {
    constexpr std::string_view kShape = "a rule reads ACTION[:DIRECTION]@TARGET[:PROTOCOLS[:PORTS]], such as "
                                        "allow@pypi.org:tcp:443";
    const std::pair<std::string_view, std::string> kCases[] = {
        {"", "'' has no '@'; " + std::string(kShape)},
        {"allow", "'allow' has no '@'; " + std::string(kShape)},
        {"allow @dns", "'allow @dns' has a space or control character; " + std::string(kShape)},
        {"alow@dns", "unknown action 'alow'; did you mean 'allow'? valid: allow, deny"},
        {"Deny@dns", "unknown action 'Deny'; did you mean 'deny'? valid: allow, deny"},
        {"@dns", "unknown action ''; valid: allow, deny"},
        {"permit@dns", "unknown action 'permit'; valid: allow, deny"},
        {"allow:outgress@dns",
         "unknown direction 'outgress'; did you mean 'egress'? valid: egress, ingress, any"},
        {"allow@", "the target is empty; " + std::string(kShape)},
        {"allow@:tcp:443", "the target is empty; " + std::string(kShape)},
        {"allow@any:tpc", "unknown protocol 'tpc'; did you mean 'tcp'? valid: tcp, udp, icmpv4, icmpv6"},
        {"allow@any:icmp", "unknown protocol 'icmp'; did you mean 'icmpv4'? valid: tcp, udp, icmpv4, icmpv6"},
        {"allow@any:", "an empty protocol in ''; write any, or a list such as tcp,udp"},
        {"allow@any::443", "an empty protocol in ''; write any, or a list such as tcp,udp"},
        {"allow@any:tcp,", "an empty protocol in 'tcp,'; write any, or a list such as tcp,udp"},
        {"allow@any:tcp,any", "'any' stands alone, not in the list 'tcp,any'"},
        {"allow@any:tcp:443,any", "'any' stands alone, not in the list '443,any'"},
        {"allow@any:tcp:", "'' is not a port; ports are written any, 443, 8000-8080 or 80,443"},
        {"allow@any:tcp:80,", "'' is not a port; ports are written any, 443, 8000-8080 or 80,443"},
        {"allow@any:tcp:https", "'https' is not a port; ports are written any, 443, 8000-8080 or 80,443"},
        {"allow@any:tcp:80-", "'80-' is not a port; ports are written any, 443, 8000-8080 or 80,443"},
        {"allow@any:tcp:-80", "'-80' is not a port; ports are written any, 443, 8000-8080 or 80,443"},
        {"allow@any:tcp:80-81-82",
         "'80-81-82' is not a port; ports are written any, 443, 8000-8080 or 80,443"},
        {"allow@any:tcp:443:1", "'443:1' is not a port; ports are written any, 443, 8000-8080 or 80,443"},
        {"allow@any:tcp:0", "0 is not a port; ports are 1 to 65535"},
        {"allow@any:tcp:65536", "65536 is not a port; ports are 1 to 65535"},
        {"allow@any:tcp:99999999999999999999",
         "'99999999999999999999' is not a port; ports are written any, 443, 8000-8080 or 80,443"},
        {"allow@any:tcp:90-80", "the port range 90-80 runs backwards; write 80-90"},
        {"allow@any:icmpv6:443", "icmpv6 has no ports; write a rule of its own for it, without ports"},
        {"allow@any:tcp,icmpv4:443", "icmpv4 has no ports; write a rule of its own for it, without ports"},
        {"allow@10.0.0.5/8", "10.0.0.5/8 has host bits set; the network is 10.0.0.0/8"},
        {"allow@[2001:db8::1/32]", "2001:db8::1/32 has host bits set; the network is 2001:db8::/32"},
        {"allow@10.0.0.0/33", "'33' is not a prefix length (0 to 32)"},
        {"allow@10.0.0.0/", "'' is not a prefix length (0 to 32)"},
        {"allow@10.0.0.300", "'10.0.0.300' is not a domain name: it ends in a number, as only IP addresses "
                             "do: four numbers of 0 to 255, without leading zeros"},
        {"allow@[10.0.0.0/8]", "'[10.0.0.0/8]': brackets are for IPv6; write 10.0.0.0/8"},
        {"allow@[2001:db8::1", "'[2001:db8::1' has no closing bracket"},
        {"allow@[2001:db8::1]tcp", "':' must follow ']' in '[2001:db8::1]tcp'"},
        {"allow@[2001:db8::g]", "'2001:db8::g' is not an IP address"},
        {"allow@[]", "'[]': brackets are for IPv6; write "},
        {"allow@2001:db8::1:tcp:443",
         "an IPv6 address stands in brackets, such as [2001:db8::1] or [2001:db8::/32]"},
        {"allow@::1", "an IPv6 address stands in brackets, such as [2001:db8::1] or [2001:db8::/32]"},
        {"allow@*.com",
         "the suffix 'com' has a single label and would match all of it; name at least two, such "
         "as *.example.com"},
        {"allow@suffix=local",
         "the suffix 'local' has a single label and would match all of it; name at least "
         "two, such as *.example.local"},
        {"allow@a.*.com", "'a.*.com': '*' stands only as the whole first label, as in *.example.com"},
        {"allow@*example.com",
         "'*example.com': '*' stands only as the whole first label, as in *.example.com"},
        {"allow@*", "'*': '*' stands only as the whole first label, as in *.example.com"},
        {"allow@*.*.example.com",
         "'*.*.example.com': '*' stands only as the whole first label, as in *.example.com"},
        {"allow@*.", "'' is not a domain name: it is empty"},
        {"allow@suffx=example.com",
         "unknown target form 'suffx'; did you mean 'suffix'? valid: domain, suffix"},
        {"allow@a..example", "'a..example' is not a domain name: it has an empty label"},
        {"allow@exa!mple.com",
         "'exa!mple.com' is not a domain name: only letters, digits, '-', '_' and dots stand in a name"},
        {"allow@Corp", "'Corp' is neither a group nor a name with a dot; for a host name of one label write "
                       "domain=Corp"},
        {"allow@link_local", "'link_local' is neither a group nor a name with a dot; for a host name of one "
                             "label write domain=link_local"},
    };
    for (const auto& [text, message] : kCases)
        EXPECT_EQ(canonical(text), message) << text;
    EXPECT_EQ(canonical(std::string_view("allow@a\0b.example", 17)),
              "'allow@a\\x00b.example' has a space or control character; " + std::string(kShape));
    EXPECT_EQ(canonical("allow@any:tcp:" + std::string(10'000, '1')), "the rule is longer than 8192 bytes");
}

TEST(Rule, a_rule_changed_at_any_byte_is_refused_or_taken_in_canonical_form) {
    constexpr std::string_view kText = "allow:any@[2001:db8::/32]:tcp,udp:80-90,443";
    for (std::size_t i = 0; i < kText.size(); ++i) {
        (void)parse_rule(kText.substr(0, i));
        for (int byte = 0; byte < 256; ++byte) {
            std::string changed(kText);
            changed[i] = static_cast<char>(byte);
            if (const auto rule = parse_rule(changed)) {
                EXPECT_EQ(canonical(format_rule(*rule)), format_rule(*rule)) << changed;
            }
        }
    }
}

} // namespace
} // namespace tapgate::policy
