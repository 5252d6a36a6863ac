"""One step that fails does not take the rest, and what is finished is not computed again."""

import os
import sys

import numpy as np
import pytest
import xarray as xr
from markupsafe import escape
from test_cli import run

import analyses
import interp
from analyses import cascade
from analyses.report import collect, render, summary
from analyses.report import inside as inside_page
from analyses.report import outside as outside_page
from analyses.report.arrays import read_arrays, write_arrays
from analyses.report.cascade_rows import inside_rows, outside_rows
from analyses.report.inside import inside_steps
from analyses.report.outside import outside_steps
from analyses.report.shelf import TWINS, Shelf, code_hash
from analyses.report.steps import Results, left_out, run_steps
from interp.errors import InterpError, ResultError

CLEAN, CORRUPT = "Mary went to the", "John went to the"
ANSWERS = {"answer": " store", "wrong": " park"}
ASKED = {"corrupt": CORRUPT, **ANSWERS}
WORDS = [CLEAN, "--corrupt", CORRUPT, "--answer", " store", "--wrong", " park"]
ROWS = {inside_page: inside_rows, outside_page: outside_rows}
WHY = "<b>no</b> & [red]never[/]"


@pytest.fixture(scope="module")
def small(small_checkpoint):
    return interp.load(small_checkpoint)


@pytest.fixture(scope="module")
def whole(small):
    results = collect(small, CLEAN, outside=([CLEAN], cascade.Swap()), **ASKED)
    assert results.left_out == {}
    return results


@pytest.fixture
def twins(monkeypatch, tmp_path_factory):
    """An empty folder for what is measured of twins."""
    folder = tmp_path_factory.mktemp("twins")
    monkeypatch.setenv(TWINS, str(folder))
    return folder


def one(value=1.0, kind="lyapunov"):
    return xr.Dataset({"x": ((), value)}, attrs={"kind": kind, "schema_version": 1})


def counted(monkeypatch, module, name, fail=None):
    """Count the calls of a function, and let it fail while `fail` holds an error."""
    calls, original = [], getattr(module, name)

    def call(*given, **named):
        calls.append(name)
        if fail:
            raise fail[0]
        return original(*given, **named)

    monkeypatch.setattr(module, name, call)
    return calls


def raising(error):
    def step():
        raise error

    return step


def numbers_equal(one, other):
    """The same to the bit, and all that is said of it but when it was made."""
    xr.testing.assert_equal(one, other)
    for name, values in one.variables.items():
        if values.dtype.kind == "f":
            assert values.to_numpy().tobytes() == other[name].to_numpy().tobytes(), name
    for result in (one, other):
        assert result.attrs["kind"]
    assert {k: v for k, v in one.attrs.items() if k != "created"} == {
        k: v for k, v in other.attrs.items() if k != "created"
    }


def test_a_step_that_fails_is_told_and_the_others_go_on():
    results = Results()
    steps = [
        ("ours", raising(ResultError("x: not so."))),
        ("theirs", raising(ZeroDivisionError("by zero"))),
        ("silent", raising(MemoryError())),
        ("made", lambda: results["theirs"] * 2),
        ("made_of_made", lambda: results["made"] * 2),
        ("none", lambda: None),
        ("good", one),
    ]
    run_steps(steps, results, title="work", progress=False)
    assert list(results) == ["good"]
    assert results.left_out == {
        "ours": "x: not so.",
        "theirs": "ZeroDivisionError: by zero",
        "silent": "MemoryError",
        "made": "it is made of theirs, which could not be computed.",
        "made_of_made": "it is made of made, which could not be computed.",
    }
    assert str(left_out(results)[1]) == "Left out: theirs could not be computed: ZeroDivisionError: by zero"
    with pytest.raises(KeyError):
        results["none"]
    with pytest.raises(KeyboardInterrupt):
        run_steps([("a", raising(KeyboardInterrupt())), ("b", one)], results, title="work", progress=False)
    with pytest.raises(ZeroDivisionError):
        run_steps([("a", raising(ZeroDivisionError()))], {}, title="work", progress=False)


def without(results, names):
    left = Results({name: result for name, result in results.items() if name not in names})
    left.left_out = {name: f"{name} {WHY}" for name in results if name in names}
    return left


