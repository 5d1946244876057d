// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/console.hpp"
#include "cli/grammar.hpp"

// What the commands of the table do. Each returns the exit code.
namespace tapgate::cli {

// Asked of the daemon (daemon_commands.cpp).
int status_show(Console& console, const Arguments& arguments);
int daemon_reload(Console& console, const Arguments& arguments);
int guest_show(Console& console, const Arguments& arguments);
int guest_add(Console& console, const Arguments& arguments);
int guest_del(Console& console, const Arguments& arguments);
int policy_show(Console& console, const Arguments& arguments);
int policy_load(Console& console, const Arguments& arguments);
int policy_history(Console& console, const Arguments& arguments);
int policy_rollback(Console& console, const Arguments& arguments);
int flow_show(Console& console, const Arguments& arguments);
int flow_kill(Console& console, const Arguments& arguments);
int flow_monitor(Console& console, const Arguments& arguments);
int dns_show(Console& console, const Arguments& arguments);
int dns_flush(Console& console, const Arguments& arguments);
int event_show(Console& console, const Arguments& arguments);
int metric_show(Console& console, const Arguments& arguments);
int event_monitor(Console& console, const Arguments& arguments);
int why(Console& console, const Arguments& arguments);
// The same at intervals, on the whole terminal (top_command.cpp).
int top(Console& console, const Arguments& arguments);

// Worked out here, with the policy library (policy_commands.cpp, explain_command.cpp). `policy explain` asks
// the daemon for a policy it has loaded, for the bindings of a guest, and for a live flow.
int policy_check(Console& console, const Arguments& arguments);
int policy_diff(Console& console, const Arguments& arguments);
int policy_test(Console& console, const Arguments& arguments);
int policy_explain(Console& console, const Arguments& arguments);

// Worked out here from what the daemon tells (learn_command.cpp).
int policy_learn(Console& console, const Arguments& arguments);

// Asked of the kernel (feature_command.cpp).
int feature_probe(Console& console, const Arguments& arguments);

} // namespace tapgate::cli
