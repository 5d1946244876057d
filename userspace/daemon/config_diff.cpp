// SPDX-License-Identifier: Apache-2.0
#include "daemon/config_diff.hpp"

#include "policy/policy_words.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace tapgate::daemon {

namespace {

struct Setting {
    std::string name;
    std::string value;
    bool live = false;
};

template <typename Range>
std::string list_text(const Range& items) {
    std::vector<std::string> texts;
    for (const auto& item : items)
        texts.push_back(item.to_string());
    return fmt::format("[{}]", fmt::join(texts, ", "));
}

std::string guest_text(const GuestConfig& guest) {
    std::string text = fmt::format("{} {}", guest.name, list_text(guest.addresses));
    if (!guest.gateways.empty())
        text += " gateways " + list_text(guest.gateways);
    if (guest.mac)
        text += " mac " + format_mac(*guest.mac);
    return text + " policy " + guest.policy;
}

class SettingList {
  public:
    template <typename Value>
    void live(std::string_view name, const Value& value) {
        settings_.push_back({std::string(name), fmt::format("{}", value), true});
    }

    template <typename Value>
    void fixed(std::string_view name, const Value& value) {
        settings_.push_back({std::string(name), fmt::format("{}", value), false});
    }

    [[nodiscard]] std::vector<Setting> take() { return std::move(settings_); }

  private:
    std::vector<Setting> settings_;
};

/// Every setting that a configuration can have. What is `fixed` here is left alone by what_can_change().
std::vector<Setting> settings_of(const Config& config) {
    SettingList list;
    const DaemonSettings& daemon = config.daemon;
    list.fixed("daemon.workers", daemon.workers);
    list.fixed("daemon.control_socket", daemon.control_socket);
    list.fixed("daemon.control_group", daemon.control_group);
    list.fixed("daemon.pin_dir", daemon.pin_dir);
    list.fixed("daemon.mark", fmt::format("{:#x}", daemon.mark));
    list.fixed("daemon.route_table", daemon.route_table);
    list.fixed("daemon.metrics_listen", daemon.metrics_listen ? daemon.metrics_listen->to_string() : "");
    list.fixed("daemon.splice", policy::word_for(daemon.splice, policy::kSpliceWords));
    list.fixed("daemon.sandbox", daemon.sandbox);
    const LogSettings& log = config.log;
    list.live("log.level", log.level);
    list.live("log.format", log.format == LogFormat::kJson ? "json" : "text");
    list.fixed("log.flow_file", log.flows.file);
    list.fixed("log.flow_file_mib", log.flows.bytes >> 20U);
    list.fixed("log.flow_files", log.flows.files);
    list.fixed("log.flow_syslog", log.flows.syslog);
    const DnsSettings& dns = config.dns;
    list.live("dns.upstreams", list_text(dns.upstreams));
    list.live("dns.resolv_conf", dns.resolv_conf);
    list.fixed("dns.min_ttl", dns.min_ttl.count());
    list.fixed("dns.max_ttl", dns.max_ttl.count());
    list.live("dns.timeout_ms", dns.timeout.count());
    const LimitSettings& limits = config.limits;
    list.live("limits.sessions", limits.sessions);
    list.live("limits.half_open", limits.half_open);
    list.live("limits.bindings", limits.bindings);
    list.live("limits.dns_qps", limits.dns_qps);
    list.live("limits.dns_in_flight", limits.dns_in_flight);
    list.live("limits.dns_connections", limits.dns_connections);
    const TimerSettings& timers = config.timers;
    list.live("timers.peek_ms", timers.peek.count());
    // Sessions that peek share a buffer of that size.
    list.fixed("timers.peek_bytes", timers.peek_bytes);
    list.live("timers.server_first_ms", timers.server_first.count());
    list.live("timers.connect_ms", timers.connect.count());
    list.live("timers.idle_s", timers.idle.count());
    list.live("timers.half_closed_s", timers.half_closed.count());
    list.live("timers.dns_idle_ms", timers.dns_idle.count());
    list.live("timers.drain_s", timers.drain.count());
    for (const auto& [name, blocks] : config.groups)
        list.live("groups." + name, list_text(blocks));
    for (const PolicyConfig& policy : config.policies)
        list.live("policy." + policy.name, policy.file + (policy.watch ? ", watched" : ""));
    // By interface, which no two declarations share and which is what keeps its programs.
    for (const GuestConfig& guest : config.guests)
        list.live("guest." + guest.interface, guest_text(guest));
    return list.take();
}

} // namespace

std::vector<SettingChange> config_changes(const Config& before, const Config& after) {
    const std::vector<Setting> old_settings = settings_of(before);
    const std::vector<Setting> new_settings = settings_of(after);
    std::vector<SettingChange> changes;
    for (const Setting& setting : new_settings) {
        const auto old_one = std::ranges::find(old_settings, setting.name, &Setting::name);
        if (old_one == old_settings.end())
            changes.push_back({setting.name, {}, setting.value, setting.live});
        else if (old_one->value != setting.value)
            changes.push_back({setting.name, old_one->value, setting.value, setting.live});
    }
    for (const Setting& setting : old_settings) {
        if (std::ranges::find(new_settings, setting.name, &Setting::name) != new_settings.end())
            continue;
        // A policy stays loaded: a guest that was added by command may have it.
        const bool live = setting.live && !setting.name.starts_with("policy.");
        changes.push_back({setting.name, setting.value, {}, live});
    }
    return changes;
}

Config what_can_change(Config wanted, const Config& running) {
    wanted.daemon = running.daemon;
    wanted.log.flows = running.log.flows;
    wanted.dns.min_ttl = running.dns.min_ttl;
    wanted.dns.max_ttl = running.dns.max_ttl;
    wanted.timers.peek_bytes = running.timers.peek_bytes;
    return wanted;
}

} // namespace tapgate::daemon
