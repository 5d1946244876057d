// SPDX-License-Identifier: Apache-2.0
#include "cli/grammar.hpp"
#include "cli/manual.hpp"

#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

// A program of the build: tapgate_manual OBJECT FILE prints the Markdown of tapgate-OBJECT(8), or of
// tapgate(8) if OBJECT is "tapgate", with the prose of FILE.
int main(int argc, char** argv) {
    try {
        if (argc != 3) {
            std::fputs("usage: tapgate_manual OBJECT FILE\n", stderr);
            return 2;
        }
        const std::string object = argv[1];
        std::ifstream file(argv[2]);
        const std::string text(std::istreambuf_iterator<char>(file), {});
        if (text.empty()) {
            std::fprintf(stderr, "%s cannot be read\n", argv[2]);
            return 1;
        }
        using namespace tapgate::cli;
        std::cout << (object == "tapgate" ? overview_page(read_prose(text, {}))
                                          : object_page(object, read_prose(text, object)));
        return std::cout.flush() ? 0 : 1;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
