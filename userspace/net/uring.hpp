// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/intrusive/list.hpp>
#include <liburing.h>

#include <cstdint>
#include <memory>

namespace tapgate::net {

/// One request to the kernel, embedded in what it belongs to. From start() until its last completion it is
/// busy: it must stay in place, and what it points to belongs to the kernel.
class UringOperation
    : public boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
  public:
    UringOperation() = default;
    UringOperation(const UringOperation&) = delete;
    UringOperation& operator=(const UringOperation&) = delete;

    virtual ~UringOperation() { TAPGATE_ASSERT(!is_busy_); }

    [[nodiscard]] bool is_busy() const { return is_busy_; }

  private:
    friend class Uring;

    /// Writes the request; called when it gets its submission entry, some time after start().
    virtual void prepare(io_uring_sqe& entry) = 0;
    /// A completion. Unless more are announced (IORING_CQE_F_MORE) the kernel is done with it: it is no
    /// longer busy and may be started again or destroyed here.
    virtual void completed(int result, std::uint32_t flags) = 0;

    bool is_busy_ = false;
};

/// An io_uring whose completions are delivered on an io_context: the reactor waits for the ring's descriptor.
///
/// Operations wait in userspace for a free submission entry, so neither queue can lose one. Used on one
/// thread. The io_context has work for as long as an operation is busy.
class Uring : public std::enable_shared_from_this<Uring> {
  public:
    /// kUnsupported if io_uring is disabled here or older than 5.19.
    static Result<std::shared_ptr<Uring>> open(boost::asio::io_context& context, unsigned entries);

    Uring(const Uring&) = delete;
    Uring& operator=(const Uring&) = delete;
    /// No operation may be busy.
    ~Uring();

    /// Queues `operation`; what is queued during one turn of the io_context is submitted in one call.
    void start(UringOperation& operation);
    /// Takes `operation` back if it was not submitted yet; true if it is no longer busy.
    bool withdraw(UringOperation& operation);
    /// Blocks until no operation is busy. For destructors, after everything was cancelled.
    void drain();

    [[nodiscard]] io_uring& native() { return ring_; }

  private:
    Uring(boost::asio::io_context& context, const io_uring& ring)
        : context_(context), descriptor_(context), ring_(ring) {}

    void post_turn();
    void watch();
    void turn();
    unsigned deliver();
    void submit();

    boost::asio::io_context& context_;
    boost::asio::posix::stream_descriptor descriptor_; ///< a duplicate of the ring's
    io_uring ring_;
    boost::intrusive::list<UringOperation, boost::intrusive::constant_time_size<false>> queued_;
    std::uint64_t busy_ = 0;
    bool is_watching_ = false;
    bool is_turn_posted_ = false;
};

} // namespace tapgate::net
