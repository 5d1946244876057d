// SPDX-License-Identifier: Apache-2.0
#include "proto/http_request.hpp"

#include "base/ip.hpp"
#include "base/result.hpp"
#include "proto/ascii.hpp"
#include "proto/host_name.hpp"

#include <algorithm>
#include <charconv>

// The head, RFC 9112 unless another RFC is named. CRLF ends every line.
//
//     request-line                                        3
//       method SP target SP "HTTP/1." ("0" | "1")
//         method     token                                RFC 9110 5.6.2
//         target     "/"...                               origin-form, 3.2.1
//                    scheme "://" authority ["/"...]      absolute-form, 3.2.2; scheme http or https
//                    host ":" port                        authority-form, 3.2.3; CONNECT alone
//                    "*"                                  asterisk-form, 3.2.4; OPTIONS alone
//     field-line*                                         5
//       name ":" OWS value OWS                            name token; value without control bytes but HTAB
//         Host       host [":" port]                      RFC 9110 7.2; exactly one in HTTP/1.1
//           host     reg-name | IPv4 | "[" IPv6 "]"       RFC 3986 3.2.2, reg-name narrowed to host names
//           port     1..65535
//         Content-Length      digits, below 2^63          6.2; at most one, not with Transfer-Encoding
//         Transfer-Encoding   "chunked"                   6.1; at most one, HTTP/1.1 alone
//         Upgrade    protocol *("," protocol)             RFC 9110 7.8
//     (empty line)
namespace tapgate::proto {

namespace {

bool starts_with_text(std::string_view text, std::string_view start) {
    return text.size() >= start.size() && same_text(text.substr(0, start.size()), start);
}

/// RFC 9110 5.6.2.
bool is_token_octet(char c) {
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return true;
    return c != '\0' && std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool is_token(std::string_view text) {
    return !text.empty() && std::ranges::all_of(text, is_token_octet);
}

bool is_control(char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

constexpr std::string_view kBlank = " \t";
/// What lenient servers take for white space around a method (RFC 9112 3), and the ends of lines.
constexpr std::string_view kLenientBlank = " \t\v\f\r\n";

std::string_view trim(std::string_view text) {
    const std::size_t first = text.find_first_not_of(kBlank);
    if (first == std::string_view::npos)
        return {};
    return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

/// 1..65535 in decimal digits and nothing else.
std::optional<std::uint16_t> parse_port(std::string_view text) {
    std::uint16_t port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (error != std::errc{} || end != text.data() + text.size() || port == 0)
        return std::nullopt;
    return port;
}

/// host [":" port]. Empty if it is not exactly that.
std::optional<HttpAuthority> parse_authority(std::string_view text) {
    HttpAuthority authority;
    std::string_view rest;
    if (text.starts_with('[')) {
        const std::size_t end = text.find(']');
        if (end == std::string_view::npos)
            return std::nullopt;
        authority.host = text.substr(1, end - 1);
        rest = text.substr(end + 1);
        authority.is_address = true;
        if (authority.host.find(':') == std::string::npos || !IpAddress::parse(authority.host))
            return std::nullopt;
    } else {
        const std::size_t end = std::min(text.find(':'), text.size());
        authority.host = text.substr(0, end);
        rest = text.substr(end);
        authority.is_address = IpAddress::parse(authority.host).has_value();
        if (!authority.is_address && !is_host_name(authority.host))
            return std::nullopt;
    }
    if (rest.empty())
        return authority;
    authority.port = parse_port(rest.substr(1));
    if (rest[0] != ':' || !authority.port)
        return std::nullopt;
    return authority;
}

/// Equal as a server would take them: letters in any case, addresses by value, one trailing dot or none.
bool same_host(const HttpAuthority& a, const HttpAuthority& b) {
    if (a.is_address || b.is_address)
        return a.is_address && b.is_address && IpAddress::parse(a.host) == IpAddress::parse(b.host);
    std::string_view left = a.host;
    std::string_view right = b.host;
    if (left.ends_with('.'))
        left.remove_suffix(1);
    if (right.ends_with('.'))
        right.remove_suffix(1);
    return same_text(left, right);
}

/// True if a server could take `line`, without its end, for a request line: token, blank, and then a version
/// somewhere, or the HTTP/0.9 form. Wider than what is valid, so that broken requests are refused as such.
bool is_request_line(std::string_view line) {
    const std::size_t method_end = line.find_first_of(kBlank);
    if (method_end == std::string_view::npos)
        return false;
    for (std::size_t at = method_end; at != std::string_view::npos; at = line.find_first_of(kBlank, at + 1)) {
        if (starts_with_text(line.substr(at + 1), "HTTP/"))
            return true;
    }
    return line.substr(0, method_end) == "GET" && trim(line.substr(method_end)).starts_with('/');
}

} // namespace

PeekStatus HttpRequestParser::finish(PeekStatus status, std::string_view reason) {
    status_ = status;
    reason_ = reason;
    if (status != PeekStatus::kDone)
        request_ = {};
    return status;
}

PeekStatus HttpRequestParser::update(ByteView prefix) {
    if (status_ != PeekStatus::kNeedMore)
        return status_;
    TAPGATE_ASSERT(prefix.size() >= scanned_);
    const ByteView visible = prefix.first(std::min(prefix.size(), cap_));
    // The bytes as text; char and uint8_t may alias.
    const std::string_view text(reinterpret_cast<const char*>(visible.data()), visible.size());
    while (scanned_ < text.size()) {
        ++scanned_;
        if (read_byte(text.substr(0, scanned_)) != PeekStatus::kNeedMore)
            return status_;
    }
    if (visible.size() == cap_)
        return finish(PeekStatus::kTooLarge, "request head is larger than the cap");
    return status_;
}

/// Judges the last byte of `text`, all that was seen so far.
PeekStatus HttpRequestParser::read_byte(std::string_view text) {
    const char byte = text.back();
    if (expect_ == Expect::kMethod)
        return read_method_byte(byte);
    if (byte != '\n') {
        const bool behind_cr = text[text.size() - 2] == '\r' && text.size() - 1 > line_start_;
        if (behind_cr)
            return malformed("CR without LF");
        if (is_control(byte) && byte != '\t' && byte != '\r')
            return malformed("control byte");
        return status_;
    }
    std::string_view line = text.substr(line_start_, text.size() - 1 - line_start_);
    const bool has_cr = line.ends_with('\r');
    if (has_cr)
        line.remove_suffix(1);
    if (expect_ == Expect::kRequestLine && !is_request_line(line))
        return finish(PeekStatus::kOtherProtocol);
    if (!has_cr)
        return malformed("LF without CR");
    line_start_ = text.size();
    if (expect_ == Expect::kRequestLine)
        return read_request_line(line);
    return line.empty() ? read_end_of_head() : read_header(line);
}

PeekStatus HttpRequestParser::read_method_byte(char byte) {
    if (is_token_octet(byte))
        return status_;
    if (kLenientBlank.find(byte) == std::string_view::npos)
        return finish(PeekStatus::kOtherProtocol);
    if (scanned_ - 1 == line_start_) {
        // Servers skip empty lines here (RFC 9112 2.2), some blanks too: the request behind them must not
        // pass for another protocol.
        blank_first_ = true;
        line_start_ = scanned_;
        return status_;
    }
    if (byte == '\n')
        return finish(PeekStatus::kOtherProtocol); // one word alone on its line
    expect_ = Expect::kRequestLine;
    return byte == '\v' || byte == '\f' ? malformed("control byte") : status_;
}

PeekStatus HttpRequestParser::read_request_line(std::string_view line) {
    // The HTTP/2 preface (RFC 9113 3.4). Its frames are not HTTP/1 and are not read.
    if (line == "PRI * HTTP/2.0")
        return finish(PeekStatus::kOtherProtocol);
    if (blank_first_)
        return malformed("white space before the request");
    const std::size_t first = line.find(' ');
    const std::size_t last = line.rfind(' ');
    if (first == std::string_view::npos || first == last)
        return malformed("request line without a version");
    const std::string_view target = line.substr(first + 1, last - first - 1);
    const std::string_view version = line.substr(last + 1);
    request_.method = line.substr(0, first);
    if (!is_token(request_.method) || target.empty() ||
        target.find_first_of(kBlank) != std::string_view::npos)
        return malformed("blanks in the request line");
    if (version != "HTTP/1.1" && version != "HTTP/1.0")
        return malformed("unknown HTTP version");
    http_1_0_ = version == "HTTP/1.0";
    expect_ = Expect::kHeader;
    return read_target(target);
}

PeekStatus HttpRequestParser::read_target(std::string_view target) {
    if (request_.method == "CONNECT") {
        request_.target_form = HttpTargetForm::kAuthority;
        request_.authority = parse_authority(target);
        if (!request_.authority)
            return malformed("CONNECT without a valid authority");
        if (!request_.authority->port)
            return malformed("CONNECT without a port");
        default_port_ = request_.authority->port;
        return status_;
    }
    if (target.starts_with('/'))
        return status_;
    if (target == "*") {
        request_.target_form = HttpTargetForm::kAsterisk;
        return request_.method == "OPTIONS" ? status_ : malformed("target is not a path or an URI");
    }
    const std::size_t scheme_end = target.find("://");
    if (scheme_end == std::string_view::npos)
        return malformed("target is not a path or an URI");
    const std::string_view scheme = target.substr(0, scheme_end);
    if (same_text(scheme, "http"))
        default_port_ = 80;
    else if (same_text(scheme, "https"))
        default_port_ = 443;
    else
        return malformed("target has an unknown scheme");
    const std::string_view behind = target.substr(scheme_end + 3);
    request_.target_form = HttpTargetForm::kAbsolute;
    request_.authority = parse_authority(behind.substr(0, behind.find_first_of("/?#")));
    return request_.authority ? status_ : malformed("target has an invalid authority");
}

PeekStatus HttpRequestParser::read_header(std::string_view line) {
    if (kBlank.find(line[0]) != std::string_view::npos)
        return malformed("folded header");
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos)
        return malformed("header without a colon");
    const std::string_view name = line.substr(0, colon);
    if (!is_token(name))
        return malformed("header name is not a token");
    const std::string_view value = trim(line.substr(colon + 1));
    if (same_text(name, "content-length"))
        return read_content_length(value);
    if (same_text(name, "transfer-encoding"))
        return read_transfer_encoding(value);
    if (same_text(name, "upgrade"))
        return read_upgrade(value);
    if (!same_text(name, "host"))
        return status_;
    if (host_)
        return malformed("more than one Host");
    host_ = parse_authority(value);
    return host_ ? status_ : malformed("Host is not a host");
}

PeekStatus HttpRequestParser::read_content_length(std::string_view value) {
    if (has_length_)
        return malformed("more than one Content-Length");
    has_length_ = true;
    std::int64_t length = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), length);
    if (error != std::errc{} || end != value.data() + value.size() || value.starts_with('-'))
        return malformed("Content-Length is not a number");
    return is_chunked_ ? malformed("Content-Length and Transfer-Encoding") : status_;
}

PeekStatus HttpRequestParser::read_transfer_encoding(std::string_view value) {
    if (is_chunked_)
        return malformed("more than one Transfer-Encoding");
    is_chunked_ = true;
    if (http_1_0_)
        return malformed("Transfer-Encoding in HTTP/1.0");
    if (!same_text(value, "chunked"))
        return malformed("Transfer-Encoding is not chunked");
    return has_length_ ? malformed("Content-Length and Transfer-Encoding") : status_;
}

PeekStatus HttpRequestParser::read_upgrade(std::string_view value) {
    while (!value.empty()) {
        const std::size_t comma = std::min(value.find(','), value.size());
        std::string protocol(trim(value.substr(0, comma)));
        std::ranges::transform(protocol, protocol.begin(), to_lower);
        if (!protocol.empty())
            request_.upgrades.push_back(std::move(protocol));
        value.remove_prefix(std::min(comma + 1, value.size()));
    }
    return status_;
}

PeekStatus HttpRequestParser::read_end_of_head() {
    if (!host_)
        return http_1_0_ ? finish(PeekStatus::kDone) : malformed("HTTP/1.1 without Host");
    if (!request_.authority) {
        request_.authority = std::move(host_);
        return finish(PeekStatus::kDone);
    }
    // RFC 9112 3.2.2 has the target win; servers that take Host instead exist, so the two must agree.
    const bool same_port = (host_->port ? host_->port : default_port_) ==
                           (request_.authority->port ? request_.authority->port : default_port_);
    if (!same_host(*host_, *request_.authority) || !same_port)
        return malformed("Host differs from the target");
    return finish(PeekStatus::kDone);
}

} // namespace tapgate::proto
