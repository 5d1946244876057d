// SPDX-License-Identifier: Apache-2.0
#include "netns/many_guests.hpp"

#include "harness/topology.hpp"

#include <fmt/format.h>

namespace tapgate::test {

GuestEntry many_guest(unsigned number) {
    const std::string name = fmt::format("many{}", number);
    return {name, name, {fmt::format("2001:db8:6:{:x}::2", number)}};
}

std::vector<GuestEntry> many_guests(unsigned count) {
    std::vector<GuestEntry> guests;
    for (unsigned number = 0; number < count; ++number)
        guests.push_back(many_guest(number));
    return guests;
}

void add_taps(const NetNs& host, unsigned count) {
    std::string script;
    for (unsigned number = 0; number < count; ++number)
        script +=
            fmt::format("tuntap add dev {0} mode tap\naddress add 2001:db8:6:{1:x}::1/64 dev {0} nodad\n"
                        "link set {0} up\n",
                        many_guest(number).interface, number);
    ip_batch(host, script);
}

std::vector<std::string> guest_add_words(const GuestEntry& guest) {
    std::vector<std::string> words = {"guest", "add", guest.name, "--interface", guest.interface};
    for (const std::string& address : guest.addresses)
        words.insert(words.end(), {"--address", address});
    words.insert(words.end(), {"--policy", "main"});
    return words;
}

} // namespace tapgate::test