@pytest.mark.parametrize("which", ["even", "odd", "the first", "all but the twin's", "patching"])
def test_what_was_left_out_has_its_reason_in_its_place(whole, which):
    names = list(whole)
    kept = {
        "even": names[1::2],
        "odd": names[::2],
        "the first": [name for name in names if name not in ("lens", "attention")],
        "all but the twin's": ["gain_null"],
        "patching": ["lens", "attention"],
    }[which]
    gone = [name for name in names if name not in kept]
    results = without(whole, gone)
    html = render(results)
    assert WHY not in html
    for lacking in left_out(results):
        assert f">{escape(str(lacking))}</p>" in html
    assert html.startswith("<!DOCTYPE html>")
    assert "<title>small" in html
    sentences = summary(results)
    for name in ("lens", "patching", "head_table", "stream", "gain", "external"):
        assert (f"Left out: {name} could not be computed: {name} {WHY}" in sentences) == (name in gone)
    for page in (inside_page, outside_page):
        shown = (*page.SHOWN, "theory") if page is inside_page else page.SHOWN
        lacking = {str(item) for item in left_out(results) if item.name.removesuffix("_null") in shown}
        assert {str(one.figure) for one in page.figures(results) if hasattr(one.figure, "reason")} == lacking
        cells = list(ROWS[page](results).columns[1].cells)
        assert any("Left out: " in cell for cell in cells) == bool(lacking)
        assert len(cells) >= len(list(ROWS[page](whole).columns[1].cells)) - 1


def test_where_nothing_could_be_computed_the_reasons_are_told(whole, small, monkeypatch):
    with pytest.raises(
        InterpError, match="nothing could be computed. Left out: lens could not be computed: lens <b>no"
    ):
        render(without(whole, list(whole)))


def save_of(folder):
    return {path.stem: analyses.load(path) for path in folder.glob("*.nc")}


@pytest.mark.parametrize("error", [ValueError(WHY), KeyboardInterrupt()])
def test_the_same_command_goes_on(monkeypatch, capsys, tmp_path, small_checkpoint, whole, error):
    module = sys.modules["analyses.report.collect"]
    words = ["report", *WORDS, "--model", small_checkpoint]
    fail = [error]
    broken = counted(monkeypatch, module, "head_table", fail)
    others = [
        counted(monkeypatch, module, name) for name in ("attention_patterns", "activation_patching", "residual_stream")
    ]
    undisturbed = {
        name: result for name, result in whole.items() if name.removesuffix("_null") not in outside_page.SHOWN
    }
    stopped = isinstance(error, KeyboardInterrupt)
    out = tmp_path / "r.html"
    asked = [*words, "--out", out, "--save", tmp_path / "saved"]
    status, said, err = run(monkeypatch, capsys, *asked)
    assert status == (130 if stopped else 1)
    assert "the same command goes on from there" in err
    assert (tmp_path / "r.html.parts").is_dir()
    assert out.exists() is not stopped
    if not stopped:
        line = f"Left out: head_table could not be computed: ValueError: {WHY}"
        assert line in err
        assert line in said.replace("\n", " ").replace("  ", " ")
        assert str(escape(line)) in out.read_text()
        assert "head_table" not in save_of(tmp_path / "saved")
        changed = run(monkeypatch, capsys, *asked, "--seed", 1)
        assert changed[0] == 1
        assert "exists already" in changed[2]  # another command may not overwrite what this one has left
    fail.clear()
    status, said, err = run(monkeypatch, capsys, *asked)
    assert (status, "Left out" in said + err) == (0, False)
    assert not (tmp_path / "r.html.parts").exists()
    assert len(broken) == 2
    assert [len(calls) for calls in others] == [2, 3, 1]  # none twice
    going_on = save_of(tmp_path / "saved")
    assert set(going_on) == set(undisturbed)
    for name, result in undisturbed.items():
        numbers_equal(result, going_on[name])
    assert run(monkeypatch, capsys, *asked)[0] == 1  # it is whole now, and kept


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["inside", CLEAN, "--directions", 1], "dose_response"),
        (["outside", CLEAN, "--seeds", 1, "--steps", 16], "avalanches"),
    ],
)
def test_a_cascade_goes_on(monkeypatch, capsys, tmp_path, small_checkpoint, twins, words, name):
    fail = [RuntimeError("out of memory")]
    broken = counted(monkeypatch, cascade, name, fail)
    other = {"inside": "participation", "outside": "temperature_sweep"}[words[0]]
    calls = counted(monkeypatch, cascade, other)
    asked = ["cascade", *words, "--model", small_checkpoint, "--out", tmp_path / "c.html"]
    status, out, err = run(monkeypatch, capsys, *asked)
    step = {"dose_response": "dose"}.get(name, name)
    line = f"Left out: {step} could not be computed: RuntimeError: out of memory"
    assert (status, line in err) == (1, True)
    assert f">{line}</p>" in (tmp_path / "c.html").read_text()
    assert (tmp_path / "c.html.parts").is_dir()
    before = len(calls)
    fail.clear()
    status, out, err = run(monkeypatch, capsys, *asked)
    assert status == 0, err
    assert "Left out" not in out + err
    assert len(calls) == before > 0
    assert len(broken) == (4 if words[0] == "inside" else 2)
    assert [path.name for path in tmp_path.iterdir()] == ["c.html"]


