// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "daemon/policy_installer.hpp"
#include "policy/compile.hpp"
#include "proxy/guest.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace tapgate::daemon {

/// A policy read, parsed and compiled, but in force nowhere.
struct PreparedPolicy {
    std::string name;
    std::string file; ///< where the text came from, for messages
    std::shared_ptr<const std::string> text;
    std::shared_ptr<const policy::CompiledPolicy> compiled;
};

/// Prepares `text` as policy `name`. Errors begin with "FILE:LINE:COLUMN: ".
Result<PreparedPolicy> prepare_policy(const policy::GroupTable& daemon_groups, const std::string& name,
                                      std::shared_ptr<const std::string> text, const std::string& file);
/// The text of the file of policy `name`. At most 64 MiB.
Result<std::shared_ptr<const std::string>> read_policy_file(const std::string& name, const std::string& file);
/// Both.
Result<PreparedPolicy> prepare_policy_file(const policy::GroupTable& daemon_groups, const std::string& name,
                                           const std::string& file);

/// Who made a generation the one in force.
struct PolicyOrigin {
    enum class How : std::uint8_t { kStart, kLoad, kRollback, kWatch, kReload };
    How how = How::kStart;
    /// Who says that they asked for it, as the command line tells it; empty for kStart and kWatch.
    std::string who;
};

/// "start", "load", "rollback", "watch", "reload".
[[nodiscard]] std::string_view origin_word(PolicyOrigin::How how);

/// The named policies, the generation of each that is in force, and what was in force before. Main thread
/// only.
class PolicyStore {
  public:
    /// Generations of one policy that are remembered; fewer when their texts are large.
    static constexpr std::size_t kHistory = 16;
    /// The texts of one policy's history take at most this much memory; two of the greatest size always fit.
    static constexpr std::size_t kHistoryBytes = std::size_t{128} << 20U;

    /// A generation as the history knows it. The text is kept, not what was compiled of it: that takes many
    /// times the memory, and a rollback has the time to compile again.
    struct Past {
        std::uint64_t generation = 0;
        std::chrono::system_clock::time_point loaded_at;
        std::string file;
        std::size_t rules = 0;
        PolicyOrigin origin;
        std::shared_ptr<const std::string> text;
    };

    struct Loaded {
        std::shared_ptr<const proxy::PolicyGeneration> generation;
        std::deque<Past> history; ///< oldest first; the last is the generation in force

        [[nodiscard]] const Past& current() const { return history.back(); }

        /// The remembered generation of that number, or null.
        [[nodiscard]] const Past* find(std::uint64_t number) const;
    };

    /// Numbers generations of all policies together from `first_generation` on. `installer` outlives this.
    PolicyStore(std::uint64_t first_generation, PolicyInstaller& installer)
        : installer_(installer), next_generation_(first_generation) {}

    /// The number that the next generation, of whichever policy, will have.
    [[nodiscard]] std::uint64_t next_generation() const { return next_generation_; }

    /// Installs a prepared policy in the kernel, where an earlier daemon may have left it with its number,
    /// then puts it in force in this table; the workers are told by the caller. When the kernel refuses it
    /// nothing has changed. The result is valid until the next call.
    Result<const Loaded*> commit(const PreparedPolicy& prepared, const PolicyOrigin& origin);

    /// Null if there is no such policy.
    [[nodiscard]] const Loaded* find(const std::string& name) const;

    [[nodiscard]] const std::map<std::string, Loaded>& all() const { return policies_; }

  private:
    PolicyInstaller& installer_;
    std::map<std::string, Loaded> policies_;
    std::uint64_t next_generation_;
};

/// The whole content of a regular file of at most `limit` bytes.
Result<std::string> read_file(const std::string& path, std::size_t limit);

} // namespace tapgate::daemon
