// SPDX-License-Identifier: Apache-2.0
#include "proxy/swap.hpp"

#include <utility>

namespace tapgate::proxy {

void SwapReport::count(SwapFate fate) {
    switch (fate) {
    case SwapFate::kNone:
        break;
    case SwapFate::kAllowed:
        ++allowed;
        break;
    case SwapFate::kCut:
        ++cut;
        break;
    case SwapFate::kDraining:
        ++draining;
        break;
    case SwapFate::kKept:
        ++kept;
        break;
    }
}

void SwapReport::add(SwapReport other) {
    allowed += other.allowed;
    cut += other.cut;
    draining += other.draining;
    kept += other.kept;
    for (DeniedFlow& flow : other.denied) {
        if (denied.size() == kMaxListed)
            break;
        denied.push_back(std::move(flow));
    }
}

} // namespace tapgate::proxy
