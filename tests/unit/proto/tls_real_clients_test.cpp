// SPDX-License-Identifier: Apache-2.0
// Hellos that real clients sent (tests/fuzz/capture_hellos): what is strict for an attacker must not be too
// strict for them.
#include "proto/tls_client_hello.hpp"
#include "tests/unit/proto/hello_corpus.hpp"
#include "tests/unit/proto/peek_outcome.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace tapgate::proto {
namespace {

using test::append;
using test::Bytes;
using test::CorpusHello;
using test::hello_corpus;
using test::hello_parts;
using test::TlsHelloBuilder;

void expect_recognised(const TlsClientHelloParser& parser, const CorpusHello& hello) {
    ASSERT_EQ(parser.status(), PeekStatus::kDone) << parser.reason();
    EXPECT_EQ(parser.hello().server_name, hello.captured_name());
    EXPECT_EQ(parser.hello().ech, hello.says("_ech"));
}

TEST(TlsRealClients, the_corpus_has_the_clients_and_forms_that_the_other_tests_are_about) {
    for (const char* client :
         {"openssl", "openssl_tls12", "curl", "wget_gnutls", "git_gnutls", "gnutls_cli", "go", "go_tls12",
          "java17", "java17_tls12", "python", "node", "perl", "nss", "rustls", "chromium", "firefox"})
        EXPECT_FALSE(hello_corpus(std::string("client_") + client).empty()) << client;
    const auto hellos = hello_corpus("client_");
    for (const char* form : {"_resumed", "_early_data", "_after_retry", "_ech", "_without_name"})
        EXPECT_TRUE(std::ranges::any_of(hellos, [&](const CorpusHello& hello) { return hello.says(form); }))
            << form;
    // Key shares of X25519MLKEM768 alone are longer than any hello without one.
    EXPECT_TRUE(
        std::ranges::any_of(hellos, [](const CorpusHello& hello) { return hello.stream.size() > 1500; }));
}

TEST(TlsRealClients, each_is_recognised_whole_and_one_byte_at_a_time) {
    for (const CorpusHello& hello : hello_corpus("client_")) {
        SCOPED_TRACE(hello.file);
        expect_recognised(run_parser<TlsClientHelloParser>(hello.stream), hello);
    }
}

TEST(TlsRealClients, B08_each_is_recognised_cut_into_two_segments_at_every_offset) {
    for (const CorpusHello& hello : hello_corpus("client_")) {
        SCOPED_TRACE(hello.file);
        const std::size_t end = hello.stream.size() - hello_parts(hello.stream).value().rest.size();
        for (std::size_t cut = 0; cut < end; ++cut) {
            TlsClientHelloParser parser;
            ASSERT_EQ(parser.update(ByteView(hello.stream).first(cut)), PeekStatus::kNeedMore) << cut;
            parser.update(hello.stream);
            expect_recognised(parser, hello);
            if (HasFatalFailure())
                return;
        }
    }
}

TEST(TlsRealClients, B08_each_is_recognised_cut_into_two_records_at_every_offset) {
    for (const CorpusHello& hello : hello_corpus("client_")) {
        SCOPED_TRACE(hello.file);
        const auto parts = hello_parts(hello.stream).value();
        for (std::size_t cut = 1; cut < parts.message.size(); ++cut) {
            Bytes stream = TlsHelloBuilder().records({cut}).in_records(parts.message);
            append(stream, parts.rest);
            TlsClientHelloParser parser;
            parser.update(stream);
            expect_recognised(parser, hello);
            if (HasFatalFailure())
                return;
        }
    }
}

TEST(TlsRealClients, B08_each_is_recognised_in_records_of_one_byte) {
    for (const CorpusHello& hello : hello_corpus("client_")) {
        SCOPED_TRACE(hello.file);
        const auto parts = hello_parts(hello.stream).value();
        Bytes stream = TlsHelloBuilder().records_of(1).in_records(parts.message);
        append(stream, parts.rest);
        expect_recognised(run_parser<TlsClientHelloParser>(stream), hello);
    }
}

TEST(TlsRealClients, B10_each_that_lacks_its_last_byte_shows_no_name) {
    for (const CorpusHello& hello : hello_corpus("client_")) {
        SCOPED_TRACE(hello.file);
        Bytes message = hello_parts(hello.stream).value().message;
        message.pop_back();
        // The missing byte is awaited in another record; what stands there instead is not the hello's.
        Bytes stream = TlsHelloBuilder().in_records(message);
        EXPECT_EQ(run_parser<TlsClientHelloParser>(stream).status(), PeekStatus::kNeedMore);
        append(stream, {23, 3, 3, 0, 1, 0});
        EXPECT_EQ(run_parser<TlsClientHelloParser>(stream).status(), PeekStatus::kMalformed);
    }
}

} // namespace
} // namespace tapgate::proto
