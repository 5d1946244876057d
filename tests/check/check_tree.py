#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rules about the source tree that no compiler checks.

usage: check_tree.py ROOT RULE     (RULE: one of the functions below; prints one line per violation)
"""

import pathlib
import re
import subprocess
import sys

# What each box may include of the others (DESIGN: arrows only point down).
BOXES = {
    "base": set(),
    "policy": {"base"},
    "proto": {"base"},
    "datapath": {"base", "policy"},
    "net": {"base"},
    "proxy": {"base", "proto", "policy", "net"},
    "control": {"base", "net", "proxy"},
    "daemon": {"base", "proto", "policy", "net", "proxy", "control", "datapath"},
    "cli": {"base", "policy", "control", "datapath", "net"},
}

# Third-party headers, and the boxes whose business they are.
THIRD_PARTY = {
    r"<bpf/|tapgate\.skel\.h": {"datapath"},
    r"tapgate/(bpf_abi|drop_reason)\.h": {"datapath", "daemon"},
    r"<liburing": {"net"},
    r"<boost/asio": {"net", "proxy", "control", "daemon"},
    r"<boost/beast": {"control", "proxy"},
    r"<boost/json": {"policy", "control", "daemon", "cli"},
    r"<toml": {"policy", "daemon"},
    r"<CLI/": {"daemon", "cli"},
    r"<(idn2|libpsl)": {"policy"},
    r"<seccomp": {"daemon"},
    r"<(openssl|ldns)/": set(),  # oracles in tests
}

TOP_LEVEL = {"CMakeLists.txt", "README.md", "LICENSE", "bpf", "policy", "tests", "userspace", "vmtests"}

# Words that only make sense on the machine where somebody wrote them, put together here so that this file
# does not contain them.
MACHINE_PATHS = re.compile(r"/(?:" + "|".join(["work/(?:main|shared)", "home/", "Users/", "tmp/build"]) + ")")
REGISTRIES = re.compile(
    "|".join(
        re.escape(host) + "." + tld
        for host, tld in [
            ("registry.npmjs", "org"),
            ("files.pythonhosted", "org"),
            ("crates", "io"),
            ("proxy.golang", "org"),
            ("rubygems", "org"),
            ("repo.maven.apache", "org"),
            ("registry.hub.docker", "com"),
        ]
    )
)


class Tree:
    def __init__(self, root):
        self.root = pathlib.Path(root)
        tracked = subprocess.run(
            ["git", "-c", f"safe.directory={self.root}", "-C", str(self.root), "ls-files", "-z",
             "--cached", "--others", "--exclude-standard"],
            capture_output=True, text=True, check=False,
        )
        if tracked.returncode == 0:
            names = [name for name in tracked.stdout.split("\0") if name]
        else:  # an unpacked archive
            names = [str(path.relative_to(self.root)) for path in self.root.rglob("*")]
            names = [name for name in names if not name.startswith("build/")]
        self.files = [pathlib.PurePosixPath(name) for name in names if (self.root / name).is_file()]

    def text(self, path):
        try:
            return (self.root / path).read_text()
        except UnicodeDecodeError:
            return None  # corpus files and the like

    def cpp(self):
        return [path for path in self.files if path.suffix in (".hpp", ".cpp")]

    def box(self, path):
        """The box that a file belongs to; None for tests and BPF."""
        if path.parts[0] == "policy":
            return "policy"
        if path.parts[0] == "userspace" and len(path.parts) > 2 and path.parts[1] in BOXES:
            return path.parts[1]
        return None


def includes(text):
    """(line number, header with its quotes or brackets) of each include."""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r'\s*#\s*include\s+([<"][^>"]+[>"])', line):
            yield number, match.group(1)


def arrows(tree):
    """Boxes include only what is below them; third-party headers stay in the boxes they belong to."""
    for path in tree.cpp():
        box = tree.box(path)
        if box is None:
            continue
        for number, header in includes(tree.text(path)):
            other = header.strip('"').split("/")[0]
            if other in BOXES and other != box and other not in BOXES[box]:
                yield f"{path}:{number}: {box} may not include {header}"
            for pattern, allowed in THIRD_PARTY.items():
                if re.search(pattern, header) and box not in allowed:
                    yield f"{path}:{number}: {header} has no business in {box}"


def own_header_first(tree):
    """A source file includes its own header first, which shows that the header compiles alone."""
    files = set(tree.files)
    for path in tree.cpp():
        header = path.with_suffix(".hpp")
        if path.suffix != ".cpp" or header not in files or path.parts[0] == "tests" and path.stem == "main":
            continue
        first = next((header for _, header in includes(tree.text(path))), "")
        if not str(header).endswith(first.strip('<>"')):
            yield f"{path}: the first include is {first}, not its own header"


def await_expressions(text):
    """(offset, expression) of each co_await with its whole operand."""
    for match in re.finditer(r"\bco_await\b", text):
        depth = 0
        position = match.end()
        while position < len(text):
            char = text[position]
            if char in "([{":
                if char == "{" and depth == 0:
                    break
                depth += 1
            elif char in ")]}":
                if depth == 0:
                    break
                depth -= 1
            elif char in ";," and depth == 0:
                break
            position += 1
        yield match.start(), text[match.end():position]


def coroutines(tree):
    """What g++ 12 miscompiles and what loses errors: see STYLE, "Coroutines and Asio"."""
    for path in tree.cpp():
        text = re.sub(r"//[^\n]*", lambda match: " " * len(match.group()), tree.text(path))
        for match in re.finditer(r"\basio::detached\b", text):
            yield f"{path}:{text.count(chr(10), 0, match.start()) + 1}: asio::detached loses what escapes; use spawn()"
        for offset, expression in await_expressions(text):
            line = text.count("\n", 0, offset) + 1
            if re.search(r"(?<![\w\])])\[[^\[\]]*\]\s*[({]", expression):
                yield f"{path}:{line}: a lambda inside a co_await expression; name it on the line above"
            elif re.search(r"\{\s*[^\s}]", expression):
                yield f"{path}:{line}: a braced object inside a co_await expression; name it on the line above"


def licences(tree):
    """Every source file says its licence in the first or second line."""
    kinds = {".hpp", ".cpp", ".h", ".c", ".py", ".sh"}
    for path in tree.files:
        text = tree.text(path)
        if text is None:
            continue
        lines = text.splitlines()[:2]
        script = bool(lines) and lines[0].startswith("#!")
        if path.suffix not in kinds and not script:
            continue
        bpf = path.parts[0] == "bpf" or path.name.endswith((".bpf.c", ".bpf.h"))
        wanted = "GPL-2.0-only OR BSD-2-Clause" if bpf else "Apache-2.0"
        if not any(f"SPDX-License-Identifier: {wanted}" in line for line in lines):
            yield f"{path}: no 'SPDX-License-Identifier: {wanted}' in the first two lines"


def hygiene(tree):
    """No path of one machine, no registry host, no TODO without an issue, no stray name at the top level."""
    for path in tree.files:
        if path.parts[0] not in TOP_LEVEL and not path.parts[0].startswith("."):
            yield f"{path}: the top level holds only {', '.join(sorted(TOP_LEVEL))}"
        text = tree.text(path)
        if text is None:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATHS.search(line):
                yield f"{path}:{number}: an absolute path of one machine"
            if REGISTRIES.search(line):
                yield f"{path}:{number}: the host of a package registry"
            if re.search(r"\b(TODO|FIXME|XXX)\b:(?! ?\(?#\d)|\b(TODO|FIXME|XXX)\b\((?!#\d)", line) and path.name != "check_tree.py":
                yield f"{path}:{number}: a TODO without an issue number"


def readmes(tree):
    """Each folder that is a room of its own says what it is for."""
    files = set(tree.files)
    folders = {pathlib.PurePosixPath(top) for top in ("bpf", "policy", "userspace", "tests", "vmtests")}
    for path in tree.files:
        if path.parts[0] in ("userspace", "tests") and len(path.parts) > 2:
            folders.add(pathlib.PurePosixPath(*path.parts[:2]))
    for folder in sorted(folders) + [pathlib.PurePosixPath(".")]:
        if folder / "README.md" not in files:
            yield f"{folder}/README.md is missing"


def drop_reasons(tree):
    """Every drop reason is produced by a test."""
    reasons = re.findall(r'X\(\d+,\s*(\w+),\s*"([\w-]+)"', tree.text(pathlib.PurePosixPath("bpf/include/tapgate/drop_reason.h")))
    if not reasons:
        yield "no drop reasons found in drop_reason.h"
    tests = "\n".join(tree.text(path) for path in tree.cpp() if path.parts[0] == "tests")
    for name, word in reasons:
        if not re.search(rf'\bTG_DROP_{name}\b|"{word}"', tests):
            yield f"no test mentions drop reason {word} (TG_DROP_{name})"


def registered(tree):
    """A test that no CMakeLists.txt names never runs."""
    for path in tree.cpp():
        if not re.search(r"_(test|fuzz)\.cpp$", path.name) or path.parts[0] != "tests":
            continue
        lists = tree.text(path.parent / "CMakeLists.txt") if path.parent / "CMakeLists.txt" in tree.files else ""
        if not re.search(rf"\b{path.stem}\b|\b{path.stem.rsplit('_', 1)[0]}\b|GLOB", lists):
            yield f"{path} is not in its folder's CMakeLists.txt"


RULES = {rule.__name__: rule for rule in
         (arrows, own_header_first, coroutines, licences, hygiene, readmes, drop_reasons, registered)}


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in RULES:
        sys.exit(f"{__doc__}rules: {', '.join(RULES)}")
    violations = list(RULES[sys.argv[2]](Tree(sys.argv[1])))
    for line in violations:
        print(line)
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
