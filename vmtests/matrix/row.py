# SPDX-License-Identifier: Apache-2.0
"""One row of the matrix: a suite on a kernel, run and judged."""

import json
import shutil
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from . import Unusable
from .kernel_log import LogRules
from .kernels import Image, Kernel
from .machine import Machine
from .suites import Suite

BOOT_LIMIT = 300  # seconds; 20 on an idle machine, minutes on a busy one
HERE = Path(__file__).resolve().parent.parent


@dataclass
class Outcome:
    """What a row came to. It is good if there are no problems."""

    kernel: str
    suite: str
    version: str = ""
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    boot_seconds: float = 0
    run_seconds: float = 0
    figures: list[str] = field(default_factory=list)  # what tests recorded, as "tap_ingress: ..."
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.problems


class Row:
    def __init__(self, kernel: Kernel, suite: Suite, folder: Path, rules: LogRules):
        """`folder` is emptied; what the row leaves behind (plan, result, dmesg, console, output) goes there."""
        self._kernel = kernel
        self._suite = suite
        self._folder = folder
        self._rules = rules
        # Names this run in the kernel's log, which on the host keeps the marks of earlier runs.
        self._id = f"{kernel.name} {suite.name} {uuid.uuid4().hex[:8]}"

    def run(self, roots: dict[str, Path]) -> Outcome:
        outcome = Outcome(self._kernel.name, self._suite.name)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        try:
            image = self._kernel.image()
            outcome.version = image.version
            self._write_plan(roots)
            self._execute(image, outcome)
        except Unusable as problem:
            outcome.problems.append(str(problem))
        self._judge(outcome)
        return outcome

    def _write_plan(self, roots: dict[str, Path]) -> None:
        if self._suite.sysctls and not self._kernel.emulated:
            raise Unusable(f"suite {self._suite.name} changes sysctls, which the running kernel is not to lend")
        environment = dict(self._suite.environment)
        if features := self._suite.expected_features(self._kernel):
            environment["TAPGATE_EXPECTED_FEATURES"] = json.dumps(features)
        plan = {
            "row": self._id,
            "program_limit": self._suite.program_limit,
            "sysctls": self._suite.sysctls,
            "environment": environment,
            "commands": self._suite.commands(roots),
        }
        (self._folder / "plan.json").write_text(json.dumps(plan, indent=2))

    def _execute(self, image: Image, outcome: Outcome) -> None:
        """Runs the guest's half on the kernel, within the limits."""
        command = ["/usr/bin/python3", str(HERE / "guest" / "run-suite"), str(self._folder)]
        console = self._folder / "console.log"
        if image.vmlinuz is None:
            started = time.monotonic()
            if not self._run_here(command, console):
                outcome.problems.append(f"not done within {self._suite.limit} s")
            outcome.run_seconds = time.monotonic() - started
            return
        # The emulated kernel sometimes oopses while it still sets itself up; nothing of ours has run then.
        if not self._run_in_machine(image, command, console, outcome):
            console.rename(self._folder / "console-of-first-boot.log")
            outcome.figures.append("boot: the machine ended before it was up, see console-of-first-boot.log")
            if not self._run_in_machine(image, command, console, outcome):
                outcome.problems.append("the machine ended before it was up, twice")

    def _run_in_machine(self, image: Image, command: list[str], console: Path, outcome: Outcome) -> bool:
        """Runs `command` in a machine; False if that ended before it had booted."""
        started = time.monotonic()
        booted_mark = self._folder / "booted"
        with Machine(image, command, self._folder, console) as machine:
            while not booted_mark.exists():
                if machine.wait(1):
                    if not booted_mark.exists():
                        return False
                    break
                if time.monotonic() - started > BOOT_LIMIT:
                    outcome.problems.append(f"not booted within {BOOT_LIMIT} s")
                    return True
            booted = time.monotonic()
            outcome.boot_seconds = booted - started
            if not machine.wait(self._suite.limit):
                outcome.problems.append(f"not done within {self._suite.limit} s")
            outcome.run_seconds = time.monotonic() - booted
            return True

    def _run_here(self, command: list[str], console: Path) -> bool:
        """Runs the guest's half on this kernel; False if it had to be ended."""
        with console.open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            process.wait(self._suite.limit)
            return True
        except subprocess.TimeoutExpired:
            return False
        finally:
            process.terminate()  # it ends its programs
            process.wait()

    def _judge(self, outcome: Outcome) -> None:
        self._judge_result(outcome)
        try:
            for line in self._rules.findings(
                self._folder / "dmesg.txt", self._kernel.name, self._id, whole=self._kernel.emulated
            ):
                outcome.problems.append(f"kernel log: {line.strip()}")
        except Unusable as problem:
            outcome.problems.append(str(problem))

    def _judge_result(self, outcome: Outcome) -> None:
        try:
            result = json.loads((self._folder / "result.json").read_text())
            plan = json.loads((self._folder / "plan.json").read_text())
            programs = result["programs"]
            tests = [(program["name"], test) for program in programs for test in program["tests"]]
            if [program["name"] for program in programs] != [command["name"] for command in plan["commands"]]:
                outcome.problems.append("the result is not about the programs of the plan")
            if result["row"] != self._id or result["kernel"] != outcome.version:
                outcome.problems.append(f"the result is of {result['row']} on {result['kernel']}")
            for program, test in tests:
                name = f"{program}:{test['name']}"
                outcome.figures += [f"{figure}: {value}" for figure, value in test["figures"].items()]
                if test["outcome"] == "passed":
                    outcome.passed += 1
                elif test["outcome"] == "skipped":
                    outcome.skipped += 1
                    if not self._suite.allows_skip(self._kernel.name, name):
                        outcome.problems.append(f"skipped: {name}: {test['detail']}")
                else:
                    outcome.failed += 1
                    outcome.problems.append(f"failed: {name}: {test['detail']}")
            if outcome.passed + outcome.failed == 0:
                outcome.problems.append("no test ran")
        except OSError as error:
            outcome.problems.append(f"no result: {error.strerror}")
        except (ValueError, KeyError, TypeError) as error:
            outcome.problems.append(f"no result: not what the guest's half writes: {error!r}")
