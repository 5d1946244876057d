// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "datapath/policy_image.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

namespace tapgate::datapath {

/// The map `policies`: the generations that BPF judges by, one for each slot. Not thread-safe.
///
/// Slots that an earlier daemon filled go on serving the guests that refer to them; this one takes others, so
/// that no guest is ever judged by a policy that is not its own.
class Policies {
  public:
    /// The descriptors, of `policies` and `generations`, are borrowed.
    static Result<Policies> open(int policies_fd, int generations_fd);

    /// A slot that nobody uses. kLimit: there is none.
    Result<std::uint32_t> take_slot();

    /// A slot that an earlier daemon has filled, and its generation.
    struct Adopted {
        std::uint32_t slot = 0;
        std::uint64_t generation = 0;
    };

    /// Takes the slot that an earlier daemon has filled with what has that digest; nothing if there is none.
    std::optional<Adopted> adopt(std::uint64_t digest);

    /// Puts `image` in force in `slot`, in place of what is there, in one step: BPF judges by the one or the
    /// other, and by the new one alone when this returns. On failure nothing changes.
    Result<void> install(std::uint32_t slot, const PolicyImage& image, std::uint64_t digest);

    /// Empties the slots that are neither taken from this object nor in `used`, and frees their memory.
    void drop_all_but(const std::set<std::uint32_t>& used);

    /// Gives a slot back; guests that still refer to it are denied everything.
    void release(std::uint32_t slot);

    /// How many slots are in use.
    [[nodiscard]] std::size_t used() const { return taken_.size() + found_.size(); }

    /// The greatest generation in any slot when this was opened, 0 if there was none.
    [[nodiscard]] std::uint64_t last_generation() const { return last_generation_; }

  private:
    Policies(int policies_fd, int generations_fd)
        : policies_fd_(policies_fd), generations_fd_(generations_fd) {}

    Result<void> note(std::uint32_t slot, const tg_generation& generation) const;

    int policies_fd_;
    int generations_fd_;
    std::map<std::uint32_t, tg_generation> found_; // filled by an earlier daemon
    std::set<std::uint32_t> taken_;
    std::uint64_t last_generation_ = 0;
};

} // namespace tapgate::datapath
