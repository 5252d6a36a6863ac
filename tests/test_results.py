"""Results: provenance, saving, loading."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import random_tokens, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import analyses
from analyses.intervals import bootstrap_mean
from analyses.results import _rows
from interp import Transformer
from interp.errors import InterpError, ResultError

PROMPT = "When Mary and John went to the store"


@pytest.fixture(scope="module")
def lens(smalltown):
    return analyses.logit_lens(smalltown, [PROMPT, "\0<b>\n🎉"], candidates=[" Mary"])


def test_provenance(smalltown, lens):
    attrs = lens.attrs
    assert (attrs["kind"], attrs["schema_version"], attrs["model"]) == ("logit_lens", 1, "smalltown")
    assert attrs["weight_hash"] == smalltown.weight_hash()
    assert attrs["tokenizer_hash"] == smalltown.tokenizer.hash()
    assert json.loads(attrs["prompts"])["prompt"][0] == f"<|endoftext|>{PROMPT}"
    assert json.loads(attrs["parameters"])["candidates"] == [" Mary"]
    assert {"python", "torch", "criticalpile"} <= set(json.loads(attrs["versions"]))
    assert all("units" in lens[v].attrs and "long_name" in lens[v].attrs for v in lens.data_vars)


def test_round_trip_and_dataframe(lens, tmp_path):
    path = tmp_path / "lens.nc"
    analyses.save(lens, path)
    again = analyses.load(path)
    xr.testing.assert_identical(again, lens)
    assert analyses.plot(again).data
    assert len(lens[["entropy"]].to_dataframe()) == lens["entropy"].size


def test_an_existing_file_is_kept(lens, tmp_path):
    path = tmp_path / "lens.nc"
    path.write_text("mine")
    with pytest.raises(InterpError, match="exists already and is kept"):
        analyses.save(lens, path)
    assert path.read_text() == "mine"
    analyses.save(lens, path, overwrite=True)
    assert analyses.load(path).attrs["kind"] == "logit_lens"
    assert [p.name for p in tmp_path.iterdir()] == ["lens.nc"]


def test_files_that_are_no_results(lens, tmp_path):
    (tmp_path / "text.nc").write_text("no result")
    xr.Dataset({"x": ("y", np.arange(3))}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    newer = lens.copy()
    newer.attrs["schema_version"] = 99
    newer.to_netcdf(tmp_path / "newer.nc", engine="h5netcdf")
    whole = (tmp_path / "newer.nc").read_bytes()
    (tmp_path / "damaged.nc").write_bytes(whole[: len(whole) // 2])
    for name, message in {
        "absent": "absent.nc cannot be read: there is no such file",
        "text": "cannot be read as a result",
        "damaged": "cannot be read as a result",
        "other": "no kind",
        "newer": "version 99",
    }.items():
        with pytest.raises(ResultError, match=message):
            analyses.load(tmp_path / f"{name}.nc")
    with pytest.raises(ResultError, match="it is a folder"):
        analyses.load(tmp_path)
    with pytest.raises(ResultError, match="no figure for a result of kind 'None'"):
        analyses.plot(xr.Dataset())
    with pytest.raises(ResultError, match="no kind"):
        analyses.save(xr.Dataset(), tmp_path / "x.nc")


def test_a_model_without_tokenizer_labels_by_id(tmp_path):
    result = analyses.logit_lens(tiny(), random_tokens(1, 4))
    assert str(result["token"].to_numpy()[0, 0]) == "#44"
    analyses.save(result, tmp_path / "x.nc")
    assert analyses.plot(analyses.load(tmp_path / "x.nc")).data


@pytest.mark.parametrize("prompts", [6, 8, 12, 30])
def test_intervals_cover_as_often_as_they_say(prompts):
    """2000 experiments are the cells of one array; the standard error of the coverage is 0.5 %."""
    values = np.random.default_rng(prompts).normal(3.0, 2.0, (prompts, 2000))
    low, high = bootstrap_mean(values)
    assert 0.92 <= ((low <= 3) & (high >= 3)).mean() <= 0.98


def test_too_few_prompts_have_no_interval():
    assert np.isnan(bootstrap_mean(np.random.default_rng(0).normal(size=(5, 3)))).all()


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        ([0, 173, 30], [0, 173, 30]),  # 173 is a byte that is no character by itself
        ([0, 1368], "<|endoftext|>Mary"),
        ([1368], [1368]),  # its text would get BOS
        ([0, 45, 46, 47], None),
        ([0, 1368, 0, 1368], "<|endoftext|>Mary<|endoftext|>Mary"),
    ],
)
def test_provenance_gives_the_ids_back(smalltown, tmp_path, ids, kept):
    tokens = torch.tensor([ids, [*ids, 30][1:] if len(ids) == 1 else ids])
    result = analyses.logit_lens(smalltown, tokens)
    analyses.save(result, tmp_path / "lens.nc")
    for row, entry in zip(
        tokens, json.loads(analyses.load(tmp_path / "lens.nc").attrs["prompts"])["prompt"], strict=True
    ):
        again = smalltown.to_tokens(entry if isinstance(entry, str) else torch.tensor(entry))
        assert again[0].tolist() == row.tolist()
    entry = json.loads(result.attrs["prompts"])["prompt"][0]
    assert kept is None or entry == kept


@settings(max_examples=60, deadline=None)
@given(ids=st.lists(st.integers(0, 1479), min_size=1, max_size=6))
def test_provenance_of_any_ids_gives_them_back(smalltown, ids):
    (entry,) = _rows(smalltown, torch.tensor([ids]))
    again = smalltown.to_tokens(entry if isinstance(entry, str) else torch.tensor(entry))
    assert again[0].tolist() == ids


def test_a_padded_vocabulary_shows_its_numbers(smalltown, tmp_path):
    """Rows that no token belongs to are asked for, predicted, followed and shown like any other."""
    size = smalltown.config.d_vocab
    model = Transformer(replace(smalltown.config, d_vocab=size + 63), tokenizer=smalltown.tokenizer, name="padded")
    state = smalltown.state_dict()
    rows = torch.zeros(63, smalltown.config.d_model)
    rows[5] = 1.1 * state["W_E"][smalltown.to_single_token(" Paris")]  # leads where Paris would
    model.load_state_dict(state | {"W_E": torch.cat([state["W_E"], rows])})
    model.requires_grad_(False).eval()
    prompt, ghost = "The capital of France is", f"#{size + 5}"
    lens = analyses.logit_lens(model, prompt, candidates=[size + 5, " Paris"])
    assert str(lens["top_token"][0, -1, -1, 0].item()) == ghost
    assert lens["candidate"].to_numpy().tolist() == [ghost, " Paris"]
    patch = analyses.activation_patching(model, prompt, "The capital of Italy is", answer=size + 5, wrong=" Rome")
    for result in (lens, patch, analyses.direct_logit_attribution(model, prompt, answer=size + 5, wrong=" Paris"),
                   analyses.causal_tracing(model, prompt, subject="France", draws=2)):  # fmt: skip
        assert analyses.plot(result).data
        analyses.save(result, tmp_path / f"{result.attrs['kind']}.nc")
    assert analyses.embedding_structure(model, tokens=[size + 5]).attrs["kind"] == "embedding_structure"
    inside = model.to_tokens(prompt)
    inside[0, 2] = size + 9
    shown = analyses.logit_lens(model, inside)
    assert shown["token"][0].to_numpy().tolist()[2] == f"#{size + 9}"
    assert json.loads(shown.attrs["prompts"])["prompt"] == inside.tolist()
    scored = analyses.detect_heads(model, length=20, count=2)
    assert int(scored["token_id"].max()) < size
