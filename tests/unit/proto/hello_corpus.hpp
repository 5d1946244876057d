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

/// The first handshake message in well-formed records, and what comes behind its last record.
struct HelloParts {
    Bytes message;
    Bytes rest;
};

inline HelloParts hello_parts(const Bytes& stream) {
    HelloParts parts;
    std::size_t at = 0;
    std::size_t size = 4;
    while (parts.message.size() < size) {
        const std::size_t length = std::size_t{stream.at(at + 3)} << 8U | stream.at(at + 4);
        for (std::size_t i = 0; i < length; ++i)
            parts.message.push_back(stream.at(at + 5 + i));
        at += 5 + length;
        if (parts.message.size() >= 4)
            size = 4 + (std::size_t{parts.message[1]} << 16U | std::size_t{parts.message[2]} << 8U |
                        parts.message[3]);
    }
    parts.rest.assign(stream.begin() + static_cast<std::ptrdiff_t>(at), stream.end());
    return parts;
}

} // namespace tapgate::test
