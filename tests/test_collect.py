"""Activations of a data set: what is in the file is what a run computes, and a lens trained on it is the lens trained on the runs."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from conftest import random_tokens, tiny
from survey_data import pairs, written

import analyses
from analyses.activations import Activations
from analyses.survey import collecting
from interp import Transformer
from interp.errors import HookError, InterpError, ResultError

pytest.importorskip("zarr", reason="Zarr is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:zarr")


def opened(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, chunks=None, consolidated=False)


def test_xarray_opens_what_the_model_computes(tmp_path, model):
    rows = pairs([8, 5, 9])
    place = written(tmp_path / "rows.jsonl", rows)
    names = ["blocks.1.hook_resid_post", "blocks.2.attn.hook_z", "ln_final.hook_normalized"]
    found = opened(analyses.collect(model, place, names=names, out=tmp_path / "acts.zarr"))
    assert sorted(found.data_vars) == sorted([*names, "token_id", "place", "row"])
    assert found[names[0]].dims == ("prompt", "position", "d_model")
    assert found[names[1]].dims == ("prompt", "position", "head", "d_head")
    assert json.loads((tmp_path / "acts.zarr" / "zarr.json").read_text())["zarr_format"] == 3
    for number, row in enumerate(rows):
        _, cache = model.run_with_cache(torch.tensor([row["clean"]]), names=names)
        for name in names:
            mine = found[name][number].to_numpy()
            np.testing.assert_allclose(mine[: len(row["clean"])], cache[name][0], atol=1e-10)
            assert np.isnan(mine[len(row["clean"]) :]).all()
        assert found["token_id"][number].to_numpy().tolist() == row["clean"] + [-1] * (9 - len(row["clean"]))


def test_chosen_positions_in_half_precision(tmp_path, model):
    rows = pairs([8, 5, 9])
    place, name = written(tmp_path / "rows.parquet", rows), "blocks.0.hook_resid_post"
    found = opened(
        analyses.collect(model, place, names=name, out=tmp_path / "a.zarr", positions=[-1, 2], dtype="float16")
    )
    assert found[name].dtype == np.float16
    assert found["place"].to_numpy().tolist() == [[7, 2], [4, 2], [8, 2]]
    for number, row in enumerate(rows):
        _, cache = model.run_with_cache(torch.tensor([row["clean"]]), names=[name])
        np.testing.assert_array_equal(found[name][number], cache[name][0][[-1, 2]].half())


def test_stopped_it_goes_on_to_the_same(tmp_path, model, monkeypatch):
    place = written(tmp_path / "rows.jsonl", pairs([6] * 10))
    monkeypatch.setattr(collecting, "BLOCK", 4)
    monkeypatch.setattr(collecting, "CHUNK", 2)
    whole = opened(analyses.collect(model, place, out=tmp_path / "whole.zarr"))
    run, calls = collecting._run, []

    def stopped(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(*args)

    monkeypatch.setattr(collecting, "_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        analyses.collect(model, place, out=tmp_path / "a.zarr")
    with pytest.raises(ResultError, match="is finished; the same call"):
        Activations(tmp_path / "a.zarr")
    again = opened(analyses.collect(model, place, out=tmp_path / "a.zarr"))
    assert len(calls) == 2 + 2  # rows 4 to 9
    xr.testing.assert_identical(again.load(), whole.load())
    with pytest.raises(InterpError, match="its weight_hash differ"):
        analyses.collect(tiny(1), place, out=tmp_path / "a.zarr")
    with pytest.raises(InterpError, match="its names differ"):
        analyses.collect(model, place, out=tmp_path / "a.zarr", names="hook_embed")


@pytest.mark.parametrize("where", ["_make", "_keep"])
def test_a_full_disk_is_named_and_the_same_call_goes_on(tmp_path, model, monkeypatch, where):
    place = written(tmp_path / "rows.jsonl", pairs([6] * 10))
    whole = opened(analyses.collect(model, place, out=tmp_path / "whole.zarr"))
    monkeypatch.setattr(collecting, "BLOCK", 4)
    told, real = [], getattr(collecting, where)

    def full(*given):
        told.append(given)
        if len(told) == 3:
            raise OSError(28, "No space left on device")
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(collecting, where, full)
        with pytest.raises(
            InterpError, match=r"rows \d to \d cannot be written to .*part\.zarr: No space left on device"
        ):
            analyses.collect(model, place, out=tmp_path / "part.zarr")
    part = opened(analyses.collect(model, place, out=tmp_path / "part.zarr"))
    xr.testing.assert_equal(whole.load(), part.load())


def test_a_lens_trained_on_what_was_collected_is_that_of_the_runs(tmp_path, model):
    tokens = random_tokens(12, 10)
    options = {"steps": 6, "rows": 3, "validate_every": 2, "learning_rate": 1e-2}
    wanted = analyses.train_tuned_lens(model, tokens, **options)
    place = written(tmp_path / "rows.jsonl", [{"prompt": row} for row in tokens.tolist()])
    out = analyses.collect(model, place, out=tmp_path / "acts.zarr")
    found = analyses.train_tuned_lens(model, out, **options)
    torch.testing.assert_close(found.weight, wanted.weight)
    torch.testing.assert_close(found.bias, wanted.bias)
    with pytest.raises(ResultError, match="other weights"):
        analyses.train_tuned_lens(tiny(1), out, **options)
    few = analyses.collect(model, place, out=tmp_path / "few.zarr", names="blocks.1.hook_resid_post")
    with pytest.raises(ResultError, match="no stream entering layer 1"):
        analyses.train_tuned_lens(model, few, **options)


def test_a_lens_trained_on_chosen_positions_of_unequal_prompts(tmp_path, model):
    place = written(tmp_path / "rows.jsonl", pairs([6, 9, 7, 8] * 3))
    out = analyses.collect(model, place, out=tmp_path / "acts.zarr", dtype="float32")
    lens = analyses.train_tuned_lens(model, out, steps=30, rows=4, validate_every=10, learning_rate=1e-2)
    first, *_, last = lens.about["validation_kl"]
    assert np.mean(last[1]) < np.mean(first[1])


@pytest.mark.parametrize(
    ("options", "says", "error"),
    [
        ({"out": "acts"}, "end in .zarr", InterpError),
        ({"dtype": "int8"}, "float16, float32, float64", InterpError),
        ({"names": "blocks.*.hook_resid_past"}, "hook_resid_post", HookError),
        ({"positions": [-7]}, "first is row 0: position -7 is out of range", ResultError),
        ({"length": 4}, "text file", InterpError),
    ],
)
def test_what_cannot_be_collected_is_named(tmp_path, model, options, says, error):
    place = written(tmp_path / "rows.jsonl", pairs([6, 8]))
    given = {"out": "acts.zarr", **options}
    with pytest.raises(error, match=says):
        analyses.collect(model, place, **{**given, "out": tmp_path / given["out"]})
    assert not (tmp_path / given["out"]).exists()


def test_rows_that_cannot_be_taken_are_put_aside(tmp_path, model):
    rows = pairs([8, 5, 9, 30, 8])
    rows[4]["clean"] = None
    place, name = written(tmp_path / "rows.jsonl", rows), "blocks.0.hook_resid_post"
    with pytest.raises(ResultError, match=r"3 of 5 rows .* more than 10%; the first is row 1: position 6"):
        analyses.collect(model, place, names=name, out=tmp_path / "a.zarr", positions=[6])
    assert not (tmp_path / "a.zarr").exists()
    found = opened(
        analyses.collect(model, place, names=name, out=tmp_path / "a.zarr", positions=[6], most_rejected=0.6)
    )
    aside = pd.read_parquet(tmp_path / "a.zarr" / "rejected.parquet")
    assert aside["row"].tolist() == [1, 3, 4]
    assert ["5 tokens" in aside["reason"][0], "30 tokens" in aside["reason"][1], "missing" in aside["reason"][2]] == [
        True
    ] * 3
    assert found["row"].to_numpy().tolist() == [0, 2]
    for at, number in enumerate((0, 2)):
        _, cache = model.run_with_cache(torch.tensor([rows[number]["clean"]]), names=[name])
        np.testing.assert_allclose(found[name][at, 0], cache[name][0, 6], atol=1e-10)


def test_killed_while_it_begins_it_can_begin_again(tmp_path, model, monkeypatch):
    place = written(tmp_path / "rows.jsonl", pairs([6, 6]))
    with monkeypatch.context() as patch:
        patch.setattr(collecting, "_keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            analyses.collect(model, place, out=tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()
    (tmp_path / "a.zarr").mkdir()
    analyses.collect(model, place, out=tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "done.json").write_text('{"rows": -5}')
    with pytest.raises(InterpError, match="no collection that can go on"):
        analyses.collect(model, place, out=tmp_path / "a.zarr")


def test_only_the_same_collection_goes_on(tmp_path, model):
    """With the same weights as other heads, the same ids in rows of another length, the same rows at other places."""
    name, out = "hook_embed", tmp_path / "a.zarr"
    rows = [[5, 6, 7, 8], [9, 10, 11, 12]]
    analyses.collect(model, rows, names=name, out=out)
    heads = Transformer(replace(model.config, n_heads=4, d_head=4)).requires_grad_(False).to(model.dtype)
    heads.load_state_dict(model.state_dict())
    assert heads.weight_hash() == model.weight_hash()
    others = [
        (heads, rows, "architecture"),
        (model, [[5, 6], [7, 8], [9, 10], [11, 12]], "tokens, rows"),
        (model, [[1] * 99, *rows], "rows"),
    ]
    for other, given, differs in others:
        with pytest.raises(InterpError, match=f"its {differs} differ"):
            analyses.collect(other, given, names=name, out=out, most_rejected=0.5)
    with pytest.raises(ResultError, match="other architecture than"):
        Activations(out).check_model(heads)


@pytest.mark.parametrize("said", ["true", "0.5", '"1"', "-1", "99"])
def test_a_damaged_count_of_rows_is_named(tmp_path, model, said):
    out = analyses.collect(model, [[5, 6]], names="hook_embed", out=tmp_path / "a.zarr")
    (out / "done.json").write_text(f'{{"rows": {said}}}')
    with pytest.raises(InterpError, match="no collection that can go on"):
        analyses.collect(model, [[5, 6]], names="hook_embed", out=out)
    (out / "done.json").unlink()
    os.mkfifo(out / "done.json")
    with pytest.raises(InterpError, match="no collection that can go on"):
        analyses.collect(model, [[5, 6]], names="hook_embed", out=out)


def test_where_a_collection_cannot_be(tmp_path, model, monkeypatch):
    for name in ("a\0.zarr", "a" * 300 + ".zarr"):
        with pytest.raises(InterpError, match="cannot name a folder"):
            analyses.collect(model, [[5, 6]], names="hook_embed", out=tmp_path / name)
    (tmp_path / "link.zarr").symlink_to(tmp_path / "real.zarr")
    assert analyses.collect(model, [[5, 6]], names="hook_embed", out=tmp_path / "link.zarr") == tmp_path / "real.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(collecting, "_keep", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(InterpError, match=r"the beginning cannot be written to .*b\.zarr: No space left"):
            analyses.collect(model, [[5, 6]], names="hook_embed", out=tmp_path / "b.zarr")
    assert not (tmp_path / "b.zarr").exists()
    begin = collecting._begin

    def beaten(*given):
        begin(*given)
        monkeypatch.setattr(collecting, "_begin", begin)
        analyses.collect(model, [[5, 6]], names="hook_embed", out=tmp_path / "c.zarr")

    monkeypatch.setattr(collecting, "_begin", beaten)
    with pytest.raises(InterpError, match="was begun by another call meanwhile"):
        analyses.collect(model, [[5, 6]], names="hook_embed", out=tmp_path / "c.zarr")


def test_values_beyond_half_precision_are_named(tmp_path, model):
    with torch.no_grad():
        model.W_E *= 1e7
    with pytest.raises(ResultError, match="which float16 cannot hold; give dtype float32"):
        analyses.collect(
            model,
            written(tmp_path / "rows.jsonl", pairs([6])),
            names="hook_embed",
            out=tmp_path / "a.zarr",
            dtype="float16",
        )


def test_no_rows_and_no_zarr_are_named(tmp_path, model, monkeypatch):
    with pytest.raises(ResultError, match="no row to collect"):
        analyses.collect(model, [], out=tmp_path / "a.zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(InterpError, match=r'need the package zarr.*pip install "criticalpile\[scale\]"'):
        Activations(tmp_path / "a.zarr")
