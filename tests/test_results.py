"""Results: provenance, saving, loading."""

import json

import numpy as np
import pytest
import xarray as xr
from conftest import random_tokens, tiny

import analyses
from analyses.intervals import bootstrap_mean
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
    for name, message in {
        "absent": "cannot be read",
        "text": "cannot be read",
        "other": "no kind",
        "newer": "version 99",
    }.items():
        with pytest.raises(ResultError, match=message):
            analyses.load(tmp_path / f"{name}.nc")
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
