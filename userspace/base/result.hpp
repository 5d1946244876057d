// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace tapgate {

/// What the caller can do about an error, not where it came from.
enum class ErrorCode : std::uint8_t {
    kInvalid,     ///< the input is wrong; the message says what would be right
    kNotFound,    ///< the named object does not exist
    kExists,      ///< the object exists already, or another process holds it
    kPermission,  ///< a capability or a file permission is missing
    kUnsupported, ///< this kernel or host cannot do it
    kLimit,       ///< a cap or a resource limit was reached
    kUnavailable, ///< a peer or resource is not there now; trying again may help
    kIo,          ///< a system call failed in some other way
};

/// The stable lower-case word of `code`, as used in JSON error objects.
[[nodiscard]] std::string_view error_code_name(ErrorCode code);

/// Why an operation failed: what was tried, on what, and why.
///
/// Prints as "attach tc program to tap0: Operation not permitted (needs CAP_NET_ADMIN)".
class [[nodiscard]] Error {
  public:
    Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

    /// An error from `errno_value`. `operation` reads as an imperative with its object, `hint` (may be empty)
    /// says what to do. The code is derived from `errno_value`.
    static Error from_errno(int errno_value, std::string_view operation, std::string_view hint = {});

    [[nodiscard]] ErrorCode code() const { return code_; }

    /// The errno behind the error, 0 if there was none.
    [[nodiscard]] int errno_value() const { return errno_; }

    [[nodiscard]] const std::string& message() const { return message_; }

    /// The same error with `context` in front: "context: message".
    [[nodiscard]] Error with_context(std::string_view context) const;

  private:
    ErrorCode code_;
    int errno_ = 0;
    std::string message_;
};

template <typename T>
using Result = std::expected<T, Error>;

[[nodiscard]] inline std::unexpected<Error> fail(ErrorCode code, std::string message) {
    return std::unexpected(Error(code, std::move(message)));
}

/// Fails with the current `errno`; to be called before anything can overwrite it.
[[nodiscard]] std::unexpected<Error> fail_errno(std::string_view operation, std::string_view hint = {});

[[nodiscard]] inline std::unexpected<Error> fail(Error error) {
    return std::unexpected(std::move(error));
}

/// Ends the process with a message. For states that only a bug can reach; active in every build.
[[noreturn]] void panic(const char* file, int line, const char* condition);

} // namespace tapgate

/// An assertion about our own code that stays on in release builds. Never for input.
#define TAPGATE_ASSERT(condition)                                                                            \
    do {                                                                                                     \
        if (!(condition)) [[unlikely]]                                                                       \
            ::tapgate::panic(__FILE__, __LINE__, #condition);                                                \
    } while (false)
