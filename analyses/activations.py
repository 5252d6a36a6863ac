"""Activations of a data set that were collected before: reading them again, a few rows at a time."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analyses.architecture import architecture
from analyses.extra import need
from analyses.results import as_json
from interp.errors import ResultError
from interp.model import Transformer

KIND = "activations"
SUFFIX = ".zarr"


class Activations:
    """A folder of `analyses.collect`.

    Args:
        path: of the Zarr folder.

    Attributes:
        names: the hook points.
        rows: how many prompts there are.
        tokens: [row, token], ids; padding is -1.
        places: [row, position], which token of its row a position is; -1 where a shorter row has none.
    """

    def __init__(self, path: str | Path) -> None:
        zarr = need("zarr")
        try:
            self._group = zarr.open_group(str(path), mode="r")
            about = dict(self._group.attrs)
            self.names: list[str] = json.loads(str(about["names"]))
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise ResultError(
                f"{path} holds no collected activations (Zarr, as `analyses.collect` writes it): {error}."
            ) from error
        self.path, self.about = Path(path), about
        if about.get("kind") != KIND or not about.get("finished"):
            raise ResultError(
                f"{path} holds no activations whose collection is finished; the same call of `collect` goes on with it."
            )
        ids: Any = self._group["token_id"]
        places: Any = self._group["place"]
        self.tokens, self.places = np.asarray(ids[:]), np.asarray(places[:])
        self.rows = len(self.tokens)

    def check_model(self, model: Transformer) -> None:
        """Raise ResultError where they are of other weights, or of another architecture."""
        for what, own in (("weight_hash", model.weight_hash()), ("architecture", as_json(architecture(model)))):
            if self.about.get(what) != own:
                other = "weights" if what == "weight_hash" else what
                raise ResultError(
                    f"{self.path} holds activations of {self.about['model']} with other {other} than {model.name} has."
                )

    def read(self, name: str, rows: Sequence[int]) -> Tensor:
        """The values of a hook point in some rows, [row, position, ...], in the dtype that they were kept in."""
        if name not in self.names:
            raise ResultError(f"{self.path} has no values of {name}; it has {', '.join(self.names[:4])}.")
        array: Any = self._group[name]
        return torch.from_numpy(np.asarray(array.oindex[np.asarray(rows, dtype=np.int64)]))
