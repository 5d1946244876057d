// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "daemon/config.hpp"
#include "daemon/file_watch.hpp"
#include "daemon/policy_loader.hpp"
#include "daemon/policy_store.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace tapgate::daemon {

/// Loads a policy again when its file has new content. A file that cannot be loaded changes nothing. Main
/// thread only.
class PolicyWatcher {
  public:
    /// References outlive the watcher and run().
    PolicyWatcher(boost::asio::io_context& context, FileWatch watch, const policy::GroupTable& groups,
                  const PolicyStore& store, PolicyLoader& loader);

    /// By the policy's name.
    using Contents = std::map<std::string, std::shared_ptr<const std::string>>;

    /// Watches the files of those `policies` that want it, all of which are loaded, and no others any more. A
    /// file that still says what is in `superseded` is not loaded again for that.
    void watch(const std::vector<PolicyConfig>& policies, const Contents& superseded = {});

    /// Follows the files for ever.
    boost::asio::awaitable<void> run();

    /// Finds directories again that were replaced; to be called now and then.
    void restore();

    [[nodiscard]] bool is_watched(const std::string& name) const;
    /// What the file says, if that was in force until something else was loaded: a rollback or another file.
    /// Null if it is, or was never, or if the policy is not watched.
    [[nodiscard]] std::shared_ptr<const std::string> superseded(const std::string& name) const;
    /// Why the file as it is now is not in force; empty if it is, or if the policy is not watched.
    [[nodiscard]] std::string error(const std::string& name) const;

  private:
    struct Watched {
        std::string name;
        std::string file;
        /// The content that was tried last, whether it could be loaded or not.
        std::shared_ptr<const std::string> seen;
        std::string error;
    };

    void files_changed(const std::set<std::string>& files);
    /// Tries the file's content if it has not been tried.
    Result<void> try_file(Watched& watched);

    FileWatch watch_;
    boost::asio::posix::stream_descriptor descriptor_; // a duplicate of watch_'s
    const policy::GroupTable& groups_;
    const PolicyStore& store_;
    PolicyLoader& loader_;
    std::vector<Watched> watched_;
};

} // namespace tapgate::daemon
