// SPDX-License-Identifier: Apache-2.0
#include "net/asio_address.hpp"

namespace tapgate::net {

namespace asio = boost::asio;

asio::ip::address to_asio(const IpAddress& address) {
    if (address.is_v4())
        return asio::ip::address_v4(address.v4());
    return asio::ip::address_v6(address.bytes());
}

Endpoint endpoint_of(const asio::ip::tcp::endpoint& endpoint) {
    if (endpoint.address().is_v4())
        return {IpAddress::from_v4(endpoint.address().to_v4().to_uint()), endpoint.port()};
    return {IpAddress(endpoint.address().to_v6().to_bytes()), endpoint.port()};
}

} // namespace tapgate::net
