// SPDX-License-Identifier: Apache-2.0
#include "carriers.hpp"

#include "harness/dns.hpp"
#include "harness/process.hpp"
#include "harness/sandbox.hpp"
#include "harness/tcp_stream.hpp"
#include "harness/wait.hpp"
#include "netns/world.hpp"

#include <fmt/format.h>

#include <fstream>
#include <stdexcept>

namespace tapgate::test {

namespace {

/// A benchmark uses up ports faster than TIME_WAIT gives them back.
void widen_ports(const NetNs& ns) {
    must_run({"sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_tw_reuse=1",
              "net.ipv4.tcp_max_syn_backlog=8192", "net.core.somaxconn=8192"},
             &ns);
}

void widen_ports(const Topology& topology) {
    widen_ports(topology.guest().ns);
    widen_ports(topology.host());
    widen_ports(topology.internet());
}

/// Children of `parent`, as nginx has its workers.
std::vector<pid_t> children(pid_t parent) {
    std::ifstream file(fmt::format("/proc/{0}/task/{0}/children", parent));
    std::vector<pid_t> found;
    for (pid_t pid = 0; file >> pid;)
        found.push_back(pid);
    return found;
}

class Forwarding final : public Carrier {
  public:
    Forwarding() {
        widen_ports(topology_);
        must_run({"sysctl", "-qw", "net.ipv4.ip_forward=1"}, &topology_.host());
        ip_batch(topology_.internet(), "route add 192.0.2.0/24 via 198.51.100.1\n");
        must_run({"nft", "add table ip bench; "
                         "add chain ip bench forward { type filter hook forward priority filter; }; "
                         "add rule ip bench forward ip daddr " +
                             bench_denied().to_string() + " reject with tcp reset"},
                 &topology_.host());
    }

    [[nodiscard]] std::string name() const override { return "forwarding"; }

    [[nodiscard]] const NetNs& guest() const override { return topology_.guest().ns; }

    [[nodiscard]] const NetNs& internet() const override { return topology_.internet(); }

    [[nodiscard]] Endpoint target(std::uint16_t port) const override { return {bench_server(), port}; }

    [[nodiscard]] std::vector<pid_t> processes() const override { return {}; }

  private:
    Topology topology_;
};

class Tapgate final : public Carrier {
  public:
    explicit Tapgate(std::string splice)
        : splice_(std::move(splice)),
          world_(config(splice_), {dual_stack(std::string(kBenchName), 1, 86400)}) {
        widen_ports(world_.topology);
        const auto reply = ask(guest(), {ipv4().gateway, 53}, std::string(kBenchName), "A", kPatience);
        if (!reply || reply->addresses.empty())
            throw std::runtime_error("tapgate does not resolve: " + world_.daemon.log());
    }

    [[nodiscard]] std::string name() const override { return "tapgate " + splice_; }

    [[nodiscard]] const NetNs& guest() const override { return world_.topology.guest().ns; }

    [[nodiscard]] const NetNs& internet() const override { return world_.topology.internet(); }

    [[nodiscard]] Endpoint target(std::uint16_t port) const override { return {bench_server(), port}; }

    [[nodiscard]] std::vector<pid_t> processes() const override { return {world_.daemon.pid()}; }

    void check() const override {
        for (const boost::json::value& flow : world_.daemon.flows()) {
            if (flow.at("splice").as_string() != splice_ || flow.at("name").as_string() != kBenchName)
                throw std::runtime_error("carried otherwise: " + boost::json::serialize(flow));
        }
    }

  private:
    static DaemonConfig config(const std::string& splice) {
        DaemonConfig config;
        config.policy = policy_text({fmt::format("allow@{}:tcp", kBenchName)});
        config.daemon = fmt::format("splice = \"{}\"", splice);
        config.log = "level = \"error\"";
        config.limits = "sessions = 20000\nhalf_open = 20000";
        return config;
    }

    std::string splice_;
    World world_;
};

/// A proxy that is no part of tapgate, in the host's namespace.
class OtherProxy : public Carrier {
  public:
    [[nodiscard]] std::string name() const override { return name_; }

    [[nodiscard]] const NetNs& guest() const override { return topology_.guest().ns; }

    [[nodiscard]] const NetNs& internet() const override { return topology_.internet(); }

    [[nodiscard]] std::vector<pid_t> processes() const override {
        std::vector<pid_t> all = children(process_.pid());
        all.push_back(process_.pid());
        return all;
    }

  protected:
    OtherProxy(std::string name, const std::vector<std::string>& argv)
        : name_(std::move(name)), process_((widen_ports(topology_), argv), &topology_.host()) {}

    /// Asked to, its workers end with it.
    ~OtherProxy() override { process_.stop(); }

