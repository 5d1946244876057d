// SPDX-License-Identifier: Apache-2.0
#include "daemon/guest_registry.hpp"

#include "base/log.hpp"

#include <algorithm>
#include <unordered_map>

namespace tapgate::daemon {

namespace {

/// The addresses by which the guest on `link` knows its host: the declared ones, else those configured on the
/// interface. The interface's link-local address always counts, since neighbour discovery may ask for it.
std::vector<IpAddress> gateways_of(const GuestConfig& config, const net::Link& link,
                                   const net::LinkMonitor& links) {
    const auto link_local = *IpPrefix::parse("fe80::/10");
    std::vector<IpAddress> gateways = config.gateways;
    for (const net::InterfaceAddress& entry :
         std::ranges::equal_range(links.addresses(), link.ifindex, {}, &net::InterfaceAddress::ifindex)) {
        if (config.gateways.empty() || link_local.contains(entry.address))
            gateways.push_back(entry.address);
    }
    std::ranges::sort(gateways);
    const auto repeated = std::ranges::unique(gateways);
    gateways.erase(repeated.begin(), repeated.end());
    if (gateways.size() > TG_GUEST_GATEWAYS) {
        spdlog::warn("{} has {} addresses; only {} of them are known as gateways to the guest", link.name,
                     gateways.size(), static_cast<int>(TG_GUEST_GATEWAYS));
        gateways.resize(TG_GUEST_GATEWAYS);
    }
    return gateways;
}

} // namespace

/// The declarations by interface, as they are at the moment: with many of them and as many links, each link
/// is held against globs alone.
class GuestRegistry::Index {
  public:
    explicit Index(std::vector<Declared>& declared) {
        for (Declared& entry : declared) {
            if (entry.config.is_glob())
                globs_.push_back(&entry);
            else
                by_name_.emplace(entry.config.interface, &entry);
        }
    }

    /// The first declaration that matches `interface`, or null.
    [[nodiscard]] Declared* find(std::string_view interface) const {
        const auto named = by_name_.find(interface);
        for (Declared* glob : globs_) {
            if (named != by_name_.end() && named->second < glob) // both are in one vector
                break;
            if (glob->config.matches(interface))
                return glob;
        }
        return named == by_name_.end() ? nullptr : named->second;
    }

