// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include <ostream>
#include <string>
#include <string_view>

namespace tapgate::cli {

enum ExitCode : int {
    kExitOk = 0,
    kExitFailed = 1, ///< refused or failed
    kExitUsage = 2,
    kExitDiffers = 3, ///< a verdict differs from the expected one, or two policies differ
};

enum class Format : std::uint8_t { kText, kJson, kPretty };

/// Where a command's output goes, and in which form. Results go to standard output; errors go to standard
/// error as text, in JSON mode to standard output as the error object.
class Console {
  public:
    Console(std::ostream& out, std::ostream& err) : out_(out), err_(err) {}

    Format format = Format::kText;
    std::string socket = "/run/tapgate/control.sock";

    [[nodiscard]] bool json() const { return format != Format::kText; }

    /// Prints text as it is and flushes.
    void print(std::string_view text);
    /// Prints one JSON object with "schema":1 and a newline.
    void print(const boost::json::object& object);

    /// Prints a line about what goes on to standard error, in JSON mode too.
    void note(std::string_view line);
    /// Prints the error and returns kExitFailed.
    int failed(const Error& error);
    /// Prints the error with a hint where help is, and returns kExitUsage.
    int usage(std::string_view message, std::string_view help_words = {});

  private:
    std::ostream& out_;
    std::ostream& err_;
};

/// `value` indented by two spaces per level, without a final newline.
[[nodiscard]] std::string pretty_json(const boost::json::value& value);

} // namespace tapgate::cli
