// SPDX-License-Identifier: Apache-2.0
#include "cli/files.hpp"

#include "base/unique_fd.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

namespace tapgate::cli {

Result<std::string> read_file(const std::string& path, std::size_t most) {
    UniqueFd opened;
    int fd = STDIN_FILENO;
    if (path != "-") {
        opened.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (!opened)
            return fail_errno(fmt::format("open {}", path));
        fd = opened.get();
    }
    constexpr std::size_t kChunk = 65536;
    std::string text;
    for (std::size_t length = 0;;) {
        text.resize(length + kChunk);
        const ssize_t n = ::read(fd, text.data() + length, kChunk);
        if (n < 0 && errno != EINTR)
            return fail_errno(fmt::format("read {}", path));
        length += static_cast<std::size_t>(std::max<ssize_t>(n, 0));
        if (length > most)
            return fail(ErrorCode::kLimit, fmt::format("{} has more than {} MiB", path, most >> 20U));
        if (n == 0) {
            text.resize(length);
            return text;
        }
    }
}

} // namespace tapgate::cli
