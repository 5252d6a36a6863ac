"""Which models are on this machine, without reading any weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from interp.config import ModelConfig
from interp.errors import CheckpointError
from interp.loading.checkpoint import has_weights, read_config
from interp.loading.packaged import PACKAGED, find, models_folder, refused
from interp.loading.sources import EMBEDDED, embedded_models


@dataclass(frozen=True)
class Listed:
    """A model on this machine.

    Args:
        name, revision: what `interp.load` takes.
        place: `embedded`, `in the cache`, `installed`, or `hub cache`.
        config: its architecture; None where it cannot be loaded.
        size: bytes on the disk.
        licence: as its files say; None where they do not.
        problem: why it cannot be loaded, or the empty string.
    """

    name: str
    place: str
    config: ModelConfig | None
    size: int
    licence: str | None
    revision: str | None = None
    problem: str = ""


def models() -> list[Listed]:
    """Every model that is here: embedded, got or installed, and in the Hugging Face hub's cache."""
    return [*_embedded(), *_packaged(), *_cached()]


def _embedded() -> Iterator[Listed]:
    for name in embedded_models():
        folder = EMBEDDED / name
        yield _listed(name, "embedded", partial(_of_directory, folder), _size(folder), "MIT")


def _packaged() -> Iterator[Listed]:
    from interp.loading.gguf import read_config as read_gguf  # loading the library costs a quarter of a second

    for name, model in PACKAGED.items():
        try:
            path = find(name)
        except CheckpointError as error:
            yield Listed(name, "in the cache", None, 0, model.licence, problem=str(error))
            continue
        if path is not None:
            place = "in the cache" if path.parent == models_folder() else "installed"
            yield _listed(name, place, partial(read_gguf, path), path.stat().st_size, model.licence)


def _cached() -> Iterator[Listed]:
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return
    except OSError as error:
        place = error.filename or constants.HF_HUB_CACHE
        yield Listed("all models there", "hub cache", None, 0, None, problem=refused(place, error))
        return
    for repository in sorted(repositories, key=lambda found: found.repo_id):
        if repository.repo_type != "model":
            continue
        for revision in sorted(repository.revisions, key=lambda found: found.commit_hash):
            folder = revision.snapshot_path
            name, size = repository.repo_id, revision.size_on_disk
            shown = None if "main" in revision.refs else next(iter(sorted(revision.refs)), revision.commit_hash[:12])
            try:
                if (folder / "config.json").exists() and has_weights(folder):
                    read = partial(_of_directory, folder)
                    yield _listed(name, "hub cache", read, size, _licence(folder), shown)
            except PermissionError as error:
                problem = refused(error.filename or folder, error)
                yield Listed(name, "hub cache", None, size, None, shown, problem)


def _listed(
    name: str, place: str, read: Callable[[], ModelConfig], size: int, licence: str | None, revision: str | None = None
) -> Listed:
    try:
        return Listed(name, place, read(), size, licence, revision)
    except CheckpointError as error:
        return Listed(name, place, None, size, licence, revision, str(error))


def _of_directory(folder: Path) -> ModelConfig:
    return read_config(folder)[1]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _licence(folder: Path) -> str | None:
    """What the repository's card says, where it is cached too."""
    from huggingface_hub import metadata_load

    card = folder / "README.md"
    said = metadata_load(card) if card.is_file() else None
    return None if said is None or "license" not in said else str(said["license"])
