// SPDX-License-Identifier: Apache-2.0
#include "proxy/denial.hpp"

#include "base/log.hpp"

namespace tapgate::proxy {

std::string http_forbidden(std::string_view host, std::string_view ground, std::string_view policy_text) {
    std::string body = fmt::format("tapgate: {} is denied by {}.", printable(host), ground);
    if (!policy_text.empty())
        body += fmt::format(" {}", policy_text);
    body += '\n';
    return fmt::format("HTTP/1.1 403 Forbidden\r\n"
                       "Content-Type: text/plain; charset=utf-8\r\n"
                       "Content-Length: {}\r\n"
                       "Connection: close\r\n"
                       "\r\n"
                       "{}",
                       body.size(), body);
}

} // namespace tapgate::proxy
