// SPDX-License-Identifier: Apache-2.0
#include "proxy/carriers.hpp"

#include "base/log.hpp"
#include "policy/policy_words.hpp"

#include <fmt/format.h>

#include <utility>

namespace tapgate::proxy {

using policy::Splice;

namespace {

Result<std::unique_ptr<KernelSplice>> make_kernel_splice(boost::asio::io_context& context, SpliceTable& table,
                                                         const Result<net::RawTcp>& raw) {
    if (!raw)
        return fail(raw.error());
    return KernelSplice::create(context, table, *raw);
}

} // namespace

Carriers::Carriers(SpliceTable& table, std::unique_ptr<net::Relay> copy,
                   Result<std::unique_ptr<net::Relay>> uring, Result<std::unique_ptr<KernelSplice>> kernel)
    : table_(table), copy_(std::move(copy)), uring_(std::move(uring)), kernel_(std::move(kernel)) {}

Result<std::unique_ptr<Carriers>> Carriers::open(boost::asio::io_context& context, Splice preferred,
                                                 SpliceTable& table, const Result<net::RawTcp>& raw) {
    std::unique_ptr<Carriers> carriers(new Carriers(table, net::make_copy_relay(context),
                                                    net::make_uring_relay(context, net::UringSettings{}),
                                                    make_kernel_splice(context, table, raw)));
    if (const std::string obstacle = carriers->obstacle(preferred); !obstacle.empty())
        return fail(
            ErrorCode::kUnsupported,
            fmt::format("splice = \"{}\": {}", policy::word_for(preferred, policy::kSpliceWords), obstacle));
    if (preferred != Splice::kCopy && !carriers->uring_)
        spdlog::warn("io_uring is not usable here, splice falls back to copy: {}",
                     carriers->uring_.error().message());
    return carriers;
}

KernelSplice* Carriers::kernel() {
    if (!kernel_)
        table_.count(SpliceRefusal::kUnavailable);
    return find_kernel();
}

net::Relay& Carriers::relay(Splice splice) const {
    return splice == Splice::kCopy || !uring_ ? *copy_ : **uring_;
}

std::string_view Carriers::name(Splice splice) const {
    return splice == Splice::kKernel && kernel_ ? KernelSplice::kName : relay(splice).name();
}

std::string Carriers::obstacle(Splice splice) const {
    switch (splice) {
    case Splice::kKernel:
        return kernel_ ? std::string() : kernel_.error().message();
    case Splice::kUring:
        return uring_ ? std::string() : uring_.error().message();
    case Splice::kAuto:
    case Splice::kCopy:
        break;
    }
    return {};
}

} // namespace tapgate::proxy
