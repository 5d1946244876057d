// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "net/raw_tcp.hpp"
#include "net/relay.hpp"
#include "policy/model.hpp"
#include "proxy/kernel_splice.hpp"
#include "proxy/splice_table.hpp"

#include <boost/asio/io_context.hpp>

#include <memory>
#include <string>
#include <string_view>

namespace tapgate::proxy {

/// What can carry the connections of one worker: each way that the host has, whatever the configuration says,
/// since policies come and go. Belongs to the worker's io_context and is destroyed before it.
class Carriers {
  public:
    /// `preferred` is what carries connections under policies that do not say; fails if it names a way that
    /// is not to be had. `raw`, or the error in it that speaks against the splice in the kernel, and `table`
    /// outlive this.
    static Result<std::unique_ptr<Carriers>> open(boost::asio::io_context& context, policy::Splice preferred,
                                                  SpliceTable& table, const Result<net::RawTcp>& raw);

    /// For a connection that is to be spliced in the kernel: null, and counted, if that is not to be had.
    [[nodiscard]] KernelSplice* kernel();

    /// The same without counting.
    [[nodiscard]] KernelSplice* find_kernel() const { return kernel_ ? kernel_->get() : nullptr; }

    /// What carries a connection in userspace where the policy or the configuration says `splice`.
    [[nodiscard]] net::Relay& relay(policy::Splice splice) const;

    /// The word of what carries a connection there, if nothing about the connection speaks against it.
    [[nodiscard]] std::string_view name(policy::Splice splice) const;

    /// Why the way that `splice` names is not to be had; empty if it is.
    [[nodiscard]] std::string obstacle(policy::Splice splice) const;

    /// Counts a connection that was to be spliced in the kernel and is not even planned.
    void decline(SpliceRefusal refusal) { table_.count(refusal); }

  private:
    Carriers(SpliceTable& table, std::unique_ptr<net::Relay> copy, Result<std::unique_ptr<net::Relay>> uring,
             Result<std::unique_ptr<KernelSplice>> kernel);

    SpliceTable& table_;
    std::unique_ptr<net::Relay> copy_;
    Result<std::unique_ptr<net::Relay>> uring_;
    Result<std::unique_ptr<KernelSplice>> kernel_;
};

} // namespace tapgate::proxy
