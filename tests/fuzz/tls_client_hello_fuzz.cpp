// SPDX-License-Identifier: Apache-2.0
#include "proto/host_name.hpp"
#include "proto/tls_client_hello.hpp"
#include "tests/fuzz/peek_fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace tapgate::proto;
    for (const std::size_t cap : {kDefaultPeekCap, std::size_t{300}}) {
        const auto parser = check_peek<TlsClientHelloParser>({data, size}, cap);
        if (parser.status() == PeekStatus::kDone && parser.hello().server_name)
            TAPGATE_ASSERT(is_host_name(*parser.hello().server_name));
        // What began as TLS is never taken for another protocol.
        TAPGATE_ASSERT(size == 0 || data[0] != 22 || parser.status() != PeekStatus::kOtherProtocol);
    }
    return 0;
}
