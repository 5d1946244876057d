// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::cli {

/// Rows whose cells line up in columns, two spaces apart. Cells are single-line ASCII.
class Table {
  public:
    Table() = default;

    explicit Table(std::vector<std::string> header) { add(std::move(header)); }

    void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

    /// The rows, each with `indent` in front and a newline behind, without trailing spaces.
    [[nodiscard]] std::string text(std::string_view indent = {}) const;

  private:
    std::vector<std::vector<std::string>> rows_;
};

} // namespace tapgate::cli
