// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "policy/compile.hpp"
#include "proxy/guest.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace tapgate::daemon {

/// The named policies and the generation of each that is in force. Main thread only.
class PolicyStore {
  public:
    struct Loaded {
        std::shared_ptr<const proxy::PolicyGeneration> generation;
        std::string file;
        std::chrono::system_clock::time_point loaded_at;
    };

    explicit PolicyStore(policy::GroupTable daemon_groups) : daemon_groups_(std::move(daemon_groups)) {}

    /// Parses and compiles `text` as the next generation of policy `name`, without putting it in force.
    /// `file` is where the text comes from, for messages.
    Result<Loaded> prepare(const std::string& name, std::string_view text, const std::string& file) const;
    /// The same for the text of a file. At most 64 MiB.
    Result<Loaded> prepare_file(const std::string& name, const std::string& file) const;

    /// Puts a prepared generation in force in this table; the workers are told by the caller.
    void commit(Loaded loaded);

    /// Null if there is no such policy.
    [[nodiscard]] const Loaded* find(const std::string& name) const;

    [[nodiscard]] const std::map<std::string, Loaded>& all() const { return policies_; }

  private:
    policy::GroupTable daemon_groups_;
    std::map<std::string, Loaded> policies_;
    std::uint64_t last_generation_ = 0;
};

/// The whole content of a regular file of at most `limit` bytes.
Result<std::string> read_file(const std::string& path, std::size_t limit);

} // namespace tapgate::daemon
