// SPDX-License-Identifier: Apache-2.0
#include "datapath/binding_writer.hpp"

#include "datapath/abi.hpp"
#include "datapath/name_id.hpp"
#include "datapath/program_run.hpp"

#include <bpf/bpf.h>

#include <algorithm>
#include <array>
#include <memory>

#include <linux/if_ether.h>

namespace tapgate::datapath {

namespace {

Result<void> append_name(tg_recording& out, std::span<const std::uint8_t> name) {
    if (name.empty() || name.size() > kWireNameMax)
        return fail(ErrorCode::kInvalid, "a name to be recorded is empty or too long");
    std::ranges::copy(name, out.names + out.names_length);
    out.names_length += static_cast<std::uint32_t>(name.size());
    ++out.name_count;
    return {};
}

Result<void> fill(tg_recording& out, const Recording& recording) {
    if (recording.aliases.size() > TG_DNS_ALIASES_MAX)
        return fail(ErrorCode::kInvalid, "an answer has too many aliases to be recorded");
    if (recording.addresses.size() > TG_RECORDING_ADDRESSES_MAX)
        return fail(ErrorCode::kInvalid, "an answer has too many addresses to be recorded");
    if (auto appended = append_name(out, recording.name); !appended)
        return appended;
    for (const std::vector<std::uint8_t>& alias : recording.aliases)
        if (auto appended = append_name(out, alias); !appended)
            return appended;
    for (const Recording::Address& address : recording.addresses) {
        tg_told_address& told = out.addresses[out.address_count++];
        told.address = to_abi(address.address);
        told.ttl_seconds = address.ttl_seconds;
    }
    if (recording.resolver)
        out.resolver = to_abi(*recording.resolver);
    return {};
}

static_assert(kWireNameMax * (TG_DNS_ALIASES_MAX + 1) <= TG_RECORDING_NAMES_BYTES);

} // namespace

BindingWriter::BindingWriter(int record_answer_fd, int forget_binding_fd, int recordings_fd,
                             const GuestTable& guests)
    : record_answer_fd_(record_answer_fd), forget_binding_fd_(forget_binding_fd),
      recordings_fd_(recordings_fd), guests_(guests) {}

Result<tg_drop_reason> BindingWriter::write(const tg_recording& recording) {
    constexpr std::uint32_t kOnly = 0;
    constexpr std::array<std::uint8_t, ETH_ZLEN> kAnyPacket{};
    if (::bpf_map_update_elem(recordings_fd_, &kOnly, &recording, BPF_ANY) != 0)
        return fail_errno("write to a BPF map");
    const auto reason = run_program(record_answer_fd_, kAnyPacket);
    if (!reason)
        return fail(reason.error());
    return static_cast<tg_drop_reason>(*reason);
}

Result<void> BindingWriter::record(unsigned ifindex, const Recording& recording) {
    const auto out = std::make_unique<tg_recording>();
    if (auto filled = fill(*out, recording); !filled)
        return filled;
    const std::lock_guard lock(recording_mutex_);
    const auto guest = guests_.find(ifindex);
    if (!guest || guest->id != recording.guest)
        return fail(ErrorCode::kNotFound, "the guest is gone");
    out->guest_id = guest->id;
    out->slot = guest->slot;
    out->bindings_max = guest->bindings_max;
    const auto reason = write(*out);
    if (!reason)
        return fail(reason.error());
    switch (*reason) {
    case TG_DROP_NONE:
        return {};
    case TG_DROP_DNS_BINDING_CAP:
    case TG_DROP_DNS_BINDING_FULL:
        return fail(ErrorCode::kLimit, std::string(drop_reason_text(*reason)));
    default:
        return fail(ErrorCode::kInvalid, "an answer to be recorded is malformed");
    }
}

void BindingWriter::keep(const tg_guest& guest, const IpAddress& address,
                         std::span<const std::uint64_t> name_ids, BootClock::time_point until) {
    const auto out = std::make_unique<tg_recording>();
    if (name_ids.empty() || name_ids.size() > std::size(out->name_ids))
        return;
    out->guest_id = guest.id;
    out->slot = guest.slot;
    out->bindings_max = guest.bindings_max;
    out->keep_until_ns = to_abi_time(until);
    std::ranges::copy(name_ids, out->name_ids);
    out->name_count = static_cast<std::uint32_t>(name_ids.size());
    out->addresses[0].address = to_abi(address);
    out->address_count = 1;
    const std::lock_guard lock(recording_mutex_);
    // What cannot be prolonged ends when it was to end.
    static_cast<void>(write(*out));
}

BindingWriter::Forgotten BindingWriter::forget(const tg_binding_key& key, BootClock::time_point until,
                                               std::uint64_t name_id) {
    tg_forgetting forgetting{};
    forgetting.key = key;
    forgetting.until_ns = to_abi_time(until);
    forgetting.name_id = name_id;
    forgetting.now_ns = to_abi_time(BootClock::now());
    const auto result = run_program(forget_binding_fd_, packet_of(forgetting));
    if (!result)
        return {};
    return {*result >> 16U, *result & 0xffffU};
}

void BindingWriter::settle() {
    const std::lock_guard lock(recording_mutex_);
}

} // namespace tapgate::datapath
