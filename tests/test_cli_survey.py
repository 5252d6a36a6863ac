"""`interp survey` and `interp collect`, as a user types them."""

import re
from types import SimpleNamespace

import pytest
from survey_data import pairs, table, written
from test_cli import run

import analyses
import interp
from analyses.survey import running
from interp.progress import progress_bar


def test_a_survey_its_summary_and_its_page(monkeypatch, capsys, tmp_path, small_checkpoint):
    words = [
        "survey", "task:ioi:9", "--analysis", "activation_patching", "--set", "site=z", "--set", "smallest_gap=1e-6",
        "--set", "layers=[0, 2]",
        "--model", small_checkpoint, "--out", tmp_path / "s", "--shard-rows", 4, "--save", tmp_path / "heads.nc",
    ]  # fmt: skip
    status, out, err = run(monkeypatch, capsys, *words)
    assert status == 0, err
    assert re.search(r"measured\W+9\b", out)
    assert re.search(r"activation_patching, [\d.]+ rows/s", err)
    assert set(table(tmp_path / "s", "layer-head")["layer"]) == {0, 2}
    assert int(analyses.load(tmp_path / "heads.nc")["averaged_prompts"]) == 9
    status, out, err = run(monkeypatch, capsys, *words)
    assert "overwritten by --force" in err
    status, out, err = run(monkeypatch, capsys, *words, "--force", "--by", "answer")
    assert status == 0, err
    assert analyses.load(tmp_path / "heads.nc").sizes["group"] > 1
    words[5] = "site=q"
    status, out, err = run(monkeypatch, capsys, *words, "--force")
    assert (status, 'options.site was "z" and is "q"' in err) == (1, True)
    status, out, err = run(
        monkeypatch, capsys, "report", "--results", tmp_path, "--out", tmp_path / "page.html", "--force"
    )
    assert status != 0
    assert "sel(group=" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "site"], "write NAME=VALUE"),
        (["--set", "site=z", "--set", "site=q"], "given twice"),
        (["--set", "site=x"], "site 'x' is not supported"),
        (["--workers", "0"], "--workers"),
        (["--most-rejected", "2"], "--most-rejected"),
    ],
)
def test_what_cannot_be_asked_on_the_command_line(monkeypatch, capsys, tmp_path, small_checkpoint, words, says):
    asked = [
        "survey",
        "task:ioi:2",
        "--analysis",
        "activation_patching",
        "--model",
        small_checkpoint,
        "--out",
        tmp_path / "s",
    ]
    status, _, err = run(monkeypatch, capsys, *asked, *words)
    assert status != 0
    assert says in " ".join(err.replace("│", " ").split())


def test_activations_and_a_lens_on_them(monkeypatch, capsys, tmp_path, small_checkpoint):
    pytest.importorskip("zarr", reason="Zarr is not installed")
    model = interp.load(small_checkpoint)
    place, acts = written(tmp_path / "rows.jsonl", pairs([8] * 12, vocab=model.config.d_vocab)), tmp_path / "acts.zarr"
    status, out, err = run(
        monkeypatch, capsys, "collect", place, "--model", small_checkpoint, "--out", acts, "--dtype", "float16"
    )
    assert status == 0, err
    assert f"Activations: {acts}" in out
    lens = tmp_path / "lens.safetensors"
    status, out, err = run(
        monkeypatch, capsys, "train-lens", acts, "--model", small_checkpoint, "--steps", 2, "--out", lens
    )
    assert status == 0, err
    assert lens.exists()


def test_the_rate_is_that_of_the_rows_so_far(monkeypatch):
    clock = iter([100.0, 104.0, 110.0])
    monkeypatch.setattr(running, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    with progress_bar(False) as bar, running._rate(bar, "logit_lens", 50) as advance:
        advance(20)
        assert bar.tasks[0].description == "logit_lens, 5.0 rows/s"
        advance(20)
        assert bar.tasks[0].description == "logit_lens, 4.0 rows/s"
        assert (bar.tasks[0].completed, bar.tasks[0].total) == (40, 50)
