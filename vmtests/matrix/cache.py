# SPDX-License-Identifier: Apache-2.0
"""Where fetched kernels and tools are kept, and how they get there whole or not at all."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """TAPGATE_VMTESTS_CACHE, or a folder in the user's cache directory; made if missing."""
    chosen = os.environ.get("TAPGATE_VMTESTS_CACHE")
    if not chosen:
        chosen = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "tapgate-vmtests")
    folder = Path(chosen).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def replacing(folder: Path):
    """Gives an empty folder that takes the place of `folder` when the block ends without an exception."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        yield fresh
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
