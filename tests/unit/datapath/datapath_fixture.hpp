// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/unique_fd.hpp"
#include "datapath/abi.hpp"
#include "datapath/attach.hpp"
#include "datapath/datapath.hpp"
#include "policy/parse.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>

namespace tapgate::datapath {

inline const std::string kPins = "/sys/fs/bpf/tapgate-test";

/// Each test runs in network and mount namespaces of its own, with its own bpffs and a veth pair tap0-far0.
class DatapathTest : public testing::Test {
  protected:
    void SetUp() override {
        net_ = UniqueFd(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
        mnt_ = UniqueFd(::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
        ASSERT_EQ(::unshare(CLONE_NEWNET | CLONE_NEWNS), 0) << "needs root";
        separate_ = true;
        ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
        ASSERT_EQ(::mount("bpf", "/sys/fs/bpf", "bpf", 0, nullptr), 0);
        run("ip link set lo up; ip link add tap0 type veth peer name far0; ip link set tap0 up");
        settings_.pin_dir = kPins;
        settings_.workers = 2;
    }

    void TearDown() override {
        datapath_.reset();
        if (separate_) {
            ASSERT_EQ(::setns(net_.get(), CLONE_NEWNET), 0);
            ASSERT_EQ(::setns(mnt_.get(), CLONE_NEWNS), 0);
        }
    }

    static void run(const std::string& command) { ASSERT_EQ(std::system(command.c_str()), 0) << command; }

    void open(std::string_view policy = "default_egress = \"allow\"") {
        datapath_.reset();
        auto opened = Datapath::open(settings_);
        ASSERT_TRUE(opened) << opened.error().message();
        datapath_ = std::move(*opened);
        install("web", policy);
    }

    void install(const std::string& name, std::string_view text) {
        const auto parsed = policy::parse(text, name);
        ASSERT_TRUE(parsed) << parsed.error().message();
        const auto compiled = policy::CompiledPolicy::compile(*parsed);
        ASSERT_TRUE(compiled) << compiled.error().message();
        generation_ = std::max(generation_, datapath_->last_generation()) + 1;
        const auto installed = datapath_->install_policy(name, **compiled, text, generation_);
        ASSERT_TRUE(installed) << installed.error().message();
        generation_ = *installed;
    }

    /// The generation in a slot of `policies`; 0 if there is none.
    static std::uint64_t generation_in(std::uint32_t slot) {
        std::uint32_t id = 0;
        if (::bpf_map_lookup_elem(map("policies").get(), &slot, &id) != 0)
            return 0;
        const UniqueFd inner(::bpf_map_get_fd_by_id(id));
        constexpr std::uint32_t kHead = 0;
        tg_policy_block head{};
        EXPECT_EQ(::bpf_map_lookup_elem(inner.get(), &kHead, &head), 0);
        return head.head.generation;
    }

    GuestId attach(const char* interface = "tap0", const char* address = "192.0.2.2") {
        GuestSpec spec;
        spec.ifindex = ::if_nametoindex(interface);
        spec.policy = "web";
        spec.addresses = {*IpAddress::parse(address)};
        spec.gateways = {*IpAddress::parse("192.0.2.1")};
        const auto id = datapath_->attach_guest(spec);
        EXPECT_TRUE(id) << id.error().message();
        return id ? *id : 0;
    }

    static UniqueFd map(const std::string& name) {
        return UniqueFd(::bpf_obj_get((kPins + "/maps/" + name).c_str()));
    }

    template <typename Key, typename Value>
    static void store(const std::string& name, const Key& key, const Value& value, std::uint64_t flags = 0) {
        ASSERT_EQ(::bpf_map_update_elem(map(name).get(), &key, &value, flags), 0) << name;
    }

    template <typename Key>
    static bool holds(const std::string& name, const Key& key) {
        std::array<std::uint8_t, 2048> value{};
        return ::bpf_map_lookup_elem(map(name).get(), &key, value.data()) == 0;
    }

    static tg_guest guest(unsigned ifindex = ::if_nametoindex("tap0")) {
        tg_guest out{};
        EXPECT_EQ(::bpf_map_lookup_elem(map("guests").get(), &ifindex, &out), 0);
        return out;
    }

    static tg_guest_state state(std::uint32_t slot) {
        tg_guest_state out{};
        EXPECT_EQ(::bpf_map_lookup_elem(map("guest_state").get(), &slot, &out), 0);
        return out;
    }

    static void set_state(std::uint32_t slot, const tg_guest_state& value) {
        store("guest_state", slot, value);
    }

    static std::uint64_t in(std::chrono::seconds delay) { return to_abi_time(BootClock::now() + delay); }

    static tg_binding_key binding_key(GuestId id, const char* address) {
        tg_binding_key key{};
        key.guest_id = id;
        key.address = to_abi(*IpAddress::parse(address));
        return key;
    }

    static void store_name(GuestId id, std::uint64_t name_id, std::string_view text,
                           std::chrono::seconds lifetime = std::chrono::seconds(60)) {
        tg_name name{};
        name.expires_ns = in(lifetime);
        name.length = static_cast<std::uint16_t>(text.size());
        std::ranges::copy(text, name.text);
        store("names", tg_name_key{id, name_id}, name);
    }

    /// Names of an address by id, each with the end of its life.
    static void store_binding(GuestId id, const char* address,
                              const std::vector<std::pair<std::uint64_t, std::uint64_t>>& names) {
        tg_binding binding{};
        binding.key = binding_key(id, address);
        for (std::size_t i = 0; i < names.size(); ++i) {
            binding.names[i].name_id = names[i].first;
            binding.names[i].expires_ns = names[i].second;
        }
        store("bindings", binding.key, binding, BPF_F_LOCK);
    }

    /// "NAME" or "NAME<ALIAS<ALIAS" for each live binding of the address.
    [[nodiscard]] std::vector<std::string> names_of(GuestId id, const char* address) const {
        std::vector<std::string> names;
        const auto found = datapath_->bound_names(id, *IpAddress::parse(address)).value();
        for (const BoundName& bound : found) {
            std::string& text = names.emplace_back(bound.name);
            for (const std::string& alias : bound.aliases)
                text += "<" + alias;
        }
        std::ranges::sort(names);
        return names;
    }

    static tg_flow flow_key() {
        tg_flow key{};
        key.guest_address = to_abi(*IpAddress::parse("192.0.2.2"));
        key.peer_address = to_abi(*IpAddress::parse("203.0.113.5"));
        key.guest_port = htons(40000);
        key.peer_port = htons(443);
        key.protocol = IPPROTO_TCP;
        return key;
    }

    /// Programs on both directions, by tcx and by clsact together.
    static std::size_t programs_on(const char* interface) {
        const int ifindex = static_cast<int>(::if_nametoindex(interface));
        std::size_t found = 0;
        for (const int tcx : {46, 47}) { // BPF_TCX_INGRESS, BPF_TCX_EGRESS
            std::uint32_t count = 0;
            const int queried =
                ::bpf_prog_query(ifindex, static_cast<bpf_attach_type>(tcx), 0, nullptr, nullptr, &count);
            EXPECT_EQ(queried, has_tcx() ? 0 : -EINVAL);
            found += count;
        }
        for (const bpf_tc_attach_point point : {BPF_TC_INGRESS, BPF_TC_EGRESS}) {
            bpf_tc_hook hook{};
            hook.sz = sizeof(hook);
            hook.ifindex = ifindex;
            hook.attach_point = point;
            bpf_tc_opts options{};
            options.sz = sizeof(options);
            options.handle = 0x7467;
            options.priority = 1;
            found += ::bpf_tc_query(&hook, &options) == 0 ? 1 : 0;
        }
        return found;
    }

    Settings settings_;
    std::unique_ptr<Datapath> datapath_;
    std::uint64_t generation_ = 0; // the last that was installed

  private:
    UniqueFd net_, mnt_;
    bool separate_ = false;
};

} // namespace tapgate::datapath
