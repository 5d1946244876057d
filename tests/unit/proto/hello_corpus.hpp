// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/harness/tls_hello_builder.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tapgate::test {

/// A file of tests/fuzz/corpus/tls_client_hello.
struct CorpusHello {
    std::string file;
    Bytes stream;

    [[nodiscard]] bool says(std::string_view word) const { return file.find(word) != std::string::npos; }

    /// What a captured hello asks for; capture_hellos connects to this name, or to an address.
    [[nodiscard]] std::optional<std::string> captured_name() const {
        if (says("_without_name"))
            return std::nullopt;
        return "captured.example.org";
    }
};

/// Those whose names begin so, in the order of the names.
inline std::vector<CorpusHello> hello_corpus(std::string_view prefix) {
    std::vector<CorpusHello> hellos;
    for (const auto& entry : std::filesystem::directory_iterator(TAPGATE_HELLO_CORPUS)) {
        CorpusHello hello;
        hello.file = entry.path().filename();
        if (!hello.file.starts_with(prefix))
            continue;
        std::ifstream content(entry.path(), std::ios::binary);
        hello.stream.assign(std::istreambuf_iterator<char>(content), {});
        hellos.push_back(std::move(hello));
    }
    std::ranges::sort(hellos, {}, &CorpusHello::file);
    return hellos;
}

} // namespace tapgate::test
