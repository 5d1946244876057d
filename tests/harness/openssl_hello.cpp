// SPDX-License-Identifier: Apache-2.0
#include "harness/openssl_hello.hpp"

#include "harness/tls_hello_builder.hpp"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <cstdlib>
#include <memory>

namespace tapgate::test {

namespace {

struct Free {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }

    void operator()(SSL* ssl) const { SSL_free(ssl); }
};

using Context = std::unique_ptr<SSL_CTX, Free>;

/// What a server's callback has seen.
struct Seen {
    bool reached = false;
    bool is_sslv2 = false;
    std::optional<Bytes> server_name; ///< the data of the extension
    std::string text;                 ///< the name in it
};

Seen& seen_by(SSL* ssl) {
    return *static_cast<Seen*>(SSL_get_app_data(ssl));
}

int at_hello(SSL* ssl, int* /*alert*/, void* /*argument*/) {
    Seen& seen = seen_by(ssl);
    seen.reached = true;
    seen.is_sslv2 = SSL_client_hello_isv2(ssl) == 1;
    const unsigned char* data = nullptr;
    std::size_t size = 0;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &data, &size) == 1)
        seen.server_name.emplace(data, data + size);
    return SSL_CLIENT_HELLO_ERROR; // nothing further is of interest
}

int at_server_name(SSL* ssl, int* /*alert*/, void* /*argument*/) {
    Seen& seen = seen_by(ssl);
    seen.reached = true;
    if (const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name))
        seen.text = name;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

Context make_context() {
    Context context(SSL_CTX_new(TLS_server_method()));
    if (!context)
        std::abort();
    SSL_CTX_set_security_level(context.get(), 0);
    return context;
}

enum class Ends : std::uint8_t { kWaits, kFails };

Ends accept(SSL_CTX* context, std::span<const std::uint8_t> stream, Seen& seen) {
    const std::unique_ptr<SSL, Free> ssl(SSL_new(context));
    SSL_set_bio(ssl.get(), BIO_new_mem_buf(stream.data(), static_cast<int>(stream.size())),
                BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(ssl.get()), -1); // the end of the bytes is not that of the stream
    SSL_set_app_data(ssl.get(), &seen);
    SSL_set_accept_state(ssl.get());
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl.get());
    return SSL_get_error(ssl.get(), result) == SSL_ERROR_WANT_READ ? Ends::kWaits : Ends::kFails;
}

void note_error(OpensslHello& hello) {
    const unsigned long error = ERR_peek_error();
    hello.outcome = OpensslHello::Outcome::kRefuses;
    hello.reason = ERR_GET_REASON(error);
    const char* const text = ERR_reason_error_string(error);
    hello.error = text == nullptr ? "" : text;
}

} // namespace

OpensslHello read_by_openssl(std::span<const std::uint8_t> stream) {
    static const Context hello_reader = [] {
        Context context = make_context();
        SSL_CTX_set_client_hello_cb(context.get(), at_hello, nullptr);
        return context;
    }();
    static const Context name_reader = [] {
        Context context = make_context();
        // OpenSSL has a macro with a C cast for this.
        SSL_CTX_callback_ctrl(context.get(), SSL_CTRL_SET_TLSEXT_SERVERNAME_CB,
                              reinterpret_cast<void (*)()>(at_server_name));
        return context;
    }();

    OpensslHello hello;
    Seen seen;
    const Ends ends = accept(hello_reader.get(), stream, seen);
    if (!seen.reached) {
        if (ends == Ends::kWaits)
            hello.outcome = OpensslHello::Outcome::kWaits;
        else
            note_error(hello);
        ERR_clear_error();
        return hello;
    }
    hello.outcome = OpensslHello::Outcome::kReads;
    hello.is_sslv2 = seen.is_sslv2;
    if (seen.server_name) {
        Seen name;
        accept(name_reader.get(), TlsHelloBuilder().extension(0, *seen.server_name).build(), name);
        if (name.reached)
            hello.server_name = name.text;
        else
            note_error(hello);
    }
    ERR_clear_error();
    return hello;
}

} // namespace tapgate::test
