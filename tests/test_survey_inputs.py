"""What users give a survey and what may have become of its folder: bad rows are put aside, all else is named or made again."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import tiny
from survey_data import holds, pairs, plain, same_tables, table, written

import analyses
from analyses.survey import manifest
from analyses.survey.surveyed import SURVEYED, checked_options
from analyses.survey.values import check_values
from interp.errors import InterpError, ResultError

HEADS = {"site": "z", "smallest_gap": 0.0}


def heads(model, place, out, **options):
    return analyses.survey(model, place, "activation_patching", out=out, options=HEADS, **options)


@pytest.mark.parametrize(
    ("analysis", "options", "says"),
    [
        ("activation_patching", {"site": "x"}, "site 'x' is not supported"),
        ("activation_patching", {"layers": [99]}, "99"),
        ("activation_patching", {"position": [5]}, "1 positions for 2 prompts"),
        ("activation_patching", {"position": 99}, "99"),
        ("logit_lens", {"top_k": -3}, "top_k must be between"),
        ("cascade.gain", {"seed": "x"}, "seed must be a whole number"),
        ("cascade.ledger", {"dose": -1.0}, "dose must be a positive number"),
        ("cascade.coupled", {"seeds": None}, "seeds must be a whole number"),
    ],
)
def test_a_value_that_no_prompt_can_have_is_named_before_any_work(tmp_path, model, analysis, options, says):
    with pytest.raises(InterpError, match=says):
        analyses.survey(
            model, written(tmp_path / "rows.jsonl", pairs([8])), analysis, out=tmp_path / "s", options=options
        )
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("analysis", [name for name in SURVEYED if name != "tuned_lens"])
def test_values_that_some_prompts_can_have_are_tried_on_such(model, analysis):
    options = {"smallest_gap": 1e9} if "patching" in analysis else {"positions": [12]} if "lens" in analysis else {}
    options |= {"seeds": 1, "steps": 2} if analysis == "cascade.coupled" else {}
    check_values(model, analysis, checked_options(analysis, options), 2**24)


def test_what_is_no_prompt_is_put_aside(tmp_path, model):
    rows = pairs([8, 8])
    odd = [7, True, {"a": 1}, [[1, 2], [3, 4]], ["a"], [], [1, None]]
    for number, value in enumerate(odd):
        # a row by itself, since a column has one type
        place = written(tmp_path / f"{number}.jsonl", [rows[0] | {"clean": value}])
        assert heads(model, place, tmp_path / str(number), most_rejected=1.0)["rejected"] == 1
        with pytest.raises(ResultError, match="not one row of"):
            analyses.summarise(tmp_path / str(number))


def test_answers_of_a_column_in_which_some_are_missing(tmp_path, model):
    rows = pairs([8] * 4)
    frame = pd.DataFrame(rows).assign(answer=[3.0, np.nan, 5.5, 6.0])
    frame.to_parquet(tmp_path / "rows.parquet")
    found = heads(model, tmp_path / "rows.parquet", tmp_path / "s", most_rejected=1.0)
    aside = table(tmp_path / "s", "rejected.parquet").set_index("row")["reason"]
    assert found["accepted"] == 2
    assert "missing" in aside[1]
    assert "got 5.5" in aside[2]
    holds(tmp_path / "s", 0, plain(model, "activation_patching", [rows[0] | {"answer": 3}], HEADS))


def test_a_column_that_the_first_line_lacks_is_kept(tmp_path, model):
    rows = pairs([8] * 3)
    del rows[0]["kind"]
    heads(model, written(tmp_path / "rows.jsonl", rows), tmp_path / "s")
    assert table(tmp_path / "s", "prompts")["kind"].fillna("none").tolist() == ["none", "b", "a"]
    (tmp_path / "bom.jsonl").write_text(json.dumps(rows[1]) + "\n", encoding="utf-8-sig")
    assert heads(model, tmp_path / "bom.jsonl", tmp_path / "t")["accepted"] == 1


def test_columns_that_cannot_be_are_named(tmp_path, model):
    row = pairs([8])[0]
    (tmp_path / "latin.csv").write_bytes("prompt,label\na,\xe9\n".encode("latin-1"))
    (tmp_path / "twice.csv").write_text("prompt,label,label\na,b,c\n")
    written(tmp_path / "mixed.jsonl", [row, row | {"clean": "text"}])
    written(tmp_path / "huge.jsonl", [row | {"clean": [2**70]}])
    (tmp_path / "half.jsonl").write_text('{"clean": "\\ud800"}\n')
    for name, says in (("latin.csv", "'label' .* no text in UTF-8"), ("twice.csv", "two columns 'label'"),
                       ("mixed.jsonl", "'clean' in lines 1 to 2"), ("huge.jsonl", "'clean' in lines 1 to 1"),
                       ("half.jsonl", "surrogates")):  # fmt: skip
        with pytest.raises(InterpError, match=says):
            analyses.survey(model, tmp_path / name, "logit_lens", out=tmp_path / f"{name}.out")
    with pytest.raises(InterpError, match="cannot be written to|cannot be made"):
        heads(model, tmp_path / "mixed.jsonl", tmp_path / ("x" * 300))


def test_groups_are_told_apart_also_where_their_names_are_alike(tmp_path, model):
    rows = pairs([8] * 6)
    for row, first, second in zip(rows, ["a", "a, b"] * 3, ["b, c", "c"] * 3, strict=True):
        row |= {"first": first, "second": second}
    for row, value in zip(rows, ["None", None, "None", float("nan"), "None", "x"], strict=True):
        row["kind"] = None if isinstance(value, float) else value
        row["number"] = value if isinstance(value, float) else float(row["number"])
    pq.write_table(pa.Table.from_pandas(pd.DataFrame(rows)), tmp_path / "rows.parquet")
    heads(model, tmp_path / "rows.parquet", tmp_path / "s", shard_rows=2)
    by = {name: analyses.summarise(tmp_path / "s", by=name) for name in ("kind", "number")}
    assert by["kind"]["group"].to_numpy().tolist() == ["'None'", "'x'", "None"]
    assert by["kind"]["averaged_prompts"].to_numpy().tolist() == [3, 1, 2]
    assert by["number"]["group"].to_numpy().tolist() == ["0.0", "1.0", "2.0", "4.0", "5.0", "None"]
    both = analyses.summarise(tmp_path / "s", by=["first", "second"])
    assert both["group"].to_numpy().tolist() == ["'a', 'b, c'", "'a, b', 'c'"]


@pytest.mark.parametrize("harm", ["gone", "damaged", "another", "list gone", "list damaged", "template", "report"])
def test_what_is_missing_or_damaged_in_the_folder_is_made_again(tmp_path, model, harm):
    place, out = written(tmp_path / "rows.jsonl", pairs([8] * 6)), tmp_path / "s"
    heads(model, place, tmp_path / "whole", shard_rows=2)
    heads(model, place, out, shard_rows=2)
    (out / "shards" / "000001.json").unlink()
    part = out / "input" / "000001.parquet"
    if harm == "another":
        part.write_bytes((out / "input" / "000000.parquet").read_bytes())
    elif harm == "damaged":
        part.write_bytes(b"x")
    elif harm == "gone":
        part.unlink()
    elif harm == "list gone":
        (out / "input.json").unlink()
    elif harm == "list damaged":
        (out / "input.json").write_text("{")
    elif harm == "template":
        (out / "template.nc").unlink()
        with pytest.raises(ResultError, match="run the survey again"):
            analyses.summarise(out)
    else:
        (out / "shards" / "000001.json").write_text('{"files": {}}')
    heads(model, place, out, shard_rows=2)
    same_tables(tmp_path / "whole", out)
    analyses.summarise(out)


@pytest.mark.parametrize("text", ["{}", "[]"])
@pytest.mark.parametrize("name", ["manifest.json", "request.json"])
def test_a_folder_that_does_not_say_what_it_is_is_named(tmp_path, name, text):
    heads(tiny(), written(tmp_path / "rows.jsonl", pairs([8])), tmp_path / "s")
    (tmp_path / "s" / name).write_text(text)
    with pytest.raises(ResultError, match="is damaged|names no analysis"):
        analyses.summarise(tmp_path / "s")


@pytest.mark.parametrize("shards", ["x", [None], {"a": None}, [{}], [5], None, [True]])
def test_a_manifest_of_another_form_is_named(tmp_path, shards):
    heads(tiny(), written(tmp_path / "rows.jsonl", pairs([8])), tmp_path / "s")
    about = tmp_path / "s" / "manifest.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"shards": shards}))
    with pytest.raises(ResultError, match="is damaged"):
        analyses.summarise(tmp_path / "s")


@pytest.mark.parametrize("value", ["x", None, [None], {"a": None}, -1, True, 1.5, 7])
@pytest.mark.parametrize(
    ("name", "key"),
    [("input", key) for key in ("rows", "columns", "shards")]
    + [("shards/000000", key) for key in ("shard", "accepted", "rejected", "rows", "reasons", "files")],
)
def test_a_part_of_another_form_is_made_again(tmp_path, model, name, key, value):
    place, out = written(tmp_path / "rows.jsonl", pairs([8] * 3)), tmp_path / "s"
    whole = heads(model, place, out, shard_rows=2)
    about = out / f"{name}.json"
    good = json.loads(about.read_text())
    about.write_text(json.dumps(good | {key: value}))
    again = heads(model, place, out, shard_rows=2)
    assert {name: again[name] for name in ("rows", "accepted", "rejected", "reasons")} == {
        name: whole[name] for name in ("rows", "accepted", "rejected", "reasons")
    }
    assert json.loads(about.read_text())[key] == good[key]


def test_of_two_requests_at_once_one_is_refused(tmp_path, monkeypatch):
    real = manifest.write_whole

    def after_another(path, write, **options):
        monkeypatch.setattr(manifest, "write_whole", real)
        manifest.ask(tmp_path / "s", {"analysis": "logit_lens", "shard_rows": 1})
        real(path, write, **options)

    monkeypatch.setattr(manifest, "write_whole", after_another)
    with pytest.raises(InterpError, match="another request: shard_rows was 1 and is 2"):
        manifest.ask(tmp_path / "s", {"analysis": "logit_lens", "shard_rows": 2})
    monkeypatch.setattr(manifest, "write_whole", after_another)
    manifest.ask(tmp_path / "s", {"analysis": "logit_lens", "shard_rows": 1})


WRONG = """
import sys, analyses
from interp.errors import InterpError
sys.path.insert(0, {tests!r})
from conftest import tiny

def said(call):
    try:
        call()
    except InterpError as error:
        print(error)

model, place, out = tiny(), {place!r}, {out!r}
said(lambda: analyses.survey(model, place, "detect_heads", out=out, options={{"masks": [9]}}))
said(lambda: analyses.survey(model, place, "cascade.ledger", out=out, options={{"dose": "x"}}))
said(lambda: analyses.survey(model, place, "logit_lens", out=out, most_rejected="x"))
said(lambda: analyses.survey(model, None, "logit_lens", out=out))
analyses.survey(model, place, "logit_lens", out=out)
said(lambda: analyses.summarise(out, by=3))
"""


def test_wrong_types_are_named_where_nothing_checks_them(tmp_path):
    place = written(tmp_path / "rows.jsonl", pairs([8]))
    code = WRONG.format(tests=str(Path(__file__).parent), place=str(place), out=str(tmp_path / "s"))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    said = done.stdout.splitlines()
    for line, wanted in zip(
        said,
        ("masks must be tensors", "dose must be", "a share from 0 to 1", "no data set", "no label '3'"),
        strict=True,
    ):
        assert wanted in line
