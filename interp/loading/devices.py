"""Where weights are to go."""

from typing import cast

import torch

from interp.errors import CheckpointError, InterpError


def device_there(device: object, error: type[InterpError] = CheckpointError) -> torch.device:
    """The device asked for. Raises an InterpError of the class given, before anything is read, where this machine has none such."""
    try:
        found = torch.device(device)  # type: ignore[call-overload]
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as refused:
        raise error(f"device {device!r} is not there. {_devices()}") from refused
    if found.type == "meta":
        raise error(f"device 'meta' holds no weights. {_devices()}")
    return cast(torch.device, found)


def _devices() -> str:
    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    found = ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]
    return f"This machine has {', '.join(found)}."
