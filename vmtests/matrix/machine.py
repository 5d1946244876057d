# SPDX-License-Identifier: Apache-2.0
"""A virtual machine that runs one command on an unpacked kernel, over the host's file system."""

import os
import shlex
import signal
import subprocess
from pathlib import Path

from . import Unusable
from .cache import cache_folder, replacing
from .debian import Release
from .kernels import Image

# The first Debian release with virtme-ng. It is Python code without further needs, so it runs unpacked.
VIRTME_RELEASE = "trixie"

INIT = Path(__file__).resolve().parent.parent / "guest/init"

KERNEL_ARGUMENTS = (
    "log_buf_len=8M",  # the scan wants the log from its first line
    "loglevel=7",
    "mitigations=off",  # nobody to defend against, and they cost most under emulation
    "no_timer_check",
)


def virtme(update: bool = False) -> Path:
    """The folder with virtme-ng's files, fetched when missing."""
    folder = cache_folder() / "virtme-ng"
    if update or not folder.exists():
        release = Release(VIRTME_RELEASE)
        release.update()
        with replacing(folder) as fresh:
            release.unpack("virtme-ng", fresh)
    return folder


class Machine:
    """A running machine. It is gone, with everything in it, when the `with` block ends."""

    def __init__(self, image: Image, command: list[str], shared: Path, console: Path, more: str = ""):
        """Boots `image` and runs `command` as root: the host's files read-only, `shared` writable.

        `more` are further options of QEMU.
        """
        tool = virtme()
        modules = image.vmlinuz.parent.parent / "lib/modules" / image.version
        devices = (
            "-virtfs local,path=/,mount_tag=tapgate_root,security_model=none,readonly=on,multidevs=remap "
            f"-virtfs local,path={shared},mount_tag=tapgate_results,security_model=none {more}"
        )
        arguments = [
            "/usr/bin/python3", str(tool / "usr/bin/vng"), "--run", str(image.vmlinuz), "--disable-kvm",
            "--cpus", "2", "--memory", "2G", "--verbose", f"--qemu-opts={devices}",
        ]  # fmt: skip
        for argument in (
            *KERNEL_ARGUMENTS,
            f"init={INIT}",
            f"tapgate_modules={modules}",
            f"tapgate_results={shared}",
            f'tapgate_command="{shlex.join(command)}"',
        ):
            arguments += ["--append", argument]
        environment = os.environ | {
            "PATH": f"{tool}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(tool / "usr/lib/python3/dist-packages"),
        }
        with console.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    arguments + ["--", "true"],  # which INIT does not look at
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                raise Unusable(f"start virtme-ng: {error}") from error

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    def wait(self, seconds: float) -> bool:
        """Waits at most `seconds` for the machine to end; True if it did."""
        try:
            self._process.wait(seconds)
            return True
        except subprocess.TimeoutExpired:
            return False
