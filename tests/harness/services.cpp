// SPDX-License-Identifier: Apache-2.0
#include "harness/services.hpp"

#include "harness/dns.hpp"
#include "harness/sandbox.hpp"
#include "harness/tcp_stream.hpp"
#include "harness/topology.hpp"
#include "harness/wait.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <stdexcept>

namespace tapgate::test {

namespace {

Process start_unbound(const NetNs& ns, const std::vector<std::string>& zone) {
    std::string zones;
    for (const std::string apex : {"test", "example", "com", "net"}) {
        std::string text = fmt::format("{0}. 300 IN SOA ns.{0}. root.{0}. 1 3600 600 86400 300\n"
                                       "{0}. 300 IN NS ns.{0}.\nns.{0}. 300 IN A 203.0.113.53\n",
                                       apex);
        for (const std::string& line : zone) {
            const std::string owner = line.substr(0, line.find(' '));
            if (owner.ends_with("." + apex + "."))
                text += line + "\n";
        }
        const auto file = write_scratch("unbound/" + apex + ".zone", text);
        zones += fmt::format("auth-zone:\n  name: \"{}.\"\n  zonefile: \"{}\"\n  for-downstream: no\n"
                             "  for-upstream: yes\n  fallback-enabled: no\n",
                             apex, file.string());
    }
    const auto config = write_scratch(
        "unbound/unbound.conf",
        fmt::format("server:\n  interface: 203.0.113.53\n  interface: 2001:db8:3::53\n"
                    "  access-control: 198.51.100.0/24 allow\n  access-control: 2001:db8:2::/64 allow\n"
                    "  access-control: 203.0.113.0/24 allow\n  access-control: 2001:db8:3::/64 allow\n"
                    "  username: \"\"\n  chroot: \"\"\n  directory: \"{0}\"\n  pidfile: \"{0}/unbound.pid\"\n"
                    "  use-syslog: no\n  do-daemonize: no\n  num-threads: 1\n  module-config: \"iterator\"\n"
                    "  local-zone: \"test.\" nodefault\n"
                    "remote-control:\n  control-enable: no\n{1}",
                    (scratch_dir() / "unbound").string(), zones));
    return Process({"unbound", "-d", "-c", config}, &ns);
}

std::filesystem::path make_certificate(const std::vector<std::string>& names) {
    const auto dir = scratch_dir() / "nginx";
    std::vector<std::string> alternatives;
    for (const std::string& name : names)
        alternatives.push_back("DNS:" + name);
    must_run({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
              "-days", "2", "-subj", "/CN=test", "-addext",
              fmt::format("subjectAltName={}", fmt::join(alternatives, ",")), "-keyout", dir / "key.pem",
              "-out", dir / "cert.pem"});
    return dir / "cert.pem";
}

Process start_nginx(const NetNs& ns, const std::vector<unsigned>& numbers,
                    const std::filesystem::path& certificate, const std::filesystem::path& root) {
    const std::string location = root.empty() ? "default_type text/plain; return 200 \"served $host\\n\";"
                                              : fmt::format("root {};", root.string());
    const auto dir = scratch_dir() / "nginx";
    std::string listens;
    for (const unsigned number : numbers) {
        for (const Family* family : {&ipv4(), &ipv6()}) {
            listens += fmt::format("listen {} ssl http2;\nlisten {};\n",
                                   Endpoint{family->server(number), 443}.to_string(),
                                   Endpoint{family->server(number), 80}.to_string());
        }
    }
    const auto config = write_scratch(
        "nginx/nginx.conf",
        fmt::format("daemon off;\nmaster_process off;\npid {0}/nginx.pid;\nerror_log {0}/error.log;\n"
                    "events {{}}\nhttp {{\naccess_log off;\nclient_body_temp_path {0}/body;\n"
                    "proxy_temp_path {0}/proxy;\nfastcgi_temp_path {0}/fastcgi;\nuwsgi_temp_path {0}/uwsgi;\n"
                    "scgi_temp_path {0}/scgi;\nserver {{\n{1}ssl_certificate {2};\n"
                    "ssl_certificate_key {0}/key.pem;\nssl_protocols TLSv1.2 TLSv1.3;\nssl_ecdh_curve "
                    "X25519:prime256v1;\nlocation / {{ {3} "
                    "}}\n}}\n}}\n",
                    dir.string(), listens, certificate.string(), location));
    return Process({"nginx", "-e", dir / "error.log", "-c", config}, &ns);
}

} // namespace

Resolver::Resolver(const NetNs& ns, const std::vector<std::string>& zone)
    : process_(start_unbound(ns, zone)) {
    for (const Family* family : {&ipv4(), &ipv6()}) {
        const Endpoint server{family->resolver, 53};
        const auto answers = [&] {
            return !process_.running() ||
                   ask(ns, server, "ns.test", "A", std::chrono::milliseconds(200)).has_value();
        };
        if (!wait_until(answers) || !process_.running())
            throw std::runtime_error("unbound does not answer: " + process_.err());
    }
}

std::string dual_stack(const std::string& name, unsigned number, unsigned ttl) {
    return fmt::format("{0}. {1} IN A {2}\n{0}. {1} IN AAAA {3}", name, ttl,
                       ipv4().server(number).to_string(), ipv6().server(number).to_string());
}

WebServer::WebServer(const NetNs& ns, const std::vector<unsigned>& numbers,
                     const std::vector<std::string>& names, const std::filesystem::path& root)
    : ca_file_((write_scratch("nginx/error.log", ""), make_certificate(names))),
      process_(start_nginx(ns, numbers, ca_file_, root)) {
    for (const unsigned number : numbers) {
        const Endpoint endpoint{ipv4().server(number), 443};
        if (!wait_until(
                [&] { return !process_.running() || TcpStream::connect(ns, endpoint).has_value(); }) ||
            !process_.running())
            throw std::runtime_error("nginx does not serve: " + process_.err());
    }
}

} // namespace tapgate::test
