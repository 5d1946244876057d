# SPDX-License-Identifier: Apache-2.0
"""The suites of the matrix: suites.toml, and the programs of a build tree that they stand for."""

import fnmatch
import os
import shlex
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from . import Unusable
from .kernels import Kernel


@dataclass(frozen=True)
class AllowedSkip:
    """A test that may skip itself. `kernel` is a row's name, or "" for every row."""

    test: str
    reason: str
    kernel: str = ""


@dataclass(frozen=True)
class Suite:
    """What one row runs.

    An entry of `programs` is a pattern and, if need be, arguments. Limits are seconds; `program_limit` is for each
    program, `limit` for all together. `kernels` are the names of those it is for, all if empty; with
    `by_name_only` it runs only when asked for. `launcher` is a program of vmtests that starts each program,
    `environment` is added to theirs; `sysctls` are set first, in machines only; `features` are what the suite
    makes different from the kernel's own.
    """

    name: str
    programs: list[str]
    limit: int
    program_limit: int
    kernels: list[str] = field(default_factory=list)
    root: str = "build"
    by_name_only: bool = False
    launcher: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    features: dict[str, bool] = field(default_factory=dict)
    allowed_skips: list[AllowedSkip] = field(default_factory=list)

    def commands(self, roots: dict[str, Path]) -> list[dict]:
        """The programs as the guest is to run them. A pattern that no program matches is an error."""
        folder = roots[self.root]
        launcher = [str(roots["vmtests"] / self.launcher)] if self.launcher else []
        commands = []
        for pattern, *arguments in map(shlex.split, self.programs):
            found = sorted(path for path in folder.glob(pattern) if path.is_file() and os.access(path, os.X_OK))
            if not found:
                raise Unusable(f"suite {self.name}: no program {pattern} in {folder}: build the tree first")
            commands += [{"name": path.name, "argv": [*launcher, str(path), *arguments]} for path in found]
        return commands

    def is_for(self, kernel: str) -> bool:
        return not self.kernels or kernel in self.kernels

    def expected_features(self, kernel: Kernel) -> dict[str, bool]:
        """What `tapgate feature probe` must find, as far as it is known."""
        return kernel.features | self.features

    def allows_skip(self, kernel: str, test: str) -> bool:
        return any(
            skip.kernel in ("", kernel) and fnmatch.fnmatchcase(test, skip.test) for skip in self.allowed_skips
        )


def load_suites(file: Path) -> list[Suite]:
    listed = tomllib.loads(file.read_text())
    skips = [AllowedSkip(**skip) for skip in listed.get("allowed_skip", [])]
    return [Suite(**row, allowed_skips=skips) for row in listed["suite"]]
