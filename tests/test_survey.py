"""An analysis over a data set equals the plain calls row for row, whatever the data set came in and however often it was stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import TINY, tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from survey_data import holds, pairs, plain, same_tables, table, written

import analyses
import interp
from analyses.survey.surveyed import SURVEYED
from interp.errors import HookError, InterpError, ResultError

HEADS = {"site": "z", "smallest_gap": 1e-3}
GAP = {"smallest_gap": 1e-3}
OPTIONS = {
    "activation_patching": GAP,
    "attribution_patching": GAP,
    "edge_patching": {"layers": [1], **GAP},
    "cascade.gain": {"n_directions": 2},
    "cascade.coupled": {"seeds": 2, "steps": 4},
}
CAUSAL = replace(TINY, n_layers=2)


@pytest.mark.parametrize("analysis", [name for name in SURVEYED if name != "tuned_lens"])
def test_every_row_is_that_of_a_plain_call(tmp_path, analysis):
    model, rows = tiny(config=CAUSAL), pairs([8, 9, 8, 12, 9])
    options = OPTIONS.get(analysis, {})
    found = analyses.survey(
        model, written(tmp_path / "rows.parquet", rows), analysis, out=tmp_path / "s", options=options, shard_rows=3
    )
    assert (found["rows"], found["accepted"], found["rejected"]) == (5, 5, 0)
    for number, row in enumerate(rows):
        holds(tmp_path / "s", number, plain(model, analysis, [row], options, number))


def test_a_tuned_lens_of_a_file(tmp_path):
    model, rows = tiny(dtype=torch.float32), pairs([8, 9, 8])
    lens = tmp_path / "lens.safetensors"
    analyses.train_tuned_lens(model, torch.randint(0, 50, (8, 12)), steps=1, rows=2, length=12, out=lens)
    analyses.survey(
        model, written(tmp_path / "rows.jsonl", rows), "tuned_lens", out=tmp_path / "s", options={"lens": str(lens)}
    )
    for number, row in enumerate(rows):
        holds(tmp_path / "s", number, analyses.tuned_lens(model, [row["clean"]], lens=lens), 1e-4)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(3, 24), min_size=1, max_size=9), seed=st.integers(0, 99), shard_rows=st.integers(1, 5),
    site=st.sampled_from(["z", "resid_pre", "mlp_post", "pattern"]), budget=st.integers(1, 2**22),
)  # fmt: skip
def test_rows_do_not_depend_on_shards_and_batches(tmp_path_factory, lengths, seed, shard_rows, site, budget):
    folder = tmp_path_factory.mktemp("survey")
    model, rows = tiny(seed, config=CAUSAL), pairs(lengths, seed)
    options = {"site": site, "smallest_gap": 0.0}
    analyses.survey(
        model, written(folder / "rows.jsonl", rows), "activation_patching", out=folder / "s", options=options, shard_rows=shard_rows,
        max_bytes=budget,
    )  # fmt: skip
    for number, row in enumerate(rows):
        holds(folder / "s", number, plain(model, "activation_patching", [row], options))


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv", "datasets", "dataset dict"])
def test_every_form_of_a_data_set(tmp_path, small_checkpoint, form):
    model = interp.load(small_checkpoint)
    some = interp.zoo.task("ioi").sample(4, 0, model.tokenizer)
    rows = [
        {"clean": p.clean, "corrupt": p.corrupt, "answer": p.answer, "wrong": p.wrong, "who": n}
        for n, p in enumerate(some)
    ]
    place = tmp_path / f"rows.{form}"
    if form == "csv":
        pa_table = pa.Table.from_pylist(rows)
        import pyarrow.csv

        pyarrow.csv.write_csv(pa_table, place)
    elif form.startswith("dataset"):
        datasets = pytest.importorskip("datasets")
        every = datasets.Dataset.from_list(rows)
        place = tmp_path / "rows"
        if form == "dataset dict":
            datasets.DatasetDict({"train": every}).save_to_disk(place)
            with pytest.raises(InterpError, match=r"several splits.*train"):
                analyses.survey(model, place, "activation_patching", out=tmp_path / "s")
            place = place / "train"
        else:
            every.select([2, 0, 3, 1]).select([1, 3, 0, 2]).save_to_disk(place)
    else:
        written(place, rows)
    options = {"site": "z", "smallest_gap": 0.0}
    found = analyses.survey(model, place, "activation_patching", out=tmp_path / "s", options=options)
    assert found["accepted"] == 4
    assert table(tmp_path / "s", "prompts")["who"].tolist() == [0, 1, 2, 3]
    of_task = analyses.survey(model, "task:ioi:4", "activation_patching", out=tmp_path / "t", options=options)
    assert of_task["accepted"] == 4
    columns = ["row", "layer", "head", "value"]
    assert table(tmp_path / "t", "layer-head")[columns].equals(table(tmp_path / "s", "layer-head")[columns])
    for number, row in enumerate(rows):
        holds(tmp_path / "s", number, plain(model, "activation_patching", [row], options), 1e-4)


def test_tables_say_what_they_are(tmp_path, model):
    rows = pairs([6, 8])
    analyses.survey(
        model, written(tmp_path / "rows.parquet", rows), "activation_patching", out=tmp_path / "s", options=GAP
    )
    found = table(tmp_path / "s", "layer-position")
    assert {"row", "layer", "position", "effect", "value", "clean_token", "corrupt_token", "kind", "number"} <= set(
        found.columns
    )
    assert len(found) == 3 * (6 + 8)  # positions that the shorter prompt does not have are no rows
    assert not found["effect"].isna().any()
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    (shard,) = manifest["shards"]
    assert manifest["request"]["model"]["weight_hash"] == model.weight_hash()
    assert shard["files"]["layer-position/000000.parquet"]["rows"] == len(found)
    assert shard["versions"]["torch"] == torch.__version__
    assert shard["lengths"] == [6, 8]


def bad_rows() -> list[dict]:
    rows = pairs([8, 8, 8, 30, 8, 8, 8, 8])
    rows[1]["corrupt"] = rows[1]["corrupt"][:-1]
    rows[2]["answer"] = None
    rows[4]["clean"] = [99, *rows[4]["clean"][1:]]
    rows[5]["corrupt"] = rows[5]["clean"]  # equal runs, which only the measurement finds
    rows[6]["answer"] = 50
    return rows


def test_bad_rows_are_put_aside_with_the_reason(tmp_path, model):
    rows = bad_rows()
    found = analyses.survey(
        model,
        written(tmp_path / "rows.jsonl", rows),
        "activation_patching",
        out=tmp_path / "s",
        options=HEADS,
        most_rejected=1.0,
    )
    aside = table(tmp_path / "s", "rejected.parquet").set_index("row")["reason"]
    assert (found["accepted"], found["rejected"]) == (2, 6)
    for number, reason in {
        1: "clean prompt has 8 tokens and the corrupt one 7", 2: "answer is missing", 3: "30 tokens", 4: "out of range",
        5: "nearly the same", 6: "out of range",
    }.items():  # fmt: skip
        assert reason in aside[number]
    assert sorted(table(tmp_path / "s", "prompts")["row"]) == [0, 7]
    for number in (0, 7):
        holds(tmp_path / "s", number, plain(model, "activation_patching", [rows[number]], HEADS))


def test_an_answer_of_several_tokens_is_put_aside(tmp_path, small_checkpoint):
    rows = [
        {
            "clean": "Mary went",
            "corrupt": "John went",
            "answer": " Mary John",
            "wrong": " John",
            "row": 3,
            "reason": "x",
        }
    ]
    model = interp.load(small_checkpoint)
    with pytest.raises(ResultError, match=r"1 of 1 rows so far were put aside, more than 10%"):
        analyses.survey(model, written(tmp_path / "rows.jsonl", rows), "activation_patching", out=tmp_path / "s")
    aside = table(tmp_path / "s", "rejected.parquet")
    assert "token" in aside["reason"][0]
    assert aside["row_"][0] == 3


def test_too_many_bad_rows_stop_it_and_the_same_call_goes_on(tmp_path, model):
    place, call = written(tmp_path / "rows.jsonl", bad_rows()), {"options": HEADS, "shard_rows": 4}
    with pytest.raises(ResultError, match=r"6 of 8 rows so far.*most_rejected"):
        analyses.survey(model, place, "activation_patching", out=tmp_path / "s", most_rejected=0.5, **call)
    assert (
        analyses.survey(model, place, "activation_patching", out=tmp_path / "s", most_rejected=0.75, **call)["rejected"]
        == 6
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"options": HEADS | {"site": "q"}}, r"options\.site was \"z\" and is \"q\""),
        ({"shard_rows": 3}, "shard_rows was 2 and is 3"),
        ({"analysis": "edge_patching"}, 'analysis was "activation_patching" and is "edge_patching"'),
        ({"model": 1}, "model.weight_hash was"),
        ({"rows": [8, 8, 9]}, "data.files.rows.jsonl was"),
    ],
)
def test_another_request_is_refused_with_what_differs(tmp_path, change, says):
    def run(analysis="activation_patching", rows=(8, 8, 8), model=0, options=None, shard_rows=2):
        place = written(tmp_path / "rows.jsonl", pairs(rows))
        given = HEADS if options is None and analysis == "activation_patching" else options
        return analyses.survey(tiny(model), place, analysis, out=tmp_path / "s", options=given, shard_rows=shard_rows)

    run()
    before = table(tmp_path / "s", "layer-head")
    run()
    with pytest.raises(InterpError, match=says):
        run(**change)
    assert table(tmp_path / "s", "layer-head").equals(before)


def test_a_damaged_shard_is_done_again_and_only_that(tmp_path, model):
    place, out = written(tmp_path / "rows.jsonl", pairs([8] * 6)), tmp_path / "s"

    def run():
        return analyses.survey(model, place, "activation_patching", out=out, options=HEADS, shard_rows=2)

    run()
    files = [out / "layer-head" / f"{n:06d}.parquet" for n in range(3)]
    before, times = [file.read_bytes() for file in files], [file.stat().st_mtime_ns for file in files]
    files[1].write_bytes(before[1][:-7])
    with pytest.raises(ResultError, match="shard 1 are not those that were written"):
        analyses.summarise(out)
    run()
    assert [file.read_bytes() for file in files] == before
    assert [file.stat().st_mtime_ns == then for file, then in zip(files, times, strict=True)] == [True, False, True]


SCRIPT = """
import sys, analyses
sys.path.insert(0, {tests!r})
from conftest import tiny
analyses.survey(tiny(), {place!r}, "activation_patching", out={out!r}, options={options!r}, shard_rows=2)
"""


def killed_at(code: str, out: Path, shards: int, wait: float) -> bool:
    """Run a script and kill it that long after so many shards are done; whether it was still running."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list((out / "shards").glob("*.json"))) < shards:
        time.sleep(0.002)
    time.sleep(wait)
    running = process.poll() is None
    if running:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return running


