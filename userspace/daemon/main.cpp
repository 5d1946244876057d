// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"
#include "base/version.hpp"
#include "daemon/config.hpp"
#include "daemon/daemon.hpp"
#include "daemon/policy_store.hpp"
#include "datapath/datapath.hpp"
#include "datapath/requirements.hpp"
#include "net/features.hpp"
#include "net/netlink/steering.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <string>
#include <vector>

namespace {

using namespace tapgate;

struct Options {
    std::string config = "/etc/tapgate/tapgate.toml";
    bool check = false;
    bool cleanup = false;
    bool take_over = false;
};

/// Everything that can be known of the configuration without touching the host.
Result<void> check(const daemon::Config& config) {
    for (const daemon::PolicyConfig& policy : config.policies) {
        if (const auto prepared = daemon::prepare_policy_file(config.groups, policy.name, policy.file);
            !prepared)
            return fail(prepared.error());
    }
    return {};
}

/// The datapath first: it refuses while a daemon runs.
Result<void> cleanup(const daemon::DaemonSettings& settings) {
    if (auto removed = datapath::Datapath::cleanup(settings.pin_dir); !removed)
        return removed;
    return net::Steering::remove_leftovers(settings.mark, settings.route_table);
}

Result<void> run(const Options& options) {
    const auto config = daemon::load_config(options.config);
    if (!config)
        return fail(config.error());
    if (const auto logging = setup_logging(config->log.level); !logging)
        return logging;
    daemon::set_log(config->log);
    if (options.check) {
        const auto checked = check(*config);
        if (checked)
            std::printf("%s: ok\n", options.config.c_str());
        return checked;
    }
    if (options.cleanup)
        return cleanup(config->daemon);
    auto daemon = daemon::Daemon::start(*config, options.config, options.take_over);
    if (!daemon)
        return fail(daemon.error());
    if (!(*daemon)->run())
        return fail(ErrorCode::kUnavailable, "the daemon that took over does not serve");
    return {};
}

std::string version_line() {
    std::vector<std::string> features = datapath::built_with();
    std::ranges::move(net::built_with(), std::back_inserter(features));
    std::string text = version_text("tapgated", features);
    text.pop_back(); // CLI11 adds the newline
    return text;
}

} // namespace

int main(int argc, char** argv) {
    try {
        Options options;
        CLI::App app("tapgated, the egress gateway for microVM guests", "tapgated");
        app.set_version_flag("--version", version_line());
        app.add_option("--config", options.config, "Configuration file")->capture_default_str();
        app.add_flag("--check", options.check, "Check configuration and policies, then exit");
        app.add_flag(
            "--cleanup", options.cleanup,
            "Remove the programs, maps, rules and routes that a stopped or killed daemon leaves, then exit");
        app.add_flag("--take-over", options.take_over,
                     "Take over from the daemon that runs, if there is one, without a lost connection");
        try {
            app.parse(argc, argv);
        } catch (const CLI::ParseError& error) {
            return app.exit(error) == 0 ? EXIT_SUCCESS : 2;
        }
        if (const auto ran = run(options); !ran) {
            std::fprintf(stderr, "Error: %s\n", ran.error().message().c_str());
            return EXIT_FAILURE;
        }
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "Error: %s\n", error.what());
        return EXIT_FAILURE;
    }
}
