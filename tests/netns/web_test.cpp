// SPDX-License-Identifier: Apache-2.0
#include "netns/world.hpp"

#include <algorithm>
#include <chrono>

// The main job with the programs people use: curl in the guest, nginx with TLS in the internet.
namespace tapgate::test {
namespace {

// curl's exit codes (man curl, EXIT CODES).
constexpr ExitCode kCouldNotResolve = 6;
constexpr ExitCode kCouldNotConnect = 7;
constexpr ExitCode kTlsHandshakeFailed = 35;
constexpr ExitCode kReceiveFailed = 56;

constexpr unsigned kSite = 10;
constexpr unsigned kOther = 11;

class Web : public WorldTest<Web> {
  public:
    static std::unique_ptr<World> make_world() {
        DaemonConfig config;
        config.policy = allow_one();
        return std::make_unique<World>(
            config, std::vector<std::string>{
                        dual_stack("www.allowed.test", kSite), dual_stack("cdn.allowed.test", kSite),
                        dual_stack("www.denied.test", kSite), dual_stack("www.elsewhere.test", kOther)});
    }

  protected:
    static std::string allow_one() {
        return policy_text({"allow@www.allowed.test:tcp:80,443", "allow@cdn.allowed.test:tcp:443"});
    }

    Completed curl(std::vector<std::string> arguments) {
        std::vector<std::string> argv = {"curl",
                                         "-sS",
                                         "--max-time",
                                         "15",
                                         "--cacert",
                                         web_.ca_file(),
                                         family().name == "IPv4" ? "-4" : "-6"};
        argv.insert(argv.end(), arguments.begin(), arguments.end());
        return run_program(argv, &guest());
    }

    /// curl for `name`, but to the `number`th address whatever DNS says.
    Completed curl_at(const std::string& name, unsigned number) {
        return curl({"--connect-to", "::" + server(number, 443).to_string(), "https://" + name + "/"});
    }

    WebServer web_{world().topology.internet(),
                   {kSite, kOther},
                   {"www.allowed.test", "cdn.allowed.test", "www.denied.test", "www.elsewhere.test"}};
};

TEST_P(Web, an_allowed_name_works) {
    const Completed got = curl({"https://www.allowed.test/"});
    EXPECT_EQ(got.exit_code, 0) << got.err;
    EXPECT_EQ(got.out, "served www.allowed.test\n");
}

TEST_P(Web, an_allowed_name_works_over_plain_http) {
    const Completed got = curl({"http://www.allowed.test/"});
    EXPECT_EQ(got.exit_code, 0) << got.err;
    EXPECT_EQ(got.out, "served www.allowed.test\n");
}

TEST_P(Web, a_denied_name_fails_at_dns) {
    EXPECT_EQ(curl({"https://www.denied.test/"}).exit_code, kCouldNotResolve);
}

TEST_P(Web, another_sni_at_an_allowed_address_is_refused_with_an_alert) {
    EXPECT_EQ(curl({"https://www.allowed.test/"}).exit_code, 0);
    const Completed got = curl_at("www.denied.test", kSite);
    EXPECT_EQ(got.exit_code, kTlsHandshakeFailed);
    EXPECT_NE(got.err.find("access denied"), std::string::npos) << got.err;
}

TEST_P(Web, openssl_and_python_report_a_refused_name_as_such_and_at_once) {
    EXPECT_EQ(curl({"https://www.allowed.test/"}).exit_code, 0);
    const Endpoint site = server(kSite, 443);
    const std::string python = "import socket, ssl, sys\n"
                               "context = ssl.create_default_context(cafile=sys.argv[3])\n"
                               "raw = socket.create_connection((sys.argv[1], 443), timeout=10)\n"
                               "context.wrap_socket(raw, server_hostname=sys.argv[2])\n";
    const auto start = std::chrono::steady_clock::now();
    const Completed openssl = run_program(
        {"openssl", "s_client", "-connect", site.to_string(), "-servername", "www.denied.test", "-brief"},
        &guest());
    EXPECT_NE(openssl.exit_code, 0);
    EXPECT_NE(openssl.err.find("alert access denied"), std::string::npos) << openssl.err;
    const Completed py = run_program(
        {"python3", "-c", python, site.address.to_string(), "www.denied.test", web_.ca_file()}, &guest());
    EXPECT_NE(py.exit_code, 0);
    EXPECT_NE(py.err.find("ALERT_ACCESS_DENIED"), std::string::npos) << py.err;
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(8))
        << "neither may wait for a time-out";
}

TEST_P(Web, B54_a_client_that_is_asked_for_another_hello_is_served) {
    EXPECT_EQ(curl({"https://www.allowed.test/"}).exit_code, 0);
    // It offers a share of a group that the server does not have.
    const Completed openssl = run_program({"openssl", "s_client", "-connect", server(kSite, 443).to_string(),
                                           "-servername", "www.allowed.test", "-groups", "P-384:X25519:P-256",
                                           "-CAfile", web_.ca_file(), "-verify_return_error", "-msg"},
                                          &guest());
    EXPECT_EQ(openssl.exit_code, 0) << openssl.err;
    unsigned hellos = 0;
    for (std::size_t at = 0; (at = openssl.out.find(", ClientHello", at)) != std::string::npos; ++at)
        ++hellos;
    EXPECT_EQ(hellos, 2U) << openssl.out;
}

TEST_P(Web, an_address_that_was_never_resolved_is_refused) {
    const ExitCode code = curl_at("www.allowed.test", kOther).exit_code;
    EXPECT_TRUE(code == kCouldNotConnect || code == kTlsHandshakeFailed || code == kReceiveFailed) << code;
}

TEST_P(Web, a_policy_swap_turns_verdicts_around_for_new_connections) {
    EXPECT_EQ(curl({"https://www.allowed.test/"}).exit_code, 0);
    world().daemon.load_policy(policy_text({"allow@www.denied.test:tcp:443"}));
    EXPECT_EQ(curl({"https://www.denied.test/"}).out, "served www.denied.test\n");
    EXPECT_EQ(curl({"https://www.allowed.test/"}).exit_code, kCouldNotResolve);
    EXPECT_EQ(curl_at("www.allowed.test", kSite).exit_code, kTlsHandshakeFailed);
    world().daemon.load_policy(allow_one());
    EXPECT_EQ(curl({"https://www.allowed.test/"}).exit_code, 0);
}

TEST_P(Web, a_denial_over_http_can_be_read) {
    EXPECT_EQ(curl({"http://www.allowed.test/"}).exit_code, 0);
    const Completed got =
        curl({"-w", "%{http_code}", "-H", "Host: www.denied.test", "http://www.allowed.test/"});
    EXPECT_TRUE(got.out.ends_with("403")) << got.out << got.err;
    EXPECT_NE(got.out.find("www.denied.test"), std::string::npos) << got.out;
}

INSTANTIATE_TEST_SUITE_P(Family, Web, families(), family_name);

} // namespace
} // namespace tapgate::test
