// SPDX-License-Identifier: Apache-2.0
#include "net/relay.hpp"

#include <cerrno>

namespace tapgate::net {

bool is_local_failure(int error_number) {
    switch (error_number) {
    case EACCES: // by a security module
    case EADDRNOTAVAIL:
    case EBADF:
    case EFAULT:
    case EINVAL:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case ENOSPC:
    case ENOTSOCK:
    case EOPNOTSUPP:
    case EPERM: // by the host's firewall
        return true;
    default:
        return false;
    }
}

std::string_view relay_end_name(RelayEnd end) {
    switch (end) {
    case RelayEnd::kFinished:
        return "finished";
    case RelayEnd::kReset:
        return "reset";
    case RelayEnd::kIdle:
        return "idle";
    case RelayEnd::kCancelled:
        return "cancelled";
    case RelayEnd::kOpened:
        return "opened";
    case RelayEnd::kRefused:
        return "refused";
    case RelayEnd::kFailed:
        return "failed";
    }
    return "unknown";
}

std::string_view relay_party_name(RelayParty party) {
    switch (party) {
    case RelayParty::kGuest:
        return "guest";
    case RelayParty::kUpstream:
        return "upstream";
    case RelayParty::kDaemon:
        return "daemon";
    }
    return "unknown";
}

} // namespace tapgate::net
