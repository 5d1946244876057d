// SPDX-License-Identifier: Apache-2.0
#include "datapath/program_run.hpp"

#include <bpf/bpf.h>

namespace tapgate::datapath {

Result<std::uint32_t> run_program(int program_fd, std::span<const std::uint8_t> packet,
                                  std::span<std::uint8_t> changed) {
    bpf_test_run_opts options{};
    options.sz = sizeof options;
    options.data_in = packet.data();
    options.data_size_in = static_cast<std::uint32_t>(packet.size());
    if (!changed.empty()) {
        options.data_out = changed.data();
        options.data_size_out = static_cast<std::uint32_t>(changed.size());
    }
    options.repeat = 1;
    if (::bpf_prog_test_run_opts(program_fd, &options) != 0)
        return fail_errno("run a BPF program");
    return options.retval;
}

} // namespace tapgate::datapath
