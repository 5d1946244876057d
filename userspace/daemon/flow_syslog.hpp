// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "daemon/flow_log.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include <deque>
#include <string>

namespace tapgate::daemon {

/// Records as messages to the host's syslog daemon or journal, in the form of syslog(3): facility daemon,
/// severity info, program `tapgate-flow`, time of receipt. A reader that is behind has records kept for it,
/// up to kMostWaiting octets.
class FlowSyslog final : public FlowLog {
  public:
    /// Some 10,000 records.
    static constexpr std::size_t kMostWaiting = std::size_t{4} << 20U;

    /// Connects to the socket, such as /dev/log; somebody has to listen there. When that one goes away and
    /// comes back it is found again. `context` has to outlive this object.
    static Result<std::unique_ptr<FlowSyslog>> open(boost::asio::io_context& context,
                                                    const std::string& path);

  private:
    FlowSyslog(boost::asio::io_context& context, std::string path);

    Result<void> connect();
    Result<void> append(const std::string& record) override;
    /// Whether the message went out; nothing if the reader has no room now.
    Result<bool> send(const std::string& message);
    void wait_for_room();
    void send_waiting();

    std::string path_;
    std::string head_; ///< of each message
    boost::asio::posix::stream_descriptor socket_;
    std::deque<std::string> waiting_;
    std::size_t waiting_octets_ = 0;
};

} // namespace tapgate::daemon
