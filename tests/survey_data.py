"""Small data sets for surveys, and what a survey must equal."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import xarray as xr
from conftest import TINY

from analyses.survey.surveyed import function_of, surveyed


def pairs(lengths: Sequence[int], seed: int = 0, vocab: int = TINY.d_vocab) -> list[dict]:
    """Rows with random token ids and two labels; clean and corrupt have hardly a token in common."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number, length in enumerate(lengths):
        clean = torch.randint(0, vocab, (length,), generator=generator).tolist()
        corrupt = torch.randint(0, vocab, (length,), generator=generator).tolist()
        rows.append(
            {"clean": clean, "corrupt": corrupt, "answer": (number + 3) % vocab, "wrong": number % vocab, "kind": "ab"[number % 2],
             "number": number}
        )  # fmt: skip
    return rows


def written(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def plain(model, analysis: str, rows: list[dict], options: dict, number: int = 0) -> xr.Dataset:
    """What a user would call for these rows, the first of which has that number."""
    about = surveyed(analysis)
    given = {**about.fixed, **options}
    if about.draws is not None:
        given["seed"] = given.get("seed", 0) + number * about.draws(options)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    if about.takes != "prompt":
        given |= {"answer": columns["answer"], "wrong": columns["wrong"]}
    prompts = (columns["clean"], columns["corrupt"]) if about.takes == "pair" else (columns["clean"],)
    return function_of(analysis)(model, *prompts, **given)


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(folder / name)


def holds(folder: Path, number: int, one: xr.Dataset, tolerance: float = 1e-5) -> int:
    """Assert that a survey's tables have exactly the cells of a plain call for a row; how many variables were compared."""
    seen = 0
    for name, values in one.data_vars.items():
        dims = [dim for dim in values.dims if dim != "prompt"]
        if "prompt" not in values.dims or values.dtype.kind not in "fbiu":
            continue
        found = table(folder, "-".join(dims) or "prompts")
        found = found[found["row"] == number]
        if dims:
            labels = one.assign_coords({dim: np.arange(one.sizes[dim]) for dim in dims if dim not in one.coords})
            wanted = labels[name].isel(prompt=0).transpose(*dims).to_series().reset_index()
            assert len(found) == len(wanted), name
            for dim in dims:
                assert found[dim].astype(wanted[dim].dtype).tolist() == wanted[dim].tolist(), (name, dim)
            wanted = wanted[name]
        else:
            wanted = values.to_numpy()
        np.testing.assert_allclose(
            found[name].to_numpy(float), np.asarray(wanted, float), tolerance, tolerance, err_msg=str(name)
        )
        seen += 1
    assert seen
    return seen


def same_tables(first: Path, second: Path) -> None:
    """Assert that two surveys have the same rows, to the bit."""
    names = sorted(path.relative_to(first) for path in first.rglob("*.parquet"))
    assert names == sorted(path.relative_to(second) for path in second.rglob("*.parquet"))
    for name in names:
        assert pq.read_table(first / name).equals(pq.read_table(second / name)), name
