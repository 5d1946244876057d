// SPDX-License-Identifier: Apache-2.0
//
// What a policy swap does to one session. Everything here runs on the worker's thread between two steps of
// Session::run().
#include "proxy/session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tapgate::proxy {

SwapVerdict Session::under(const PolicyGeneration& policy, const LiveFlowsOrder& order) const {
    switch (state_) {
    case State::kAccepted:
    case State::kRefused:
        return {};
    case State::kPeek: {
        const policy::Decision at_syn = policy::decide_syn(*policy.compiled, facts_.flow());
        // Nothing has been sent upstream for it, so there is nothing to drain or keep.
        const bool is_denied = at_syn.verdict == policy::Verdict::kDeny;
        return {is_denied ? SwapFate::kCut : SwapFate::kNone, judgement_of(policy, at_syn)};
    }
    case State::kDial:
    case State::kRelay:
        break;
    }
    if (is_cut_)
        return {};
    Judgement judgement = judge_again(policy, facts_);
    if (judgement.allowed)
        return {SwapFate::kAllowed, std::move(judgement)};
    switch (order.what) {
    case policy::LiveFlows::kDrain:
        return {SwapFate::kDraining, std::move(judgement)};
    case policy::LiveFlows::kKeep:
        return {SwapFate::kKept, std::move(judgement)};
    case policy::LiveFlows::kCut:
        break;
    }
    return {SwapFate::kCut, std::move(judgement)};
}

void Session::swap(std::shared_ptr<const PolicyGeneration> policy, const SwapVerdict& verdict,
                   const LiveFlowsOrder& order) {
    if (state_ == State::kPeek) {
        swap_while_peeking(std::move(policy));
        return;
    }
    if (verdict.fate == SwapFate::kNone)
        return;
    policy_ = std::move(policy);
    denied_by_.reset();
    const auto earlier_deadline = std::exchange(drain_deadline_, std::nullopt);
    drain_timer_.cancel();
    if (verdict.fate == SwapFate::kAllowed) {
        judgement_ = verdict.judgement;
        return;
    }
    denied_by_ = verdict.judgement;
    if (verdict.fate == SwapFate::kCut) {
        cut();
    } else if (verdict.fate == SwapFate::kDraining) {
        const auto deadline = std::chrono::steady_clock::now() + order.drain;
        drain_until(earlier_deadline ? std::min(*earlier_deadline, deadline) : deadline);
    }
}

void Session::swap_while_peeking(std::shared_ptr<const PolicyGeneration> policy) {
    policy_ = std::move(policy);
    const policy::Decision at_syn = policy::decide_syn(*policy_->compiled, facts_.flow());
    swap_verdict_.reset();
    if (at_syn.verdict != policy::Verdict::kDefer)
        swap_verdict_ = at_syn;
    boost::system::error_code ignored;
    socket_.cancel(ignored); // wakes peek(), which goes on waiting if there is no verdict yet
}

void Session::drain_until(std::chrono::steady_clock::time_point deadline) {
    drain_deadline_ = deadline;
    drain_timer_.expires_at(deadline);
    drain_timer_.async_wait([weak = weak_from_this(), deadline](const boost::system::error_code& error) {
        const std::shared_ptr<Session> self = weak.lock();
        // Another swap may have let it go on while this was on its way.
        if (!error && self && self->drain_deadline_ == deadline)
            self->cut();
    });
}

void Session::cut() {
    is_cut_ = true;
    cancel();
}

void Session::tell_cut(FlowEndEvent& event) const {
    event.how = "policy";
    event.who = "daemon";
    event.generation = denied_by_->generation;
    event.rule = denied_by_->rule;
    std::string ground = denied_by_->basis;
    if (const DecidingRule& rule = denied_by_->rule; rule.number != 0)
        ground = fmt::format("{}rule {} in line {}: {}", ground == "rule" ? "" : ground + ", ", rule.number,
                             rule.line, rule.text);
    event.reason = fmt::format("{} by policy {} generation {}: {}", drain_deadline_ ? "drained" : "cut",
                               policy_->name, denied_by_->generation, ground);
}

} // namespace tapgate::proxy
