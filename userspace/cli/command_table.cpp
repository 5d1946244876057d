// SPDX-License-Identifier: Apache-2.0
#include "cli/commands.hpp"
#include "cli/grammar.hpp"

namespace tapgate::cli {

const std::vector<Command>& commands() {
    static const Option kGuestFilter{"--guest", "GUEST", "only this guest's"};
    static const Option kDryRun{"--dry-run", "",
                                "check and list the live flows it would touch; change nothing"};
    static const Option kLive{"--live", "WHAT",
                              "what becomes of live flows it denies: cut, drain=30s or keep (default: as the "
                              "policy says)"};
    static const std::vector<Command> table = {
        {"status", "show", "Show the daemon's state and what was dropped", {}, {}, status_show},

        {"guest", "show", "List the guests, or show one in full", {{"NAME", false}}, {}, guest_show},
        {"guest",
         "add",
         "Declare a guest until the daemon stops",
         {{"NAME"}},
         {{"--interface", "IF", "its interface, or a glob such as 'tap*' (NAME then contains %i)", true},
          {"--address", "ADDRESS", "an address the guest may use as its own", true, true},
          {"--gateway", "ADDRESS", "the host's address there (default: the interface's)", false, true},
          {"--mac", "MAC", "its MAC address (default: learned)"},
          {"--policy", "POLICY", "the policy that judges its connections", true}},
         guest_add},
        {"guest", "del", "Forget a guest and cut it off", {{"NAME"}}, {}, guest_del},

        {"policy",
         "show",
         "List the loaded policies, or show one with its rules",
         {{"NAME", false}},
         {},
         policy_show},
        {"policy",
         "load",
         "Check a policy file and swap it in, for new flows and live ones",
         {{"NAME"}, {"FILE"}},
         {kDryRun, kLive},
         policy_load},
        {"policy",
         "history",
         "List the generations of policies that can be gone back to",
         {{"NAME", false}},
         {},
         policy_history},
        {"policy",
         "rollback",
         "Swap an earlier generation of a policy in again, as a new one",
         {{"NAME"}},
         {{"--to", "GENERATION", "which (default: the one before the current)"}, kDryRun, kLive},
         policy_rollback},
        {"policy",
         "check",
         "Check a policy file and list rules without effect, without the daemon",
         {{"FILE"}},
         {{"--strict", "", "fail if there is anything to warn of"}},
         policy_check},
        {"policy",
         "diff",
         "Compare two policy files, in what they say and in their verdicts",
         {{"BEFORE"}, {"AFTER"}},
         {{"--cases", "CASES.jsonl", "cases to judge under both policies"}},
         policy_diff},
        {"policy",
         "explain",
         "Walk a policy's rules for one connection or name and say why",
         {{"FILE|NAME"}},
         {{"--dst", "ADDRESS:PORT", "the destination of a connection"},
          {"--proto", "PROTOCOL", "tcp (default), udp, icmpv4 or icmpv6; for --query udp (default) or tcp"},
          {"--sni", "NAME", "the server name in its TLS hello"},
          {"--host", "NAME", "the Host of its HTTP request"},
          {"--kind", "KIND", "its first flight: tls, tls-no-sni, tls-bad, http, http-bad or plain"},
          {"--bind", "NAME=ADDRESS", "a binding the guest holds", false, true},
          {"--guest", "GUEST", "use this guest's live bindings and gateways"},
          {"--flow", "ID", "a live connection of `flow show`, with what it was admitted on"},
          {"--query", "NAME", "a DNS question instead of a connection"}},
         policy_explain},
        {"policy",
         "test",
         "Run a file of cases through an engine of verdicts, without the daemon",
         {{"CASES.jsonl"}},
         {{"--engine", "ENGINE", "user (default): the decision functions; kernel: the BPF program; or both"}},
         policy_test},

        {"flow", "show", "List the live sessions", {}, {kGuestFilter}, flow_show},

        {"dns",
         "show",
         "List the bindings of names to addresses, or what became of queries",
         {{"GUEST", false}},
         {{"--name", "NAME", "only this name's"},
          {"--address", "ADDRESS", "only those to this address"},
          {"--stats", "", "counters of each guest's queries instead"}},
         dns_show},
        {"dns",
         "flush",
         "Forget bindings",
         {{"NAME", false}},
         {{"--guest", "GUEST", "only this guest's"}},
         dns_flush},

        {"event", "monitor", "Print events as they happen", {}, {kGuestFilter}, event_monitor},

        {"feature",
         "probe",
         "Say which kernel features tapgate uses are there, and what is used instead",
         {},
         {},
         feature_probe},
    };
    return table;
}

} // namespace tapgate::cli
