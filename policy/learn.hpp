// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "policy/compile.hpp"
#include "policy/decide.hpp"
#include "policy/model.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

// From what a guest did to the narrowest allowlist that covers it (`tapgate policy learn`).
namespace tapgate::policy {

/// A rule, and how often it would have been used.
struct LearnedRule {
    Rule rule;
    std::uint64_t connections = 0;
    std::uint64_t questions = 0;
    /// Some of the connections said no name: it is one of those that their address has.
    bool is_guessed = false;
};

class Learner {
  public:
    /// What is noted of one guest at most; a guest that makes names up does not fill memory.
    static constexpr std::size_t kMostTargets = 10'000;

    /// A connection by TCP that was allowed. `names`: the one on the wire, or all that the address had for
    /// the guest if there was none (`is_guessed`); the rules then cover each, since it may have been any.
    void note_connection(const Endpoint& destination, std::span<const Name> names, bool is_guessed);

    /// A question that was allowed.
    void note_question(const Name& name);

    /// An address that the guest was told for a name.
    void note_address(const Name& name, const IpAddress& address);

    /// A rule for each name, with the ports that were used, then for each address that was used without one.
    /// Exact names alone. A name that was only asked for gets ports that nothing but questions use. A rule is
    /// `private-ok` where answers could not be given otherwise, by the groups of `observed`, the policy that
    /// the guest was under.
    [[nodiscard]] std::vector<LearnedRule> rules(const CompiledPolicy& observed,
                                                 const HostAddresses& host_addresses) const;

    /// More was done than can be noted: the rules do not cover all of it.
    [[nodiscard]] bool is_overfull() const { return is_overfull_; }

  private:
    struct Use {
        std::map<std::uint16_t, std::uint64_t> ports; ///< to how many connections
        std::set<IpAddress> addresses;
        std::uint64_t questions = 0;
        bool is_guessed = false;
    };

    /// Null if there is no room for one more.
    template <typename Target>
    Use* use_of(std::map<Target, Use>& uses, const Target& target);

    std::map<Name, Use> names_;
    std::map<IpAddress, Use> addresses_;
    bool is_overfull_ = false;
};

/// `observed` with these rules alone and all else denied.
[[nodiscard]] Policy learned_policy(const Policy& observed, const std::vector<LearnedRule>& rules);

/// That policy as a file in TOML: each rule with its counts, and the settings of `observed`.
[[nodiscard]] std::string learned_text(const Policy& observed, const std::vector<LearnedRule>& rules);

} // namespace tapgate::policy