def test_killed_at_any_moment_it_goes_on_to_the_same_rows(tmp_path, model):
    place = written(tmp_path / "rows.jsonl", pairs([8, 9] * 16))
    whole, out = tmp_path / "whole", tmp_path / "s"
    analyses.survey(model, place, "activation_patching", out=whole, options=HEADS, shard_rows=2)
    code = SCRIPT.format(tests=str(Path(__file__).parent), place=str(place), out=str(out), options=HEADS)
    assert killed_at(code, out, 3, float(np.random.default_rng().uniform(0, 0.02)))
    done = {path.name: path.stat().st_mtime_ns for path in (out / "shards").glob("*.json")}
    assert 3 <= len(done) < 16
    analyses.survey(model, place, "activation_patching", out=out, options=HEADS, shard_rows=2)
    same_tables(whole, out)
    assert {name: (out / "shards" / name).stat().st_mtime_ns for name in done} == done
    assert not list(out.rglob("*.criticalpile"))


@pytest.mark.parametrize(
    ("analysis", "options", "says"),
    [
        ("logit_len", {}, "Did you mean 'logit_lens'"),
        ("activation_patching", {"sight": "z"}, "Did you mean 'site'"),
        ("activation_patching", {"answer": 3}, "the data set or the survey gives it"),
        ("activation_patching", {"replacement": "mean"}, "a row would depend on others; give reference"),
        ("direct_logit_attribution", {"ablation": "mean"}, "a row would depend on others; choose another"),
        ("edge_attribution", {"verify": 5}, "takes verify=0"),
        ("activation_patching", {"metric": torch.nn.ReLU()}, "has no JSON value"),
    ],
)
def test_what_cannot_be_asked_is_named(tmp_path, model, analysis, options, says):
    place = written(tmp_path / "rows.jsonl", pairs([8]))
    with pytest.raises(InterpError, match=says):
        analyses.survey(model, place, analysis, out=tmp_path / "s", options=options)
    assert not (tmp_path / "s").exists()


