"""The tensors of a safetensors file, mapped from disk and checked."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp.errors import CheckpointError
from interp.loading.finite import FLOATS, check_file
from interp.loading.header import damaged, header_of


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, mapped and not copied, and its metadata.

    Raises:
        CheckpointError: no regular file, damaged or truncated; a tensor that is there twice, of less than half precision, or not finite.
        PermissionError: the file may not be read.
    """
    header = header_of(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error) from error
    for name, value in tensors.items():
        if value.is_floating_point() and value.dtype not in FLOATS.values():
            raise CheckpointError(
                f"{path}: {name} has dtype {value.dtype}, expected floating point: {', '.join(map(str, FLOATS.values()))}. "
                "It is quantised; convert it."
            )
    check_file(path)
    return tensors, header.get("__metadata__") or {}
