// SPDX-License-Identifier: Apache-2.0
#include "daemon/policy_loader.hpp"

#include "base/log.hpp"
#include "daemon/event_relay.hpp"
#include "daemon/reply_json.hpp"
#include "policy/parse.hpp"
#include "policy/policy_words.hpp"

#include <future>
#include <vector>

namespace tapgate::daemon {

namespace {

proxy::LiveFlowsOrder order_of(const PreparedPolicy& prepared,
                               const std::optional<proxy::LiveFlowsOrder>& given) {
    if (given)
        return *given;
    const policy::Policy& policy = prepared.compiled->policy();
    return {policy.live_flows, policy.drain};
}

} // namespace

Result<proxy::LiveFlowsOrder> parse_live_flows(std::string_view text) {
    if (text == "cut")
        return proxy::LiveFlowsOrder{policy::LiveFlows::kCut, {}};
    if (text == "keep")
        return proxy::LiveFlowsOrder{policy::LiveFlows::kKeep, {}};
    if (text == "drain")
        return proxy::LiveFlowsOrder{policy::LiveFlows::kDrain, policy::Policy().drain};
    if (text.starts_with("drain=")) {
        if (const auto drain = policy::parse_drain(text.substr(text.find('=') + 1)))
            return proxy::LiveFlowsOrder{policy::LiveFlows::kDrain, *drain};
    }
    return fail(ErrorCode::kInvalid,
                fmt::format("'{}' is not what can become of live flows: cut, keep or drain=30s (1s to 24h)",
                            printable(text, 80)));
}

Result<PolicySwap> PolicyLoader::load(const PreparedPolicy& prepared, const PolicyOrigin& origin,
                                      std::optional<proxy::LiveFlowsOrder> order) {
    const auto loaded = store_.commit(prepared, origin);
    if (!loaded)
        return fail(loaded.error());
    const std::shared_ptr<const proxy::PolicyGeneration>& generation = (*loaded)->generation;
    json::object event = change_event("policy", "", "loaded");
    guests_.policy_changed(prepared.name);

    PolicySwap swap{generation->generation, order_of(prepared, order), {}, warning(prepared)};
    warn(prepared);
    std::vector<std::future<proxy::SwapReport>> reports;
    for (const auto& worker : workers_)
        reports.push_back(worker->swap_policy(generation, swap.order));
    for (auto& report : reports)
        swap.flows.add(report.get());

    const proxy::SwapReport& flows = swap.flows;
    spdlog::info("policy {}: generation {} from {} ({}{}), {} rules; live flows: {} allowed, {} cut, {} "
                 "draining, {} kept",
                 prepared.name, swap.generation, printable(prepared.file), origin_word(origin.how),
                 origin.who.empty() ? "" : " by " + printable(origin.who),
                 prepared.compiled->policy().rules.size(), flows.allowed, flows.cut, flows.draining,
                 flows.kept);
    event["policy"] = prepared.name;
    event["generation"] = swap.generation;
    event["origin"] = origin_word(origin.how);
    event["by"] = origin.who;
    event["live_flows"] = live_flows_counts(swap);
    publish_(event);
    return swap;
}

PolicySwap PolicyLoader::preview(const PreparedPolicy& prepared,
                                 std::optional<proxy::LiveFlowsOrder> order) const {
    auto generation = std::make_shared<proxy::PolicyGeneration>();
    generation->name = prepared.name;
    generation->generation = store_.next_generation();
    generation->compiled = prepared.compiled;
    PolicySwap swap{generation->generation, order_of(prepared, order), {}, warning(prepared)};
    std::vector<std::future<proxy::SwapReport>> reports;
    for (const auto& worker : workers_)
        reports.push_back(worker->preview_swap(generation, swap.order));
    for (auto& report : reports)
        swap.flows.add(report.get());
    return swap;
}

std::string PolicyLoader::warning(const PreparedPolicy& prepared) const {
    const std::optional<policy::Splice> splice = prepared.compiled->policy().splice;
    if (!splice)
        return {};
    const proxy::Carriers& carriers = workers_.front()->carriers();
    const std::string obstacle = carriers.obstacle(*splice);
    if (obstacle.empty())
        return {};
    return fmt::format("splice = \"{}\" is not to be had here, connections are carried by {}: {}",
                       policy::word_for(*splice, policy::kSpliceWords), carriers.name(*splice), obstacle);
}

void PolicyLoader::warn(const PreparedPolicy& prepared) const {
    if (const std::string text = warning(prepared); !text.empty())
        spdlog::warn("policy {}: {}", prepared.name, text);
}

} // namespace tapgate::daemon
