"""The page of findings is what its data say, and the first of the data are measured again."""

import re
from collections.abc import Iterator
from functools import cache

import findings
import numpy as np
import pytest
from findings import DRAWS, STEPS, asked, kept, measurements, outside
from findings_page import PAGE, PICTURES, page

import interp
from analyses.cascade.twin import random_twin
from interp.model import Transformer

QUICK = {"lens", "heads-late"}
"""Measured again in seconds; of the others the first unit takes longer."""

CLOSE = {"rel": 2e-3, "abs": 2e-4}
"""Of numbers kept to five digits, measured with another number of threads."""


@pytest.fixture(scope="module")
def models(smollm2: Transformer) -> Iterator[None]:
    """The pretrained model, which is loaded once for all tests, is that of the script; without it they are skipped, with the reason."""

    @cache
    def load(name: str) -> Transformer:
        if name.endswith("-twin"):
            return random_twin(load(name.removesuffix("-twin")))
        return smollm2 if name == findings.SUBJECT else interp.load(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(findings, "load", load)
        yield


def alike(name: str, measured: list[dict[str, str]], there: list[dict[str, str]]) -> None:
    assert len(measured) == len(there) > 0
    for own, other in zip(measured, there, strict=True):
        for column, value in own.items():
            numbers = [text.split() for text in (value, other[column])]
            try:
                values = [[float(one) for one in some] for some in numbers]
            except ValueError:
                assert value == other[column], (name, column)
                continue
            if column == "damage":
                assert value == other[column], name
            elif column.startswith("rank"):  # two tokens that are as probable may change places
                assert values[0] == pytest.approx(values[1], rel=2e-3, abs=1), (name, column)
            else:
                assert values[0] == pytest.approx(values[1], **CLOSE), (name, column)


def test_the_page_is_written_from_what_is_kept():
    assert PAGE.read_text(encoding="utf-8") == page()
    for picture in re.findall(r"\]\(findings/(\w+)\.png\)", PAGE.read_text(encoding="utf-8")):
        assert (PICTURES / f"{picture}.png").stat().st_size > 5000


def test_every_command_of_the_page_is_one():
    named, known = re.findall(r"findings\.py measure ([\w-]+)", PAGE.read_text(encoding="utf-8")), measurements()
    assert named
    assert set(named) <= known.keys()
    for name in named:
        units = {tuple(row[key] for key in known[name].keys) for row in kept(name)}
        assert units <= set(known[name].units)


def test_what_is_kept_is_small():
    assert sum(path.stat().st_size for path in findings.DATA.iterdir()) < 3_000_000


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in measurements()],
)
def test_the_first_is_measured_again(name, models):
    one, there = measurements()[name], kept(name)
    if not there:
        pytest.skip(f"nothing is kept of {name}; measure it with: python docs/findings.py measure {name}")
    unit = tuple(there[0][key] for key in one.keys)
    measured = [dict(zip(one.keys, unit, strict=True)) | row for row in one.rows(unit)]
    alike(name, measured, [row for row in there if tuple(row[key] for key in one.keys) == unit])


@pytest.mark.slow
def test_texts_do_not_depend_on_what_runs_with_them(models):
    unit = ("ioi", "1", "0")
    there = [row for row in kept("outside") if (row["kind"], row["temperature"], row["block"]) == unit][:DRAWS]
    alone = outside(findings.SUBJECT, unit, prompts=1)
    assert [row["damage"] for row in alone] == [row["damage"] for row in there]
    assert len(alone[0]["damage"]) == STEPS


@pytest.mark.parametrize("kind", [*findings.KINDS[:-1], pytest.param(findings.KINDS[-1], marks=pytest.mark.slow)])
def test_pairs_differ_and_are_alike_in_length(kind, models):
    pairs = [asked(kind, findings.SUBJECT, number) for number in range(2)]
    assert len({tuple(one.clean[0].tolist()) for one in pairs}) == 2
    for number, one in enumerate(pairs):
        assert one.clean.shape == one.corrupt.shape
        assert one.differs
        assert asked(kind, findings.TWIN, number).clean.equal(one.clean)


def test_measuring_goes_on_where_it_was_stopped(monkeypatch, tmp_path):
    monkeypatch.setattr(findings, "DATA", tmp_path)
    done = []

    def rows(unit):
        done.append(unit)
        return [{"value": unit[0] * 2}]

    one = findings.Measurement("numbers", ("number",), [("1",), ("2",), ("3",)], rows)
    monkeypatch.setattr(findings, "measurements", lambda: {"numbers": one})
    findings.measure("numbers", 2)
    assert kept("numbers") == [{"number": "1", "value": "11"}, {"number": "2", "value": "22"}]
    findings.measure("numbers")
    assert done == [("1",), ("2",), ("3",)]
    assert findings.five(np.pi) == "3.1416"
