"""What a survey found, summed up: the same numbers as the analysis over all prompts at once, in memory that does not grow with them."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from conftest import TINY, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from survey_data import pairs, plain, written

import analyses
from analyses.averaged import prompts_in
from analyses.intervals import bootstrap_mean, over_prompts
from analyses.survey import SURVEYED, moments
from analyses.survey.moments import Moments
from interp.errors import ResultError

GAP = {"smallest_gap": 1e-3}
OPTIONS = {
    "activation_patching": GAP, "attribution_patching": {**GAP, "site": "resid_pre"}, "edge_patching": {"layers": [1], **GAP},
    "edge_attribution": {"method": ["eap", "relp"]}, "cascade.gain": {"n_directions": 2}, "cascade.coupled": {"seeds": 2, "steps": 4},
}  # fmt: skip
SHALLOW = replace(TINY, n_layers=2)
ENDS = ("_mean", "_standard_error", "_interval")


def surveyed(folder, analysis, lengths, model=None, **options) -> tuple[xr.Dataset, xr.Dataset]:
    """A summary, and the plain call over all rows at once."""
    model, rows = model or tiny(config=SHALLOW), pairs(lengths)
    options = OPTIONS.get(analysis, {}) | options
    analyses.survey(
        model, written(folder / "rows.jsonl", rows), analysis, out=folder / "s", options=options, shard_rows=3
    )
    return analyses.summarise(folder / "s"), plain(model, analysis, rows, options)


@pytest.mark.parametrize("lengths", [[8] * 7, [8, 9, 8, 12, 9, 8, 8]], ids=["equal", "unequal"])
@pytest.mark.parametrize("analysis", [name for name in SURVEYED if name not in ("tuned_lens", "cascade.gain")])
def test_a_summary_is_the_plain_call_over_all_rows(tmp_path, analysis, lengths):
    found, whole = surveyed(tmp_path, analysis, lengths)
    stated = [str(name) for name in whole.data_vars if str(name).endswith(ENDS)]
    assert stated == [name for name in stated if name in found]
    for name in stated:
        mine, wanted = found[name], whole[name]
        assert mine.attrs == wanted.attrs, name
        np.testing.assert_allclose(mine, wanted.transpose(*mine.dims), 1e-6, 1e-9, err_msg=name)
    for name in ("effect", "head_effect", "kl", "entropy", "estimate"):
        if name in whole and len(set(lengths)) == 1:
            np.testing.assert_allclose(
                found[name], whole[name].mean("prompt").expand_dims("prompt", whole[name].dims.index("prompt")), 1e-5
            )
    assert prompts_in(found) == 7
    assert found["averaged_tokens"].to_numpy().tolist() == [min(lengths), max(lengths)]
    analyses.save(found, tmp_path / "summary.nc")
    figure = analyses.plot(analyses.load(tmp_path / "summary.nc"))
    drawn = figure.layout.title.text
    assert "7 p" in drawn or analysis == "detect_heads", drawn
    assert any(
        len(np.ravel(getattr(trace, "z", None) if getattr(trace, "z", None) is not None else trace.y))
        for trace in figure.data
    )


def test_a_gain_is_the_geometric_mean_of_its_rows(tmp_path):
    model, rows = tiny(config=SHALLOW), pairs([8] * 7)
    options = OPTIONS["cascade.gain"]
    analyses.survey(
        model, written(tmp_path / "rows.jsonl", rows), "cascade.gain", out=tmp_path / "s", options=options, shard_rows=4
    )
    found = analyses.summarise(tmp_path / "s")
    each = xr.concat(
        [plain(model, "cascade.gain", [row], options, n) for n, row in enumerate(rows)], "prompt", data_vars="all"
    )
    np.testing.assert_allclose(found["reproduction"][0], np.exp(np.log(each["reproduction"]).mean("prompt")))
    np.testing.assert_allclose(found["log_gain_interval"], bootstrap_mean(each["log_gain"].to_numpy()))
    np.testing.assert_allclose(
        found["log_reproduction_interval"], bootstrap_mean(np.log(each["reproduction"].to_numpy()))
    )
    np.testing.assert_allclose(found["log_gain"][0], each["log_gain"].mean("prompt"))
    assert "mean over 7 prompts; bands: 95 %" in analyses.plot(found).layout.title.text


def test_pairs_without_an_effect_are_counted_apart(tmp_path, model):
    rows = pairs([8] * 8)
    rows[3]["corrupt"] = rows[3]["clean"]
    options = {"site": "z", "smallest_gap": 0.0}
    analyses.survey(
        model, written(tmp_path / "rows.jsonl", rows), "activation_patching", out=tmp_path / "s", options=options
    )
    found, whole = analyses.summarise(tmp_path / "s"), plain(model, "activation_patching", rows, options)
    for end in ENDS:
        xr.testing.assert_allclose(found[f"effect{end}"], whole[f"effect{end}"])
        assert found[f"effect{end}"].attrs == whole[f"effect{end}"].attrs
    assert "mean over 7 of 8 pairs" in analyses.plot(found).layout.title.text


def test_by_a_label(tmp_path, model):
    rows = pairs([8] * 14)
    options = {"site": "z", **GAP}
    analyses.survey(
        model,
        written(tmp_path / "rows.jsonl", rows),
        "activation_patching",
        out=tmp_path / "s",
        options=options,
        shard_rows=4,
    )
    found = analyses.summarise(tmp_path / "s", by="kind")
    assert found["group"].to_numpy().tolist() == ["a", "b"]
    for name in "ab":
        mine = found.sel(group=name)
        whole = plain(model, "activation_patching", [row for row in rows if row["kind"] == name], options)
        np.testing.assert_allclose(mine["effect_interval"], whole["effect_interval"], 1e-6, 1e-9)
        assert "mean over 7 pairs" in analyses.plot(mine).layout.title.text
    analyses.save(found, tmp_path / "groups.nc")
    with pytest.raises(ResultError, match=r"choose one by result.sel\(group=...\): 'a', 'b'"):
        analyses.plot(analyses.load(tmp_path / "groups.nc"))
    assert analyses.summarise(tmp_path / "s", by=["kind", "number"])["group"].to_numpy()[0] == "a, 0"
    with pytest.raises(ResultError, match="there is no label 'sort'; there are row"):
        analyses.summarise(tmp_path / "s", by="sort")
    with pytest.raises(ResultError, match="no prompt 3 by itself"):
        analyses.plot(analyses.summarise(tmp_path / "s"), prompt=3)


def test_what_is_not_finished_or_no_survey_is_named(tmp_path, model):
    with pytest.raises(ResultError, match="is no folder of a survey"):
        analyses.summarise(tmp_path)
    surveyed(tmp_path, "activation_patching", [8] * 3, model)
    (tmp_path / "s" / "manifest.json").unlink()
    with pytest.raises(ResultError, match="is not finished"):
        analyses.summarise(tmp_path / "s")


def test_a_report_of_summaries(tmp_path, model):
    from analyses.report.saved import load_folder, write_saved

    found, _ = surveyed(tmp_path, "activation_patching", [8] * 7, model)
    analyses.save(found, tmp_path / "heads.nc")
    write_saved(load_folder(tmp_path), tmp_path / "page.html")
    assert "mean over 7 pairs" in (tmp_path / "page.html").read_text()


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(2, 40), cut=st.integers(1, 9), seed=st.integers(0, 99), share=st.booleans(), binary=st.booleans(),
    missing=st.booleans(), held=st.sampled_from([0, 10**9]),
)  # fmt: skip
def test_moments_in_parts_are_those_of_all(n, cut, seed, share, binary, missing, held):
    rng = np.random.default_rng(seed)
    values = (rng.random((n, 3)) < 0.3).astype(float) if binary else rng.random((n, 3))
    if missing:
        values[rng.integers(n), 0] = np.nan
    before, moments.HELD = moments.HELD, held
    try:
        found = Moments(True, share)
        for start in range(0, n, cut):
            found.add(values[start : start + cut], np.arange(start, min(start + cut, n)))
    finally:
        moments.HELD = before
    whole = over_prompts("x", values, ("cell",), "", "1", share=share)
    np.testing.assert_allclose(found.of_all(), whole["x_mean"][1], atol=1e-12)
    np.testing.assert_allclose(found.standard_error(), whole["x_standard_error"][1], atol=1e-12)
    if held or (share and binary and not missing):  # else by other draws
        np.testing.assert_allclose(found.bounds(), whole["x_interval"][1])
    else:
        assert (np.isnan(found.bounds()) == np.isnan(whole["x_interval"][1])).all()


def test_streamed_intervals_cover_as_drawn_ones_do():
    rng = np.random.default_rng(0)
    values = rng.lognormal(size=(4000, 8))
    found = Moments(True)
    found._drawn = moments._Drawn((8,))
    for start in range(0, 4000, 300):
        found.add(values[start : start + 300], np.arange(start, min(start + 300, 4000)))
    width, wanted = np.ptp(found.bounds(), axis=0), np.ptp(bootstrap_mean(values), axis=0)
    np.testing.assert_allclose(width, wanted, rtol=0.12)
    np.testing.assert_allclose(found.bounds().mean(0), bootstrap_mean(values).mean(0), atol=float(wanted.max()) * 0.1)


def test_poisson_draws_have_mean_and_variance_one():
    drawn = np.concatenate([moments.times_drawn(block).ravel() for block in range(4)]).astype(float)
    assert abs(drawn.mean() - 1) < 0.003
    assert abs(drawn.var() - 1) < 0.006


def test_memory_does_not_grow_with_the_prompts():
    found = Moments(True)
    sizes = []
    for start in range(0, 60_000, 3000):
        found.add(np.ones((3000, 50)), np.arange(start, start + 3000))
        sizes.append(
            sum(part.nbytes for part, _ in found._held) + (0 if found._drawn is None else found._drawn.total.nbytes)
        )
    assert max(sizes) <= moments.HELD + 2000 * 50 * 8
    assert sizes[-1] == 2000 * 50 * 8
    assert found.n == 60_000
    np.testing.assert_allclose(found.bounds(), 1)
