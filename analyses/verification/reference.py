"""References: those that come with the package, and those that are made of a model."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analyses.verification.measures import HEADS, ioi, next_token, of_heads
from interp.errors import InterpError, ResultError, nearest
from interp.files import write_whole
from interp.model import Transformer
from interp.strict_json import parse

FOLDER = Path(__file__).parent
PUBLISHED = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))
"""Models whose figures come with the package."""

NEEDED = ("bos", "ioi", *HEADS, "random_tokens", "next_token")
KEPT = 8
"""Heads of each kind that a reference made of a model keeps, the strongest."""


def read_reference(name: str | Path) -> dict[str, Any]:
    """A reference of `PUBLISHED`, or a file that `write_reference` wrote. Raises InterpError where there is none, or it is not one."""
    path = FOLDER / f"{name}.json" if str(name) in PUBLISHED else Path(name)
    if not path.is_file():
        raise InterpError(
            f"verify: there is no reference {str(name)!r}. {nearest(str(name), PUBLISHED)} Or give a file."
        )
    try:
        reference: dict[str, Any] = parse(path.read_text(encoding="utf-8"))
        missing = [key for key in NEEDED if key not in reference]
    except (OSError, ValueError, TypeError) as error:
        raise InterpError(f"verify: {path} is not a reference: {error}") from error
    if missing:
        raise InterpError(f"verify: {path} is not a reference: it lacks {', '.join(missing)}.")
    return reference


def reference_of(model: Transformer, prompts: Sequence[Sequence[str]], *, tolerance: float = 1e-3) -> dict[str, Any]:
    """The figures of a model, in the form of a published reference, to hold later versions or other machines to.

    Args:
        prompts: (prompt, answer, wrong answer), in pairs of equal token length whose answers are each other's wrong ones.
        tolerance: how far a figure may be from this, in its own unit.

    Raises:
        ResultError: figures that are no numbers.
    """
    length = min(100, model.config.n_ctx // 2)
    random_tokens = {"sequences": 2, "length": length, "lowest": 0, "highest": model.config.d_vocab - 1}
    reference: dict[str, Any] = {
        "model": model.name,
        "source": f"measured of {model.name}, weights {model.weight_hash()[:12]}",
    }
    bos = reference["bos"] = model.tokenizer is not None and model.tokenizer.bos is not None
    differences = [float(value) for value in ioi(model, prompts, bos=bos)]
    reference["ioi"] = {
        "prompts": [list(one) for one in prompts],
        "logit_difference": differences,
        "tolerance": tolerance,
    }
    for name, grid in of_heads(model, prompts, random_tokens, bos=bos).items():
        strongest = [np.unravel_index(at, grid.shape) for at in np.argsort(-np.abs(grid), axis=None)[:KEPT]]
        figures = {f"{layer}.{head}": float(grid[layer, head]) for layer, head in strongest}
        reference[name] = {"figures": figures, "tolerance": tolerance}
    if not all(math.isfinite(one) for name in HEADS for one in reference[name]["figures"].values()):
        raise ResultError(
            f"verify: {model.name} has heads whose figures are not finite; nothing could be held to them."
        )
    prompt, answer, _ = prompts[0]
    asked = {"prompt": prompt, "answer": answer, "tolerance": tolerance}
    return reference | {
        "random_tokens": random_tokens,
        "next_token": asked | next_token(model, prompt, answer, bos=bos),
    }


def write_reference(reference: dict[str, Any], path: str | Path, *, overwrite: bool = False) -> None:
    """Write a reference, whole or not at all. Raises InterpError where the file exists and may not be overwritten."""
    text = json.dumps(reference, indent=1) + "\n"
    write_whole(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"), overwrite=overwrite)