def test_data_sets_that_cannot_be_read_are_named(tmp_path, model):
    def refused(place, says):
        with pytest.raises(InterpError, match=says):
            analyses.survey(model, place, "activation_patching", out=tmp_path / "s")

    (tmp_path / "bad.jsonl").write_text('{"clean": [1]}\n{"clean": \n')
    (tmp_path / "other.jsonl").write_text('{"clean": [1], "corrupt": [1], "answer": 1}\n' * 4096 + '{"more": 1}\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bad.parquet").write_text("no Parquet")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "bad.jsonl", "line 2 of .* is no JSON")
    refused(tmp_path / "missing.parquet", "No such file")
    refused(tmp_path / "rows.txt", "is no data set")
    refused("task:ioi", "task:NAME:COUNT")
    refused("task:iou:5", "Did you mean 'ioi'")
    for name, says in (("bad.parquet", "cannot be read as parquet"), ("folder", "state.json"), ("empty.jsonl", "no rows"),
                       ("other.jsonl", "a column 'more'")):  # fmt: skip
        with pytest.raises(InterpError, match=says):
            analyses.survey(model, tmp_path / name, "activation_patching", out=tmp_path / name.replace(".", "_out_"))
    rows = written(tmp_path / "few.jsonl", [{"clean": [1, 2]}])
    with pytest.raises(InterpError, match=r"no column 'corrupt'"):
        analyses.survey(model, rows, "activation_patching", out=tmp_path / "t")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(InterpError, match="no folder of a survey"):
        analyses.survey(model, rows, "logit_lens", out=tmp_path / "mine")


def test_hooks_are_refused(tmp_path, model):
    place = written(tmp_path / "rows.jsonl", pairs([8]))
    with model.hooks({"blocks.0.hook_resid_pre": lambda value, hook: value}):
        with pytest.raises(HookError, match="survey: what is kept would not say"):
            analyses.survey(model, place, "logit_lens", out=tmp_path / "s")
        model(torch.tensor([[1]]))


def test_what_is_not_installed_is_named(tmp_path, model, monkeypatch):
    place = written(tmp_path / "rows.jsonl", pairs([8]))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InterpError, match=r'pip install "criticalpile\[scale\]"'):
        analyses.survey("smalltown", place, "logit_lens", out=tmp_path / "s", workers=2)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InterpError, match=r"tables in Parquet need the package pyarrow"):
        analyses.survey(model, place, "logit_lens", out=tmp_path / "s")


def test_workers_need_a_model_by_name(tmp_path, model):
    with pytest.raises(InterpError, match="by its name or path"):
        analyses.survey(
            model, written(tmp_path / "rows.jsonl", pairs([8])), "logit_lens", out=tmp_path / "s", workers=2
        )


def test_the_name_is_the_function_also_after_its_parts_were_imported():
    code = "from analyses.survey.cells import tables; import analyses; assert callable(analyses.survey)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
