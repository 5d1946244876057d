// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string_view>

namespace tapgate::policy {

inline constexpr std::string_view kDohWord = "doh";

/// What the target `doh` stands for: the names of public resolvers that answer over HTTPS, and of the relays
/// that browsers and phones hide their queries behind, in the syntax of targets. Such a list is never
/// complete; an allowlist does not need it.
inline constexpr std::array<std::string_view, 44> kDohTargets = {{
    "*.cloudflare-dns.com",
    "*.dns.google",
    "*.quad9.net",
    "*.dns.nextdns.io",
    "*.doh.opendns.com",
    "*.doh.umbrella.com",
    "*.adguard-dns.com",
    "*.dns.adguard.com",
    "*.cleanbrowsing.org",
    "*.controld.com",
    "*.dns0.eu",
    "*.joindns4.eu",
    "*.dns.mullvad.net",
    "*.doh.mullvad.net",
    "*.libredns.gr",
    "*.alidns.com",
    "*.doh.pub",
    "*.dot.pub",
    "*.doh.360.cn",
    "*.doh.dns.sb",
    "*.dns.sb",
    "*.ordns.he.net",
    "*.dns.switch.ch",
    "*.odvr.nic.cz",
    "*.applied-privacy.net",
    "*.dns.digitale-gesellschaft.ch",
    "*.ffmuc.net",
    "*.doh.tiar.app",
    "*.jp.tiar.app",
    "*.dns.twnic.tw",
    "*.doh.la.ahadns.net",
    "*.blahdns.com",
    "*.rethinkdns.com",
    "*.doh.xfinity.com",
    "*.doh.cox.net",
    "*.dns.comss.one",
    "*.dnsforge.de",
    "*.unicast.censurfridns.dk",
    "*.one.one.one.one",
    "*.dns64.dns.google",
    "*.doh.dns.apple.com",
    "*.mask.icloud.com",
    "*.mask-h2.icloud.com",
    "*.dns.umbrella.com",
}};

} // namespace tapgate::policy
