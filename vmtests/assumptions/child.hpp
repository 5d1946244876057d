// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include <sys/types.h>

namespace tapgate::assumptions {

/// A forked copy of the test that has done something and then only holds what it has: the daemon, about to
/// crash.
class Child {
  public:
    /// Runs `work` in a child and returns when it is done. Throws std::runtime_error if it threw. Call with
    /// one thread running.
    explicit Child(const std::function<void()>& work);
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;

    ~Child() { kill(); }

    /// SIGKILL; returns when the process is gone.
    void kill();

  private:
    pid_t pid_ = -1;
};

} // namespace tapgate::assumptions
