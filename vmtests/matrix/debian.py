# SPDX-License-Identifier: Apache-2.0
"""Packages of other Debian releases, without installing them and without touching the machine's apt."""

import re
import subprocess
from pathlib import Path

from . import Unusable
from .cache import cache_folder

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def _run(command: list[str], **options) -> str:
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if done.returncode != 0:
        raise Unusable(f"{' '.join(command[:1] + command[-2:])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Release:
    """A Debian release as apt sees it, with lists and cache in a folder of its own."""

    def __init__(self, name: str):
        self.name = name
        self._folder = cache_folder() / "apt" / name

    def update(self) -> None:
        """Fetches the package lists."""
        for part in ("lists/partial", "cache/archives/partial"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        (self._folder / "sources.list").write_text("".join(f"{line}\n" for line in self._sources()))
        (self._folder / "apt.conf").write_text(
            f'Dir::Etc::sourcelist "{self._folder}/sources.list";\n'
            'Dir::Etc::sourceparts "-";\n'
            f'Dir::State::lists "{self._folder}/lists";\n'
            f'Dir::Cache "{self._folder}/cache";\n'
            'APT::Sandbox::User "root";\n'  # the folder may be where _apt cannot write
        )
        self._apt("apt-get", "-q", "update")

    def dependency(self, package: str, pattern: str) -> str:
        """The package that `package` depends on and whose whole name matches `pattern`."""
        for line in self._apt("apt-cache", "depends", package).splitlines():
            found = re.fullmatch(r"\s*Depends: (\S+)", line)
            if found and re.fullmatch(pattern, found[1]):
                return found[1]
        raise Unusable(f"{package} of {self.name} depends on no {pattern}")

    def unpack(self, package: str, folder: Path) -> None:
        """Puts the files of `package` under `folder`. apt has checked their signature and hash."""
        self._apt("apt-get", "-q", "download", package, cwd=folder)
        (archive,) = folder.glob("*.deb")
        _run(["dpkg-deb", "-x", str(archive), str(folder)])
        archive.unlink()

    def _apt(self, *command: str, cwd: Path | None = None) -> str:
        return _run(list(command), cwd=cwd, env={"APT_CONFIG": f"{self._folder}/apt.conf", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})

    def _sources(self) -> list[str]:
        """This machine's own mirrors, with this release instead of the machine's."""
        targets = _run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"])
        mirrors = dict.fromkeys(tuple(line.split()) for line in targets.splitlines())
        archive = [uri for uri, release in mirrors if "-" not in release]
        security = [uri for uri, release in mirrors if release.endswith("-security")]
        if not archive:
            raise Unusable("apt knows no Debian mirror: run apt-get update")
        lines = [f"deb [signed-by={KEYRING}] {archive[0]} {self.name} main"]
        if security:
            lines.append(f"deb [signed-by={KEYRING}] {security[0]} {self.name}-security main")
        return lines