  private:
    std::unordered_map<std::string_view, Declared*> by_name_;
    std::vector<Declared*> globs_;
};

GuestRegistry::GuestRegistry(const LimitSettings& limits, datapath::Datapath& datapath,
                             const PolicyStore& policies, const Workers& workers)
    : limits_(limits), datapath_(datapath), policies_(policies), workers_(workers) {}

Result<void> GuestRegistry::declare(const GuestConfig& config) {
    for (const Declared& other : declared_) {
        if (auto distinct = check_distinct(config, other.config); !distinct)
            return distinct;
    }
    if (policies_.find(config.policy) == nullptr)
        return fail(ErrorCode::kNotFound, fmt::format("there is no policy '{}'; load it with `tapgate policy "
                                                      "load {} FILE`",
                                                      config.policy, config.policy));
    declared_.push_back({config, {}});
    return {};
}

Result<void> GuestRegistry::remove(const std::string& name) {
    const auto found = std::ranges::find(declared_, name, [](const Declared& d) { return d.config.name; });
    if (found == declared_.end())
        return fail(ErrorCode::kNotFound, fmt::format("there is no guest '{}'", name));
    const Index index(declared_);
    std::vector<unsigned> gone;
    for (const auto& [ifindex, attached] : attached_) {
        if (index.find(attached.interface) == &*found)
            gone.push_back(ifindex);
    }
    for (const unsigned ifindex : gone)
        detach(ifindex);
    declared_.erase(found);
    return {};
}

Result<void> check_present(const GuestConfig& guest, const net::LinkMonitor& links) {
    const bool present =
        std::ranges::any_of(links.links(), [&](const net::Link& link) { return guest.matches(link.name); });
    if (present || guest.is_glob())
        return {};
    return fail(
        ErrorCode::kNotFound,
        fmt::format("guest {}: there is no interface {}; create it first, or declare the guest with a "
                    "glob (such as \"{}*\"), which waits for it",
                    guest.name, guest.interface, guest.interface));
}

Result<void> GuestRegistry::check_redeclare(const std::vector<GuestConfig>& before,
                                            const std::vector<GuestConfig>& after,
                                            const net::LinkMonitor& links) const {
    for (const GuestConfig& guest : after) {
        for (const Declared& other : declared_) {
            if (std::ranges::find(before, other.config) != before.end())
                continue;
            if (auto distinct = check_distinct(guest, other.config); !distinct)
                return distinct;
        }
        if (std::ranges::find(before, guest.interface, &GuestConfig::interface) != before.end())
            continue;
        if (auto present = check_present(guest, links); !present)
            return present;
    }
    return {};
}

void GuestRegistry::redeclare(const std::vector<GuestConfig>& before, const std::vector<GuestConfig>& after,
                              const LimitSettings& limits) {
    std::vector<Declared> declared;
    for (const GuestConfig& guest : after)
        declared.push_back({guest, {}});
    for (Declared& other : declared_) {
        if (std::ranges::find(before, other.config) == before.end())
            declared.push_back(std::move(other));
    }
    declared_ = std::move(declared);
    limits_ = limits;
}

Result<void> GuestRegistry::reconcile(const net::LinkMonitor& links) {
    const Index index(declared_);
    std::vector<unsigned> gone;
    for (const auto& [ifindex, attached] : attached_) {
        const net::Link* link = links.find(ifindex);
        if (link == nullptr || link->name != attached.interface || index.find(attached.interface) == nullptr)
            gone.push_back(ifindex);
    }
    for (const unsigned ifindex : gone)
        detach(ifindex);

    Result<void> outcome;
    for (const net::Link& link : links.links()) {
        Declared* declared = index.find(link.name);
        if (declared == nullptr)
            continue;
        std::vector<IpAddress> gateways = gateways_of(declared->config, link, links);
        const auto known = attached_.find(link.ifindex);
        if (known != attached_.end() && known->second.guest.gateways == gateways &&
            known->second.declaration == declared->config && known->second.limits == limits_)
            continue;
        const auto attached = attach(link, declared->config, std::move(gateways));
        if (attached) {
            declared->error.clear();
            continue;
        }
        // Until it can be attached the guest gets nothing: its interface has no programs, and nothing
        // forwards for it.
        if (declared->error != attached.error().message())
            spdlog::error("guest {}: {}", declared->config.name_on(link.name), attached.error().message());
        declared->error = attached.error().message();
        if (outcome)
            outcome = attached;
    }
    return outcome;
}

Result<void> GuestRegistry::attach(const net::Link& link, const GuestConfig& config,
                                   std::vector<IpAddress> gateways) {
    const PolicyStore::Loaded* policy = policies_.find(config.policy);
    if (policy == nullptr)
        return fail(ErrorCode::kNotFound, fmt::format("there is no policy '{}'", config.policy));
    for (const auto& [ifindex, other] : attached_) {
        if (ifindex != link.ifindex && other.guest.addresses == config.addresses)
            return fail(ErrorCode::kExists, fmt::format("its addresses belong to guest {} on {} already",
                                                        other.guest.name, other.interface));
    }
    datapath::GuestSpec spec;
    spec.ifindex = link.ifindex;
    spec.policy = config.policy;
    spec.mac = config.mac;
    spec.addresses = config.addresses;
    spec.gateways = gateways;
    spec.caps.sessions = limits_.sessions;
    spec.caps.half_open = limits_.half_open;
    spec.caps.dns_pending = limits_.dns_in_flight;
    spec.caps.dns_queries_per_second = limits_.dns_qps;
    spec.caps.bindings = limits_.bindings;
    const bool adopted = datapath_.is_guest(link.ifindex);
    const auto id = datapath_.attach_guest(spec);
    if (!id)
        return fail(id.error());
    if (!adopted)
        fresh_.push_back(link.ifindex);

    const auto before = attached_.find(link.ifindex);
    // Its live connections were judged by the policy that it had.
    if (before != attached_.end() &&
        (before->second.guest.id != *id || before->second.guest.policy->name != config.policy)) {
        for (const auto& worker : workers_)
            worker->remove_guest(before->second.guest.id);
    }
    Attached& attached = attached_[link.ifindex];
    attached.ifindex = link.ifindex;
    attached.interface = link.name;
    attached.declaration = config;
    attached.limits = limits_;
    attached.guest.id = *id;
    attached.guest.name = config.name_on(link.name);
    attached.guest.ifindex = link.ifindex;
    attached.guest.addresses = config.addresses;
    attached.guest.gateways = std::move(gateways);
    attached.guest.limits.sessions = limits_.sessions;
    attached.guest.limits.dns_queries_per_second = limits_.dns_qps;
    attached.guest.limits.dns_in_flight = limits_.dns_in_flight;
    attached.guest.limits.dns_connections = limits_.dns_connections;
    attached.guest.limits.bindings = limits_.bindings;
    attached.guest.policy = policy->generation;
    for (const auto& worker : workers_)
        worker->put_guest(attached.guest);
    spdlog::info("guest {} attached to {} (ifindex {}), policy {} generation {}", attached.guest.name,
                 link.name, link.ifindex, config.policy, policy->generation->generation);
    return {};
}

void GuestRegistry::detach(unsigned ifindex) {
    const auto found = attached_.find(ifindex);
    if (found == attached_.end())
        return;
    for (const auto& worker : workers_)
        worker->remove_guest(found->second.guest.id);
    if (const auto detached = datapath_.detach_guest(ifindex); !detached)
        spdlog::error("guest {}: {}", found->second.guest.name, detached.error().message());
    spdlog::info("guest {} detached from {} (ifindex {})", found->second.guest.name, found->second.interface,
                 ifindex);
    attached_.erase(found);
    std::erase(fresh_, ifindex);
}

void GuestRegistry::drop_outdated() {
    std::erase_if(attached_, [this](const auto& entry) {
        const proxy::Guest& guest = entry.second.guest;
        if (datapath_.is_judged_by(entry.first, guest.id, guest.policy->generation))
            return false;
        spdlog::info("guest {} is under another policy by now: its connections are reset", guest.name);
        for (const auto& worker : workers_)
            worker->remove_guest(guest.id);
        return true;
    });
}

void GuestRegistry::policy_changed(const std::string& name) {
    const PolicyStore::Loaded* policy = policies_.find(name);
    for (auto& [ifindex, attached] : attached_) {
        if (attached.guest.policy->name == name)
            attached.guest.policy = policy->generation;
    }
}

void GuestRegistry::undo_attachments() {
    const std::vector<unsigned> fresh = fresh_;
    for (const unsigned ifindex : fresh)
        detach(ifindex);
}

const GuestRegistry::Attached* GuestRegistry::find(std::string_view name) const {
    const auto found =
        std::ranges::find_if(attached_, [&](const auto& entry) { return entry.second.guest.name == name; });
    return found == attached_.end() ? nullptr : &found->second;
}

const GuestRegistry::Attached* GuestRegistry::find(proxy::GuestId id) const {
    const auto found =
        std::ranges::find_if(attached_, [&](const auto& entry) { return entry.second.guest.id == id; });
    return found == attached_.end() ? nullptr : &found->second;
}

} // namespace tapgate::daemon
