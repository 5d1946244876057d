// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/process.hpp"

#include <filesystem>
#include <string>
#include <vector>

// Real programs of the test internet.
namespace tapgate::test {

/// unbound as the trusted resolver on 203.0.113.53 and 2001:db8:3::53, authoritative for `test.`, `example.`,
/// `com.` and `net.`, answering before the constructor returns.
class Resolver {
  public:
    /// `zone` are lines of a zone file with full names: "www.allowed.test. 60 IN A 203.0.113.10".
    Resolver(const NetNs& ns, const std::vector<std::string>& zone);

  private:
    Process process_;
};

/// Two zone lines: the A and AAAA record of `name` for the `number`th address of the internet.
[[nodiscard]] std::string dual_stack(const std::string& name, unsigned number, unsigned ttl = 300);

/// nginx with TLS on port 443 and plain HTTP on port 80 of the `number`th address of the internet, v4 and v6.
/// Its certificate holds for `names`; "/" answers "served HOST", or serves the files of `root` if that is
/// given.
class WebServer {
  public:
    WebServer(const NetNs& ns, const std::vector<unsigned>& numbers, const std::vector<std::string>& names,
              const std::filesystem::path& root = {});

    /// The certificate clients have to trust.
    [[nodiscard]] const std::filesystem::path& ca_file() const { return ca_file_; }

  private:
    std::filesystem::path ca_file_;
    Process process_;
};

} // namespace tapgate::test
