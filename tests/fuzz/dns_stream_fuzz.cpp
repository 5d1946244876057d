// SPDX-License-Identifier: Apache-2.0
#include "base/result.hpp"
#include "proxy/dns_stream.hpp"

#include <algorithm>

// A connection to port 53, cut into messages however it arrives: put in frames again they are the stream.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace tapgate;
    using namespace tapgate::proxy;
    const ByteView stream(data, size);
    for (const std::size_t piece : {std::size_t{1}, std::size_t{3}, size + 1}) {
        DnsStreamReader reader;
        std::vector<std::uint8_t> framed;
        std::size_t at = 0;
        while (at < size) {
            const std::size_t count = std::min({piece, reader.wanted(), size - at});
            TAPGATE_ASSERT(count > 0);
            reader.add(stream.subspan(at, count));
            at += count;
            while (const auto message = reader.next()) {
                TAPGATE_ASSERT(reader.is_idle());
                const auto frame = dns_frame(*message);
                framed.insert(framed.end(), frame.begin(), frame.end());
            }
        }
        TAPGATE_ASSERT(std::ranges::equal(framed, stream.first(framed.size())));
        // What is left is less than a message.
        TAPGATE_ASSERT(reader.is_idle() == (framed.size() == size));
        const auto length = ByteReader(stream.subspan(framed.size())).u16();
        TAPGATE_ASSERT(!length || size - framed.size() < 2 + std::size_t{*length});
    }
    return 0;
}
