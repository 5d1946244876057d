# SPDX-License-Identifier: Apache-2.0
"""The kernels of the matrix: kernels.toml, and the unpacked images in the cache."""

import platform
import subprocess
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from .cache import cache_folder, replacing
from .debian import Release


@dataclass(frozen=True)
class Image:
    """A kernel ready to run. `vmlinuz` is None for the kernel that runs already."""

    version: str
    vmlinuz: Path | None


@dataclass(frozen=True)
class Kernel:
    name: str
    release: str | None = None
    package: str | None = None
    features: dict[str, bool] = field(default_factory=dict)

    @property
    def emulated(self) -> bool:
        return self.release is not None

    def image(self, update: bool = False) -> Image:
        """The image, from the cache if it is there and `update` is not asked for."""
        if not self.emulated:
            return Image(platform.release(), None)
        folder = cache_folder() / "kernels" / self.name
        if update or not folder.exists():
            self._fetch(folder)
        (vmlinuz,) = (folder / "boot").glob("vmlinuz-*")
        return Image(vmlinuz.name.removeprefix("vmlinuz-"), vmlinuz)

    def _fetch(self, folder: Path) -> None:
        release = Release(self.release)
        release.update()
        package = release.dependency(self.package, r"linux-image-\d.*")
        with replacing(folder) as fresh:
            release.unpack(package, fresh)
            # Debian 13 keeps modules in usr/lib; virtme-ng and depmod look for them in lib.
            if not (fresh / "lib").exists():
                (fresh / "lib").symlink_to("usr/lib")
            version = package.removeprefix("linux-image-")
            subprocess.run(["/sbin/depmod", "-b", str(fresh), version], check=True)


def load_kernels(file: Path) -> list[Kernel]:
    return [Kernel(**row) for row in tomllib.loads(file.read_text())["kernel"]]