def kept(small, results, **changed):
    request = {"n_directions": 1, "answers": ANSWERS, **changed}
    run_steps(inside_steps(small, [CLEAN], [CORRUPT], results, **request), results, title="inside", progress=False)
    assert results.left_out == {}
    return results


def test_a_twin_is_measured_once(monkeypatch, small, twins):
    built = counted(monkeypatch, cascade, "random_twin")
    names = ("ledger", "participation", "mean_field", "self_repair", "jacobian_spectrum")
    calls = [counted(monkeypatch, cascade, name) for name in names]
    calls.append(counted(monkeypatch, inside_page, "exponents_beside"))
    first = kept(small, Results())
    counts = [len(those) for those in calls]
    second = kept(small, Results())
    assert built == ["random_twin"]
    assert counts == [2, 2, 1, 2, 2, 2]
    assert [len(those) for those in calls] == [3, 3, 1, 3, 3, 3]
    assert list(first) == list(second)
    assert "theory" in first
    for name, result in first.items():
        numbers_equal(result, second[name])
        assert (result.attrs["created"] == second[name].attrs["created"]) or not name.endswith("_null")
    twin = cascade.random_twin(small, 0)
    alone = cascade.participation(twin, [CLEAN], layer=0)
    numbers_equal(alone, second["participation_null"])
    (folder,) = twins.iterdir()
    damaged = folder / "ledger_null.npz"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    numbers_equal(first["ledger_null"], kept(small, Results())["ledger_null"])
    assert len(built) == 3  # one of them here
    for changed in ({"seed": 1}, {"dose": 0.02}, {"layer": 1}):
        kept(small, Results(), **changed)
    assert len(built) == 6
    assert len(list(twins.iterdir())) == 4


def test_what_shapes_a_twin_and_what_does_not(small, small_checkpoint, twins):
    def folder(model, texts=(CLEAN,)):
        before = set(twins.iterdir())
        run_steps(
            [step for step in inside_steps(model, list(texts), [], {}) if step[0] == "theory"],
            {},
            title="x",
            progress=False,
        )
        return set(twins.iterdir()) - before

    assert len(folder(small)) == 1
    other = interp.load(small_checkpoint)
    other.W_E.data += 1.0
    assert folder(other) == set()  # its weights do not
    assert len(folder(small, (CORRUPT,))) == 1
    assert len(folder(interp.load(small_checkpoint).double())) == 1


