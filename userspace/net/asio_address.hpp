// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/ip.hpp"

#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>

namespace tapgate::net {

[[nodiscard]] boost::asio::ip::address to_asio(const IpAddress& address);

[[nodiscard]] Endpoint endpoint_of(const boost::asio::ip::tcp::endpoint& endpoint);

} // namespace tapgate::net
