// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/unique_fd.hpp"

#include <future>
#include <string>
#include <utility>

namespace tapgate::test {

/// An anonymous network namespace with `lo` up. It ends with its last descriptor, socket and process.
class NetNs {
  public:
    NetNs();

    [[nodiscard]] int fd() const { return fd_.get(); }

    /// A path that programs such as ip(8) take as a namespace, valid while this process runs.
    [[nodiscard]] std::string path() const;

    /// Runs `function` on a thread inside the namespace and returns its result; exceptions come through. A
    /// socket made there stays in the namespace and may be used from anywhere.
    template <typename Function>
    auto run(Function function) const {
        return std::async(std::launch::async,
                          [this, &function] {
                              enter();
                              return function();
                          })
            .get();
    }

    /// Moves the calling thread into the namespace, for good.
    void enter() const;

  private:
    UniqueFd fd_;
};

} // namespace tapgate::test
