// SPDX-License-Identifier: Apache-2.0
#include "base/ip.hpp"
#include "proto/host_name.hpp"
#include "proto/http_request.hpp"
#include "tests/fuzz/peek_fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace tapgate;
    using namespace tapgate::proto;
    for (const std::size_t cap : {kDefaultPeekCap, std::size_t{100}}) {
        const auto parser = check_peek<HttpRequestParser>({data, size}, cap);
        if (parser.status() != PeekStatus::kDone || !parser.request().authority)
            continue;
        const HttpAuthority& authority = *parser.request().authority;
        TAPGATE_ASSERT(authority.port != 0);
        TAPGATE_ASSERT(authority.is_address ? IpAddress::parse(authority.host).has_value()
                                            : is_host_name(authority.host));
    }
    return 0;
}
