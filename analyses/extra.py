"""Packages of the extra `scale`: imported where they are used, so that nothing else needs them."""

from importlib import import_module
from pathlib import Path
from typing import Any

from interp.errors import InterpError
from interp.files import make_folder, write_whole

HOLDS = {
    "pyarrow": "tables in Parquet",
    "ray": "surveys with several workers",
    "zarr": "collected activations",
    "datasets": "a data set in a Hugging Face `datasets` directory",
}


def need(module: str) -> Any:
    """A module of a package of the extra. Raises InterpError, with the command that installs it, where it is not there."""
    package = module.split(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package:
            raise
        raise InterpError(
            f'{HOLDS[package]} need the package {package}, which is not installed: pip install "criticalpile[scale]".'
        ) from error


def write_parquet(path: Path, table: Any) -> None:
    """Write an Arrow table: whole, or not at all; its folder is made."""
    parquet = need("pyarrow.parquet")
    make_folder(path.parent)
    write_whole(path, lambda temporary: parquet.write_table(table, temporary, compression="zstd"))
