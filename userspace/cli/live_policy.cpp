// SPDX-License-Identifier: Apache-2.0
#include "cli/live_policy.hpp"

#include "cli/reply.hpp"
#include "control/client.hpp"
#include "policy/parse.hpp"

#include <boost/json/serialize.hpp>

namespace tapgate::cli {

namespace json = boost::json;

Result<policy::Policy> live_policy(const std::string& socket, const std::string& name) {
    auto client = control::Client::connect(socket);
    if (!client)
        return fail(client.error());
    json::object args;
    args["name"] = name;
    const auto reply = client->call("policy show", args);
    if (!reply)
        return fail(reply.error());
    for (const json::value& value : list(*reply, "policies"))
        if (const json::value* whole = as_object(value).if_contains("policy")) {
            auto policy = policy::parse_json(json::serialize(*whole), name);
            if (policy)
                policy->source.clear(); // its places are those of the reply, not of a file
            return policy;
        }
    return fail(ErrorCode::kUnsupported, "the daemon did not send the policy");
}

} // namespace tapgate::cli
