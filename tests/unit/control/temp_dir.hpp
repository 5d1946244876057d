// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace tapgate::control {

/// A directory of its own, removed with what is in it.
class TempDir {
  public:
    TempDir() : path_((std::filesystem::temp_directory_path() / "tapgate-XXXXXX").string()) {
        if (::mkdtemp(path_.data()) == nullptr)
            std::abort();
    }

    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;

    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }

    [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

} // namespace tapgate::control
