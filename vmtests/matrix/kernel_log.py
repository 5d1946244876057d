# SPDX-License-Identifier: Apache-2.0
"""The scan of a row's kernel log."""

import re
import tomllib
from pathlib import Path

from . import Unusable

# What the guest's half writes into the log around the programs of a row.
BEGIN = "tapgate-vmtests: begin"
END = "tapgate-vmtests: end"


class LogRules:
    def __init__(self, file: Path):
        rules = tomllib.loads(file.read_text())
        self._deny = [re.compile(pattern) for pattern in rules["deny"]]
        self._allow = [(re.compile(row["pattern"]), row.get("kernel", "")) for row in rules.get("allow", [])]

    def findings(self, file: Path, kernel: str, row: str, whole: bool) -> list[str]:
        """The lines of `file` that are denied and not allowed.

        `whole`: the log must begin with the boot of the kernel, and is judged from the row's first mark to its end;
        otherwise only to its second. Nothing of ours has run before: what an emulated machine's kernel says of
        itself while it boots on a busy host (a CPU that stalled) says nothing of us. Raises Unusable if the log cannot have been read completely.
        """
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError as error:
            raise Unusable(f"no kernel log: {error.strerror}") from error
        begin = [number for number, line in enumerate(lines) if f"{BEGIN} {row}" in line]
        end = [number for number, line in enumerate(lines) if f"{END} {row}" in line]
        if len(begin) != 1 or len(end) != 1 or begin[0] > end[0]:
            raise Unusable("the kernel log lacks the marks of this row")
        if whole and not any("Linux version" in line for line in lines[:5]):
            raise Unusable("the kernel log has lost its beginning")
        return [line for line in lines[begin[0] : None if whole else end[0]] if self._denied(line, kernel)]

    def _denied(self, line: str, kernel: str) -> bool:
        if any(pattern.search(line) and only in ("", kernel) for pattern, only in self._allow):
            return False
        return any(pattern.search(line) for pattern in self._deny)
