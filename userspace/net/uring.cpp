// SPDX-License-Identifier: Apache-2.0
#include "net/uring.hpp"

#include <boost/asio/post.hpp>

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

namespace tapgate::net {

namespace asio = boost::asio;

namespace {

/// Completions taken from the ring at once.
constexpr unsigned kBatch = 64;
/// Rounds of deliver-and-submit before the io_context's other handlers get their turn.
constexpr unsigned kRoundsPerTurn = 8;

} // namespace

Result<std::shared_ptr<Uring>> Uring::open(asio::io_context& context, unsigned entries) {
    io_uring_params parameters{};
    // COOP_TASKRUN (5.19): completions are worked off when the thread enters the kernel anyway, not by
    // interrupting it. Each session has up to six operations, hence the larger completion queue; beyond it
    // the kernel keeps completions back (IORING_FEAT_NODROP) and peeking fetches them.
    parameters.flags =
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE;
    parameters.cq_entries = entries * 4;
    io_uring ring{};
    const int error = -io_uring_queue_init_params(entries, &ring, &parameters);
    if (error == ENOSYS || error == EINVAL || error == EPERM || error == EACCES)
        return fail(ErrorCode::kUnsupported,
                    "set up io_uring: " + Error::from_errno(error, "io_uring_setup").message() +
                        " (needs Linux 5.19 and kernel.io_uring_disabled=0)");
    if (error != 0)
        return fail(Error::from_errno(error, "set up io_uring"));

    std::shared_ptr<Uring> uring(new Uring(context, ring));
    if ((parameters.features & IORING_FEAT_NODROP) == 0)
        return fail(ErrorCode::kUnsupported,
                    "set up io_uring: this kernel may drop completions (needs Linux 5.19)");
    const int duplicate = ::fcntl(ring.ring_fd, F_DUPFD_CLOEXEC, 0);
    if (duplicate < 0)
        return fail_errno("duplicate the io_uring descriptor");
    boost::system::error_code assigned;
    uring->descriptor_.assign(duplicate, assigned);
    if (assigned) {
        ::close(duplicate);
        return fail(Error::from_errno(assigned.value(), "wait for the io_uring descriptor"));
    }
    return uring;
}

Uring::~Uring() {
    TAPGATE_ASSERT(busy_ == 0);
    boost::system::error_code ignored; // closing cannot be retried
    descriptor_.close(ignored);
    io_uring_queue_exit(&ring_);
}

void Uring::start(UringOperation& operation) {
    TAPGATE_ASSERT(!operation.is_busy_);
    operation.is_busy_ = true;
    ++busy_;
    queued_.push_back(operation);
    if (is_turn_posted_)
        return;
    post_turn();
}

void Uring::post_turn() {
    is_turn_posted_ = true;
    asio::post(context_, [weak = weak_from_this()] {
        if (const auto self = weak.lock())
            self->turn();
    });
}

bool Uring::withdraw(UringOperation& operation) {
    if (operation.is_busy_ && operation.is_linked()) {
        operation.unlink();
        operation.is_busy_ = false;
        --busy_;
    }
    return !operation.is_busy_;
}

void Uring::drain() {
    while (busy_ > 0) {
        submit();
        if (deliver() == 0 && busy_ > 0)
            (void)io_uring_submit_and_wait(&ring_, 1); // EINTR and EBUSY: the loop comes round again
    }
}

/// The reactor reports the ring's descriptor readable while completions are there, also those the kernel
/// holds back.
void Uring::watch() {
    if (is_watching_ || busy_ == 0)
        return;
    is_watching_ = true;
    auto on_readable = [weak = weak_from_this()](const boost::system::error_code& error) {
        const auto self = weak.lock();
        if (!self || error)
            return;
        self->is_watching_ = false;
        self->turn();
    };
    descriptor_.async_wait(asio::posix::stream_descriptor::wait_read, std::move(on_readable));
}

void Uring::turn() {
    is_turn_posted_ = true; // what is started in here is submitted in here
    const auto keep_alive = shared_from_this();
    submit();
    for (unsigned round = 0; round < kRoundsPerTurn && deliver() > 0; ++round)
        submit();
    is_turn_posted_ = false;
    if (!queued_.empty() || io_uring_sq_ready(&ring_) > 0)
        post_turn(); // the kernel was short of something
    watch();
}

unsigned Uring::deliver() {
    std::array<io_uring_cqe*, kBatch> ready;
    const unsigned count = io_uring_peek_batch_cqe(&ring_, ready.data(), kBatch);
    for (unsigned i = 0; i < count; ++i) {
        const io_uring_cqe completion = *ready[i];
        io_uring_cq_advance(&ring_, 1);
        auto& operation = *static_cast<UringOperation*>(io_uring_cqe_get_data(&completion));
        if ((completion.flags & IORING_CQE_F_MORE) == 0) {
            operation.is_busy_ = false;
            --busy_;
        }
        operation.completed(completion.res, completion.flags);
    }
    return count;
}

void Uring::submit() {
    while (!queued_.empty()) {
        io_uring_sqe* entry = io_uring_get_sqe(&ring_);
        if (entry == nullptr) {
            // EBUSY or EAGAIN: the kernel wants completions taken first, or memory. The rest stays queued.
            if (io_uring_submit(&ring_) <= 0)
                return;
            continue;
        }
        UringOperation& operation = queued_.front();
        queued_.pop_front();
        operation.prepare(*entry);
        io_uring_sqe_set_data(entry, &operation);
    }
    if (io_uring_sq_ready(&ring_) > 0)
        (void)io_uring_submit(&ring_);
}

} // namespace tapgate::net
