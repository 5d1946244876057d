# SPDX-License-Identifier: Apache-2.0
"""What the host needs to boot the rows."""

import os
import subprocess

from . import Unusable

PACKAGES = [
    "busybox-static",  # virtme-ng's initramfs, guest/init
    "kmod",
    "python3-argcomplete",  # virtme-ng
    "python3-pkg-resources",  # virtme-ng
    "python3-requests",  # virtme-ng
    "qemu-system-x86",
]


def install_missing() -> None:
    """Installs what is missing. Does nothing, and needs no network, if all is there."""
    missing = [package for package in PACKAGES if not _installed(package)]
    if not missing:
        return
    print(f"installing: {' '.join(missing)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
        done = subprocess.run(["apt-get", "-o", "DPkg::Lock::Timeout=300", *command], env=environment, stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            raise Unusable(f"apt-get {command[0]} failed; needed are: {' '.join(missing)}")


def _installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    return subprocess.run(query, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout == "installed"
