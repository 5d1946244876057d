// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "proto/tls_client_hello.hpp"
#include "tests/harness/openssl_hello.hpp"
#include "tests/harness/tls_hello_builder.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// TlsClientHelloParser against an OpenSSL server. Where the two may differ is written down here, entry by
// entry; everything else is a finding.
namespace tapgate::proto {

/// A difference that is as it should be.
struct ListedDifference {
    std::string_view id; ///< of a refusal of ours: its reason, or "other protocol"
    std::string_view why;
};

/// What OpenSSL reads and we refuse. Each refuses more than it has to for one server, because there are
/// others.
inline constexpr std::array kOursRefuses = {
    ListedDifference{
        "other protocol",
        "OpenSSL takes hellos in the form of SSLv2. They have no names: `plain`, which the bindings "
        "decide. Any that OpenSSL found a name in would be a finding."},
    ListedDifference{
        "record has a wrong length",
        "OpenSSL passes over up to 32 empty records; RFC 8446 5.1 forbids empty handshake fragments."},
    ListedDifference{"another TLS record comes before the hello",
                     "OpenSSL passes over empty records of any type, too. No client begins with one."},
    ListedDifference{
        "bytes behind the hello in its record",
        "OpenSSL keeps them for later: a second hello there would be another name for another reader."},
    ListedDifference{
        "hello is larger than the cap",
        "OpenSSL takes hellos of up to 128 KiB; what a guest can make us hold is bounded (DESIGN 8)."},
    ListedDifference{
        "hello has an unknown version",
        "OpenSSL judges legacy_version behind its callback; what is not 3.x is no TLS that we know."},
    ListedDifference{
        "cipher suites have a wrong length",
        "OpenSSL judges the list behind its callback (RFC 8446 4.1.2: at least one, of two octets each)."},
    ListedDifference{"compression methods lack null",
                     "OpenSSL looks for null behind its callback (RFC 8446 4.1.2, RFC 5246 7.4.1.2)."},
    ListedDifference{
        "duplicate extension",
        "OpenSSL tells duplicates only among the types it knows; RFC 8446 4.2 knows no exception."},
    ListedDifference{
        "server_name is not a host name",
        "OpenSSL takes any text without NUL of up to 255 octets, the empty one included; RFC 6066 3 wants a "
        "DNS name, and no address."},
};

/// What OpenSSL refuses and we read, by the type of an extension.
struct RefusedType {
    std::uint16_t type;
    ListedDifference difference;
};

inline constexpr std::array kOpensslRefuses = {
    RefusedType{
        14,
        {"use_srtp",
         "OpenSSL takes it over DTLS only. With another type in its place it reads the same hello, and the "
         "name that we see: a server that passes it over sees the name that was judged."}},
};

/// How the two readings of a stream stand to each other.
struct HelloComparison {
    const ListedDifference* listed = nullptr; ///< they differ, and may
    std::string finding;                      ///< they differ, and must not: what a person should read
    bool both_read = false;                   ///< and the same name, or both none
};

/// `stream` with the extensions that OpenSSL refuses under a type that means nothing to it. What was found of
/// them goes to `difference`.
inline std::optional<test::Bytes> with_types_replaced(ByteView stream, const ListedDifference*& difference) {
    const auto parts = test::hello_parts({stream.begin(), stream.end()});
    auto hello = parts ? test::TlsHelloBuilder::of(parts->message) : std::nullopt;
    if (!hello)
        return std::nullopt;
    for (auto& extension : hello->extensions()) {
        const auto refused = std::ranges::find(kOpensslRefuses, extension.type, &RefusedType::type);
        if (refused == kOpensslRefuses.end())
            continue;
        extension.type = 0x0a0a; // GREASE (RFC 8701)
        if (difference == nullptr)
            difference = &refused->difference;
    }
    return hello->build();
}

inline HelloComparison compare_with_openssl(ByteView stream) {
    using Outcome = test::OpensslHello::Outcome;
    HelloComparison comparison;
    TlsClientHelloParser parser;
    const PeekStatus status = parser.update(stream);
    test::OpensslHello openssl = test::read_by_openssl(stream);

    if (status == PeekStatus::kDone) {
        if (openssl.outcome == Outcome::kRefuses) {
            const auto replaced = with_types_replaced(stream, comparison.listed);
            if (comparison.listed != nullptr)
                openssl = test::read_by_openssl(*replaced);
        }
        if (openssl.outcome != Outcome::kReads)
            comparison.finding = "we read what OpenSSL does not: " + openssl.error;
        else if (parser.hello().server_name != openssl.server_name)
            comparison.finding = "we see the name '" + parser.hello().server_name.value_or("(none)") +
                                 "', OpenSSL sees '" + openssl.server_name.value_or("(none)") + "'";
        comparison.both_read = comparison.finding.empty() && comparison.listed == nullptr;
        return comparison;
    }
    if (openssl.outcome != Outcome::kReads)
        return comparison; // neither shows a name
    if (status == PeekStatus::kNeedMore) {
        comparison.finding = "we still wait, OpenSSL has read a hello";
        return comparison;
    }
    const std::string_view reason =
        status == PeekStatus::kOtherProtocol ? std::string_view("other protocol") : parser.reason();
    const auto listed = std::ranges::find(kOursRefuses, reason, &ListedDifference::id);
    if (listed == kOursRefuses.end())
        comparison.finding = "a refusal that is not listed: " + std::string(reason);
    else if (status == PeekStatus::kOtherProtocol && (!openssl.is_sslv2 || openssl.server_name))
        comparison.finding = "OpenSSL reads TLS in what we take for another protocol";
    else
        comparison.listed = &*listed;
    return comparison;
}

} // namespace tapgate::proto