    OtherProxy(const OtherProxy&) = delete;
    OtherProxy& operator=(const OtherProxy&) = delete;

    [[nodiscard]] const Topology& topology() const { return topology_; }

    void wait_for(const Endpoint& listener) {
        if (!wait_until([&] {
                return !process_.running() || TcpStream::connect(topology_.host(), listener).has_value();
            }) ||
            !process_.running())
            throw std::runtime_error(
                name_ + " does not come up (packages haproxy, libnginx-mod-stream): " + process_.err());
    }

  private:
    std::string name_;
    Topology topology_;
    Process process_;
};

/// HAProxy as a transparent proxy: it accepts what the guest dials, waits for the SNI, and dials the same.
class HaProxy final : public OtherProxy {
  public:
    HaProxy() : OtherProxy("haproxy", {"haproxy", "-db", "-f", write_config()}) {
        const NetNs& host = topology().host();
        ip_batch(host, "rule add fwmark 1 lookup 100\nroute add local default dev lo table 100\n");
        must_run({"nft", "add table ip bench; "
                         "add chain ip bench in { type filter hook prerouting priority mangle; }; "
                         "add rule ip bench in iifname tap0 meta l4proto tcp tproxy to 127.0.0.1:8443 "
                         "meta mark set 1 accept"},
                 &host);
        wait_for({IpAddress::from_v4(0x7f000001), 8443});
    }

    [[nodiscard]] Endpoint target(std::uint16_t port) const override { return {bench_server(), port}; }

  private:
    static std::string write_config() {
        return write_scratch("haproxy.cfg",
                             fmt::format("global\n maxconn 7000\n"
                                         "defaults\n mode tcp\n option splice-auto\n"
                                         " maxconn 7000\n timeout connect 10s\n"
                                         " timeout client 1h\n timeout server 1h\n"
                                         "frontend guests\n bind 127.0.0.1:8443 transparent\n"
                                         " tcp-request connection reject if {{ dst {} }}\n"
                                         " tcp-request inspect-delay 5s\n"
                                         " tcp-request content accept if {{ req.ssl_sni {} }}\n"
                                         " tcp-request content reject\n"
                                         " default_backend dialled\n"
                                         "backend dialled\n server it 0.0.0.0\n",
                                         bench_denied().to_string(), kBenchName));
    }
};

/// nginx has no transparent mode that keeps the destination: the guest dials the host, as a guest does whose
/// resolver sends it there, and the SNI says where to go.
class Nginx final : public OtherProxy {
  public:
    Nginx() : OtherProxy("nginx", {"nginx", "-e", scratch_dir() / "stream.log", "-c", write_config()}) {
        wait_for(target(kEchoPort));
    }

    [[nodiscard]] Endpoint target(std::uint16_t port) const override { return {ipv4().gateway, port}; }

    [[nodiscard]] Endpoint denied_target() const override { return target(kDeniedPort); }

  private:
    static std::string write_config() {
        std::string listens;
        for (const std::uint16_t port : {kSinkPort, kSourcePort, kEchoPort, kAnswerPort})
            listens += fmt::format("listen {} backlog=8192;\n", Endpoint{ipv4().gateway, port}.to_string());
        return write_scratch(
            "stream.conf",
            fmt::format(
                "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n"
                "daemon off;\nworker_processes auto;\npid {0}/stream.pid;\nerror_log {0}/stream.log;\n"
                "events {{ worker_connections 9000; }}\n"
                "stream {{\nmap $ssl_preread_server_name $server_of_name {{ {1} {2}; }}\n"
                "server {{\n{3}ssl_preread on;\nproxy_timeout 1h;\n"
                "proxy_pass $server_of_name:$server_port;\n}}\n"
                "server {{\nlisten {4} backlog=8192;\ndeny all;\nproxy_pass {2}:{5};\n}}\n}}\n",
                scratch_dir().string(), kBenchName, bench_server().to_string(), listens,
                Endpoint{ipv4().gateway, kDeniedPort}.to_string(), kAnswerPort));
    }
};

} // namespace

IpAddress bench_server() {
    return ipv4().server(1);
}

IpAddress bench_denied() {
    return ipv4().server(2);
}

std::vector<std::unique_ptr<Carrier>> make_carriers() {
    std::vector<std::unique_ptr<Carrier>> carriers;
    carriers.push_back(std::make_unique<Forwarding>());
    for (const char* splice : {"kernel", "uring", "copy"})
        carriers.push_back(std::make_unique<Tapgate>(splice));
    carriers.push_back(std::make_unique<HaProxy>());
    carriers.push_back(std::make_unique<Nginx>());
    return carriers;
}

} // namespace tapgate::test
