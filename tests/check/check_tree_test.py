#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each rule of check_tree.py finds what it is there to find, and accepts what is right."""

import pathlib
import tempfile
import unittest

import check_tree

SPDX = "// SPDX-License-Identifier: Apache-2.0\n"


def violations(rule, files):
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            path = pathlib.Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return list(check_tree.RULES[rule](check_tree.Tree(root)))


class Rules(unittest.TestCase):
    def test_policy_may_include_base_but_not_the_abi_or_a_box_above(self):
        good = {"policy/a.cpp": '#include "base/ip.hpp"\n#include "policy/b.hpp"\n'}
        self.assertEqual(violations("arrows", good), [])
        for header in ('"tapgate/bpf_abi.h"', '"net/relay.hpp"', "<boost/asio/awaitable.hpp>", "<bpf/libbpf.h>"):
            self.assertEqual(len(violations("arrows", {"policy/a.cpp": f"#include {header}\n"})), 1, header)

    def test_proxy_sees_no_datapath_and_proto_no_asio(self):
        self.assertEqual(len(violations("arrows", {"userspace/proxy/a.hpp": '#include "datapath/datapath.hpp"\n'})), 1)
        self.assertEqual(len(violations("arrows", {"userspace/proto/a.hpp": "#include <boost/asio.hpp>\n"})), 1)

    def test_own_header_comes_first(self):
        files = {"policy/a.hpp": "", "policy/a.cpp": '#include "policy/a.hpp"\n#include <vector>\n'}
        self.assertEqual(violations("own_header_first", files), [])
        files["policy/a.cpp"] = '#include <vector>\n#include "policy/a.hpp"\n'
        self.assertEqual(len(violations("own_header_first", files)), 1)

    def test_lambdas_and_braced_objects_in_co_await_are_found(self):
        bad = (
            "co_await run([&] { return 1; });",
            "co_await run([x = std::move(y)](int z) { return x; });",
            "co_await run(\n    Options{1, 2});",
            "co_await run({.a = b});",
            "co_spawn(io, f(), asio::detached);",
        )
        for statement in bad:
            self.assertEqual(len(violations("coroutines", {"userspace/net/a.cpp": statement})), 1, statement)

    def test_ordinary_co_await_is_accepted(self):
        good = (
            "if (co_await wait(socket)) { a = {1, 2}; }",
            "const auto [error, count] = co_await socket.async_read(buffer, kAsTuple);",
            "co_await handlers_[index](argument);",
            "co_await run(Options{});",
            "// co_await run([] {});",
        )
        for statement in good:
            self.assertEqual(violations("coroutines", {"userspace/net/a.cpp": statement}), [], statement)

    def test_licence_lines(self):
        self.assertEqual(violations("licences", {"policy/a.cpp": SPDX, "tests/run": "#!/bin/sh\n#" + SPDX[2:]}), [])
        self.assertEqual(len(violations("licences", {"policy/a.cpp": "int a;\n"})), 1)
        self.assertEqual(len(violations("licences", {"bpf/a.bpf.c": SPDX})), 1)

    def test_machine_paths_registries_todos_and_stray_files(self):
        todo = "TO" + "DO"
        for text in ("/ho" + "me/someone/x", "https://crates" + ".io/x", todo + ": later"):
            self.assertEqual(len(violations("hygiene", {"tests/a.txt": text})), 1, text)
        self.assertEqual(violations("hygiene", {"tests/a.txt": todo + "(#12): later"}), [])
        self.assertEqual(len(violations("hygiene", {"docs/a.txt": ""})), 1)

    def test_untested_drop_reasons(self):
        files = {"bpf/include/tapgate/drop_reason.h": '\tX(1, VLAN, "vlan", "text") \\\n\tX(2, ARP, "arp", "text")\n'}
        self.assertEqual(len(violations("drop_reasons", files)), 2)
        files["tests/a_test.cpp"] = 'expect("vlan"); expect(TG_DROP_ARP);'
        self.assertEqual(violations("drop_reasons", files), [])

    def test_unregistered_tests(self):
        files = {"tests/unit/x/a_test.cpp": "", "tests/unit/x/CMakeLists.txt": "add_executable(t b_test.cpp)"}
        self.assertEqual(len(violations("registered", files)), 1)


if __name__ == "__main__":
    unittest.main()