def test_a_model_without_a_theory_builds_no_twin_for_it_again(monkeypatch, small, twins):
    built = counted(monkeypatch, cascade, "random_twin")
    for _ in range(2):
        steps = dict(inside_steps(small, [CLEAN], [], {}, layer=1))
        assert steps["theory"]() is None
    assert len(built) == 1


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path):
    (tmp_path / "file").write_text("mine")
    shelf = Shelf(tmp_path / "file" / "twins", {"a": 1})
    with pytest.warns(UserWarning, match="results cannot be kept in .*file"):
        assert float(shelf.part("x", one)["x"]) == 1.0
    assert float(shelf.part("y", one)["x"]) == 1.0  # a second warning would be an error
    assert (tmp_path / "file").read_text() == "mine"
    other = Shelf(tmp_path, {"a": 1})
    shelf = Shelf(tmp_path / "file" / "twins", {"a": 1}, otherwise=other)
    with pytest.warns(UserWarning, match="cannot be kept"):
        shelf.part("x", one)
    shelf.part("y", one)
    assert sorted(path.name for path in other.folder.glob("*.npz")) == ["x.npz", "y.npz"]


def test_the_oldest_go_first_where_there_is_too_much(tmp_path):
    def put(request, most):
        shelf = Shelf(tmp_path, {"request": request}, most=most)
        shelf.part("x", lambda: one(np.zeros(())))
        os.utime(shelf.folder, (request, request))
        return shelf.folder

    folders = [put(number, None) for number in range(1, 4)]
    size = sum(file.stat().st_size for file in folders[0].iterdir())
    foreign = [tmp_path / "mine.txt", tmp_path / "thesis" / "x.npz", tmp_path / ("a" * 32) / "chapter.txt"]
    for file in foreign:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
        os.utime(file.parent, (0, 0))
    newest = put(4, 2 * size + size // 2)
    assert {path for path in (*folders, newest) if path.is_dir()} == {folders[2], newest}
    assert put(5, 1).is_dir()  # never what was asked for
    assert all(file.read_text() == "mine" for file in foreign)


def test_results_come_back_only_whole_and_of_the_same_request(tmp_path):
    calls = []

    def compute(value=1.5):
        calls.append(value)
        return one(value)

    shelf = Shelf(tmp_path, {"seed": 0})
    for _ in range(2):
        assert float(shelf.part("x", compute)["x"]) == 1.5
    assert len(calls) == 1
    Shelf(tmp_path, {"seed": 1}).part("x", compute)
    assert len(calls) == 2
    for damage in (b"", b"no archive", (shelf.folder / "x.npz").read_bytes()[:-9]):
        (shelf.folder / "x.npz").write_bytes(damage)
        assert float(shelf.part("x", compute)["x"]) == 1.5
        assert float(shelf.part("x", compute)["x"]) == 1.5
    assert len(calls) == 5
    (shelf.folder / "x.xxh3").unlink()
    shelf.part("x", compute)
    assert len(calls) == 6
    assert Shelf(None, {}).part("x", compute) is not None
    assert len(code_hash()) == 64


def test_coupled_texts_that_failed_are_not_run_again(monkeypatch, small):
    calls = counted(monkeypatch, outside_page, "couple", [RuntimeError("no")])
    results = Results()
    steps = outside_steps(small, [CLEAN], cascade.Swap(), results, seeds=1, steps=16, temperature=1.0)
    run_steps(steps, results, title="outside", progress=False)
    assert len(calls) == 1
    assert list(results) == ["wavefront", "channels", "temperature"]
    assert results.left_out["survival"] == "it is made of coupled, which could not be computed."


def test_what_somebody_else_put_beside_the_parts_stays(monkeypatch, capsys, tmp_path, small_checkpoint):
    thesis = tmp_path / "r.html.parts" / "thesis"
    thesis.parent.mkdir()
    thesis.write_text("mine")
    words = ["report", "Mary went", "--model", small_checkpoint, "--out", tmp_path / "r.html"]
    status, _, err = run(monkeypatch, capsys, *words)
    assert status == 0, err
    assert [path.name for path in thesis.parent.iterdir()] == ["thesis"]
    assert thesis.read_text() == "mine"


def test_what_is_kept_comes_back_as_it_was(whole, tmp_path):
    for name, result in whole.items():
        write_arrays(result, tmp_path / name)
        numbers_equal(read_arrays(tmp_path / name), result)
        assert {n: v.dtype for n, v in read_arrays(tmp_path / name).variables.items() if v.dtype.kind != "O"} == {
            n: v.dtype for n, v in result.variables.items() if v.dtype.kind not in "OU"
        }
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    with pytest.raises(ResultError, match="cannot be read as kept arrays"):
        read_arrays(tmp_path / name)
