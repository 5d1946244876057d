// SPDX-License-Identifier: Apache-2.0
#include "base/result.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <system_error>

namespace tapgate {

namespace {

ErrorCode code_of_errno(int value) {
    switch (value) {
    case EINVAL:
    case E2BIG:
    case ENAMETOOLONG:
        return ErrorCode::kInvalid;
    case ENOENT:
    case ENODEV:
    case ENXIO:
    case ESRCH:
        return ErrorCode::kNotFound;
    case EEXIST:
    case EBUSY:
    case EADDRINUSE:
        return ErrorCode::kExists;
    case EPERM:
    case EACCES:
        return ErrorCode::kPermission;
    case ENOSYS:
    case EOPNOTSUPP:
    case EPROTONOSUPPORT:
    case EAFNOSUPPORT:
        return ErrorCode::kUnsupported;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOSPC:
    case ENOBUFS:
        return ErrorCode::kLimit;
    case EAGAIN:
    case ECONNREFUSED:
    case ETIMEDOUT:
    case ENETUNREACH:
    case EHOSTUNREACH:
        return ErrorCode::kUnavailable;
    default:
        return ErrorCode::kIo;
    }
}

} // namespace

std::string_view error_code_name(ErrorCode code) {
    switch (code) {
    case ErrorCode::kInvalid:
        return "invalid";
    case ErrorCode::kNotFound:
        return "not-found";
    case ErrorCode::kExists:
        return "exists";
    case ErrorCode::kPermission:
        return "permission";
    case ErrorCode::kUnsupported:
        return "unsupported";
    case ErrorCode::kLimit:
        return "limit";
    case ErrorCode::kUnavailable:
        return "unavailable";
    case ErrorCode::kIo:
        return "io";
    }
    return "io";
}

Error Error::from_errno(int errno_value, std::string_view operation, std::string_view hint) {
    std::string text = fmt::format("{}: {}", operation, std::generic_category().message(errno_value));
    if (!hint.empty())
        text += fmt::format(" ({})", hint);
    Error error(code_of_errno(errno_value), std::move(text));
    error.errno_ = errno_value;
    return error;
}

Error Error::with_context(std::string_view context) const {
    Error error = *this;
    error.message_ = fmt::format("{}: {}", context, message_);
    return error;
}

std::unexpected<Error> fail_errno(std::string_view operation, std::string_view hint) {
    return std::unexpected(Error::from_errno(errno, operation, hint));
}

void panic(const char* file, int line, const char* condition) {
    std::fprintf(stderr, "tapgate: bug at %s:%d: %s\n", file, line, condition);
    std::abort();
}

} // namespace tapgate
