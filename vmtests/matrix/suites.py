# SPDX-License-Identifier: Apache-2.0
"""The suites of the matrix: suites.toml, and the programs of a build tree that they stand for."""

import fnmatch
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from . import Unusable


@dataclass(frozen=True)
class AllowedSkip:
    """A test that may skip itself. `kernel` is a row's name, or "" for every row."""

    test: str
    reason: str
    kernel: str = ""


@dataclass(frozen=True)
class Suite:
    """What one row runs. Limits are seconds; `program_limit` is for each program, `limit` for all together.

    `kernels` are the names of those it is for, all if empty.
    """

    name: str
    programs: list[str]
    limit: int
    program_limit: int
    arguments: list[str] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)
    root: str = "build"
    allowed_skips: list[AllowedSkip] = field(default_factory=list)

    def commands(self, roots: dict[str, Path]) -> list[dict]:
        """The programs as the guest is to run them. A pattern that no program matches is an error."""
        folder = roots[self.root]
        commands = []
        for pattern in self.programs:
            found = sorted(path for path in folder.glob(pattern) if path.is_file() and os.access(path, os.X_OK))
            if not found:
                raise Unusable(f"suite {self.name}: no program {pattern} in {folder}: build the tree first")
            commands += [{"name": path.name, "argv": [str(path), *self.arguments]} for path in found]
        return commands

    def is_for(self, kernel: str) -> bool:
        return not self.kernels or kernel in self.kernels

    def allows_skip(self, kernel: str, test: str) -> bool:
        return any(
            skip.kernel in ("", kernel) and fnmatch.fnmatchcase(test, skip.test) for skip in self.allowed_skips
        )


def load_suites(file: Path) -> list[Suite]:
    suites = []
    for row in tomllib.loads(file.read_text())["suite"]:
        skips = [AllowedSkip(**skip) for skip in row.pop("allowed_skips", [])]
        suites.append(Suite(**row, allowed_skips=skips))
    return suites
