// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace tapgate::datapath {

/// Collects libbpf's warnings of this thread while it lives; all of libbpf's output goes to the debug log
/// from the first capture on. Captures do not nest.
class LibbpfCapture {
  public:
    LibbpfCapture();
    ~LibbpfCapture();
    LibbpfCapture(const LibbpfCapture&) = delete;
    LibbpfCapture& operator=(const LibbpfCapture&) = delete;

    [[nodiscard]] const std::string& text() const { return text_; }

  private:
    std::string text_;
};

/// The line of libbpf's warnings that says why a load failed: the verifier's last line before its statistics
/// if there is a verifier log, else the last line; empty if there is none.
[[nodiscard]] std::string_view failure_line(std::string_view warnings);

} // namespace tapgate::datapath
