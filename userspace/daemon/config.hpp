// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"
#include "base/log_sink.hpp"
#include "base/result.hpp"
#include "daemon/flow_log.hpp"
#include "policy/compile.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// The daemon's configuration file, read and checked. Nothing here looks at the host: whether an interface or
// a policy file exists is found out when it is needed.
namespace tapgate::daemon {

using MacAddress = std::array<std::uint8_t, 6>;

struct DaemonSettings {
    unsigned workers = 1; ///< 1..64; parse_config() fills in the number of CPUs
    std::string control_socket = "/run/tapgate/control.sock";
    std::string control_group; ///< members may read over the control socket; empty: nobody but root
    std::string pin_dir = "/sys/fs/bpf/tapgate";
    std::uint32_t mark = 0x7461;       ///< never 0
    std::uint32_t route_table = 29793; ///< never a table of the kernel's own (0, 253, 254, 255)
    /// Where metrics are served; empty: nowhere.
    std::optional<Endpoint> metrics_listen = Endpoint{IpAddress::from_v4(0x7f000001), 9664};
    /// Of policies that do not say. kAuto: io_uring if the kernel has it, else copy. kKernel: BPF, and by
    /// kAuto what it cannot carry. What it names must be there, or the daemon does not start.
    policy::Splice splice = policy::Splice::kAuto;
    bool sandbox = true; ///< give up what is not needed after start (sandbox.hpp)
};

struct LogSettings {
    std::string level = "info"; ///< a word that setup_logging() knows
    LogFormat format = LogFormat::kText;
    FlowLogSettings flows;
};

struct DnsSettings {
    /// Trusted resolvers; empty means those of `resolv_conf`, which is re-read when it changes.
    std::vector<Endpoint> upstreams;
    std::string resolv_conf = "/etc/resolv.conf";
    /// Lifetime of a binding is clamp(TTL, min_ttl, max_ttl).
    std::chrono::seconds min_ttl{60};
    std::chrono::seconds max_ttl{86400};
    /// How long one resolver is waited for.
    std::chrono::milliseconds timeout{2000};
};

/// Caps per guest (I8).
struct LimitSettings {
    std::uint32_t sessions = 2048;
    std::uint32_t half_open = 1024;
    std::uint32_t bindings = 8192;
    std::uint32_t dns_qps = 200;
    std::uint32_t dns_in_flight = 512;
    /// TCP connections that carry DNS queries.
    std::uint32_t dns_connections = 16;

    bool operator==(const LimitSettings&) const = default;
};

struct TimerSettings {
    std::chrono::milliseconds peek{5000};
    /// How long a guest may be silent before its bindings alone may connect it, for servers that speak first.
    std::chrono::milliseconds server_first{300};
    std::chrono::milliseconds connect{10000};
    /// A session on which neither side has sent a byte for this long is reset.
    std::chrono::seconds idle{3600};
    /// The same once one side has sent its FIN.
    std::chrono::seconds half_closed{300};
    /// A guest's DNS connection with nothing in flight is closed after it.
    std::chrono::milliseconds dns_idle{10000};
    /// How long sessions may go on once the daemon was told to stop; 0: not at all.
    std::chrono::seconds drain{10};
    /// The most a guest may send before its first flight has to be complete.
    std::size_t peek_bytes = 65536;
};

/// A guest as an operator declares it, in the file or by `guest add`.
struct GuestConfig {
    /// Unique. For a glob it contains "%i", which stands for the interface's name.
    std::string name;
    /// An interface name, or a glob of * and ? that attaches every interface it matches.
    std::string interface;
    /// At least one; each unique among all guests.
    std::vector<IpAddress> addresses;
    /// Empty: the addresses configured on the interface.
    std::vector<IpAddress> gateways;
    /// Empty: learned from the guest's first packet.
    std::optional<MacAddress> mac;
    std::string policy;

    [[nodiscard]] bool is_glob() const;
    /// True if this entry declares a guest on the interface of that name.
    [[nodiscard]] bool matches(std::string_view interface_name) const;
    /// The name of the guest on that interface: `name` with each "%i" replaced.
    [[nodiscard]] std::string name_on(std::string_view interface_name) const;

    bool operator==(const GuestConfig&) const = default;
};

struct PolicyConfig {
    std::string name;
    /// Resolved against the directory of the configuration file.
    std::string file;
    /// Load the file again whenever its content changes.
    bool watch = false;
};

struct Config {
    DaemonSettings daemon;
    LogSettings log;
    DnsSettings dns;
    LimitSettings limits;
    TimerSettings timers;
    policy::GroupTable groups;
    std::vector<GuestConfig> guests; ///< in file order; the first entry that matches an interface has it
    std::vector<PolicyConfig> policies;
};

/// Parses and checks a configuration (TOML). `file` is the path it was read from: messages begin with
/// "FILE:LINE:COLUMN: ", and relative policy files are resolved against its directory. Unknown keys, values
/// out of range, unknown policies and guests that overlap are errors that say what would be right. At most
/// 4 MiB.
Result<Config> parse_config(std::string_view text, std::string_view file);

/// The strings of a guest declaration; an empty `mac` means that it is learned.
struct GuestFields {
    std::string name;
    std::string interface;
    std::vector<std::string> addresses;
    std::vector<std::string> gateways;
    std::string mac;
    std::string policy;
};

/// A declaration made from strings, by the rules of the file; for `guest add`. Whether the policy exists and
/// whether the guest collides with others is for the caller to check.
Result<GuestConfig> make_guest(const GuestFields& fields);

/// Fails with kExists if both could not be declared together: the same name, interface or address.
Result<void> check_distinct(const GuestConfig& guest, const GuestConfig& other);

/// "02:00:5e:00:53:01"; multicast addresses and all zeros are refused.
Result<MacAddress> parse_mac(std::string_view text);
[[nodiscard]] std::string format_mac(const MacAddress& mac);

} // namespace tapgate::daemon
