// SPDX-License-Identifier: Apache-2.0
#include "base/ip.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <span>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace tapgate {

namespace {

constexpr std::array<std::uint8_t, 12> kV4Mapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr unsigned kV4PrefixBits = 96;

/// Clears all bits of `address` behind the first `length`.
IpAddress masked(const IpAddress& address, unsigned length) {
    IpAddress::Bytes bytes = address.bytes();
    for (unsigned i = 0; i < bytes.size(); ++i) {
        const unsigned bits = length > i * 8 ? std::min(length - i * 8, 8U) : 0;
        bytes.at(i) &= static_cast<std::uint8_t>(0xff00U >> bits);
    }
    return IpAddress(bytes);
}

template <typename T>
std::optional<T> parse_number(std::string_view text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || text.empty())
        return std::nullopt;
    return value;
}

} // namespace

IpAddress IpAddress::from_v4(std::uint32_t value) {
    Bytes bytes{};
    std::ranges::copy(kV4Mapped, bytes.begin());
    const std::uint32_t network = htonl(value);
    std::memcpy(&bytes[12], &network, sizeof network);
    return IpAddress(bytes);
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
    // INET6_ADDRSTRLEN bounds every legal spelling, so longer text is refused before it is copied.
    if (text.size() >= INET6_ADDRSTRLEN || text.find('\0') != std::string_view::npos)
        return std::nullopt;
    const std::string copy(text);
    in_addr v4{};
    if (::inet_pton(AF_INET, copy.c_str(), &v4) == 1)
        return from_v4(ntohl(v4.s_addr));
    Bytes bytes{};
    if (::inet_pton(AF_INET6, copy.c_str(), bytes.data()) == 1)
        return IpAddress(bytes);
    return std::nullopt;
}

bool IpAddress::is_v4() const {
    return std::ranges::equal(kV4Mapped, std::span(bytes_).first<12>());
}

std::uint32_t IpAddress::v4() const {
    TAPGATE_ASSERT(is_v4());
    std::uint32_t network = 0;
    std::memcpy(&network, &bytes_[12], sizeof network);
    return ntohl(network);
}

std::string IpAddress::to_string() const {
    std::array<char, INET6_ADDRSTRLEN> text{};
    const bool v4 = is_v4();
    ::inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? &bytes_[12] : bytes_.data(), text.data(), text.size());
    return text.data();
}

IpPrefix IpPrefix::around(const IpAddress& address, unsigned length) {
    return {masked(address, length), length};
}

Result<IpPrefix> IpPrefix::parse(std::string_view text) {
    const std::size_t slash = text.find('/');
    const auto address = IpAddress::parse(text.substr(0, slash));
    if (!address)
        return fail(ErrorCode::kInvalid, fmt::format("'{}' is not an IP address", text.substr(0, slash)));
    if (slash == std::string_view::npos)
        return IpPrefix(*address);

    // Text with a colon counts its length over 128 bits; ::ffff:10.0.0.0/104 is 10.0.0.0/8.
    const bool v4_text = text.substr(0, slash).find(':') == std::string_view::npos;
    const unsigned most = v4_text ? 32 : 128;
    const std::string_view digits = text.substr(slash + 1);
    const auto written = parse_number<unsigned>(digits);
    if (!written || *written > most)
        return fail(ErrorCode::kInvalid, fmt::format("'{}' is not a prefix length (0 to {})", digits, most));
    const unsigned length = v4_text ? *written + kV4PrefixBits : *written;
    const IpPrefix network(masked(*address, length), length);
    if (network.address() != *address)
        return fail(ErrorCode::kInvalid,
                    fmt::format("{} has host bits set; the network is {}", text, network.to_string()));
    return network;
}

bool IpPrefix::contains(const IpAddress& address) const {
    // ::/0 means all of IPv6; only a prefix inside ::ffff:0:0/96 speaks of IPv4.
    const bool v4_prefix = address_.is_v4() && length_ >= kV4PrefixBits;
    return v4_prefix == address.is_v4() && masked(address, length_) == address_;
}

std::string IpPrefix::to_string() const {
    if (length_ == 128)
        return address_.to_string();
    if (address_.is_v4() && length_ >= kV4PrefixBits)
        return fmt::format("{}/{}", address_.to_string(), length_ - kV4PrefixBits);
    return fmt::format("{}/{}", address_.to_string(), length_);
}

std::optional<Endpoint> Endpoint::parse(std::string_view text) {
    const std::size_t colon = text.rfind(':');
    if (colon == std::string_view::npos)
        return std::nullopt;
    std::string_view host = text.substr(0, colon);
    const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
    if (bracketed)
        host = host.substr(1, host.size() - 2);
    else if (host.find(':') != std::string_view::npos)
        return std::nullopt;
    const auto address = IpAddress::parse(host);
    const auto port = parse_number<std::uint16_t>(text.substr(colon + 1));
    if (!address || !port)
        return std::nullopt;
    return Endpoint{*address, *port};
}

std::optional<Endpoint> Endpoint::from_sockaddr(const sockaddr_storage& storage) {
    if (storage.ss_family == AF_INET) {
        sockaddr_in v4{};
        std::memcpy(&v4, &storage, sizeof v4);
        return Endpoint{IpAddress::from_v4(ntohl(v4.sin_addr.s_addr)), ntohs(v4.sin_port)};
    }
    if (storage.ss_family == AF_INET6) {
        sockaddr_in6 v6{};
        std::memcpy(&v6, &storage, sizeof v6);
        IpAddress::Bytes bytes{};
        std::memcpy(bytes.data(), &v6.sin6_addr, bytes.size());
        return Endpoint{IpAddress(bytes), ntohs(v6.sin6_port)};
    }
    return std::nullopt;
}

unsigned Endpoint::to_sockaddr(sockaddr_storage& storage) const {
    storage = {};
    if (address.is_v4()) {
        sockaddr_in v4{};
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        v4.sin_addr.s_addr = htonl(address.v4());
        std::memcpy(&storage, &v4, sizeof v4);
        return sizeof v4;
    }
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::memcpy(&v6.sin6_addr, address.bytes().data(), address.bytes().size());
    std::memcpy(&storage, &v6, sizeof v6);
    return sizeof v6;
}

std::string Endpoint::to_string() const {
    return address.is_v4() ? fmt::format("{}:{}", address.to_string(), port)
                           : fmt::format("[{}]:{}", address.to_string(), port);
}

} // namespace tapgate

std::size_t std::hash<tapgate::IpAddress>::operator()(const tapgate::IpAddress& address) const noexcept {
    return std::hash<std::string_view>{}(
        {reinterpret_cast<const char*>(address.bytes().data()), address.bytes().size()});
}
