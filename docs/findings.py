"""What is found in SmolLM2-135M: measured command by command, kept as data, and written as a page.

python docs/findings.py measure NAME    adds what docs/data/findings/NAME.csv.gz lacks; `--units 4` stops after so many
python docs/findings.py names           every NAME, how much of it is kept, and what it is
python docs/findings.py page            writes docs/findings.md and its pictures from the data
"""

import argparse
import csv
import gzip
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from rich.console import Console
from torch import Tensor

import analyses
import interp
from analyses import cascade
from analyses.cascade import Replace, Swap
from analyses.cascade.coupled import couple
from analyses.cascade.driven import LARGEST_H, looping
from analyses.cascade.survival import forced
from analyses.cascade.twin import random_twin
from interp.errors import ResultError
from interp.generation import left_aligned
from interp.model import Transformer
from interp.progress import progress_bar
from interp.sweep import MAX_BYTES
from interp.tokenizer import PAD
from interp.zoo import task
from interp.zoo.stories import story
from interp.zoo.tasks import may_meet

DATA = Path(__file__).parent / "data" / "findings"
SUBJECT, TWIN, SMALL, SMALL_TWIN = "smollm2-135m", "smollm2-135m-twin", "smalltown", "smalltown-twin"
KINDS = ("ioi", "capitals", "induction", "plain")
TEMPERATURES = (1.0, 0.7, 0.5, 1.3, 0.85)
"""In the order in which they are measured."""

SEED, PAIRS = 21, 100
FOUND = {"ioi": PAIRS, "capitals": 25, "induction": PAIRS, "plain": PAIRS}
"""Pairs of each kind: of capitals, `interp.zoo` has no more than 25 prompts that suit the tokenizer."""

PLAIN, SWAPPED = 16, -6
"""Tokens of a plain text, and which of them is another."""

LATE = range(14, 30)
BLOCK, DRAWS, STEPS = 6, 2, 32
SOURCES, HORIZON = 3, 16
MLP_WINDOW, NOISES = 5, 3
SCORES = ("previous_token", "induction", "duplicate_token")
PARTS = ("country", "between", "last")
"""Places of a prompt about a capital: the last token that differs, those after it, the last token."""

Row = dict[str, str]
Unit = tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """What one command measures.

    Args:
        said: what it is, in a few words.
        keys: names of the columns that tell units apart.
        units: what is measured at a time, in order.
        rows: of a unit, without the keys.
    """

    said: str
    keys: tuple[str, ...]
    units: Sequence[Unit]
    rows: Callable[[Unit], list[Row]]


@dataclass(frozen=True, eq=False)
class Asked:
    """A pair as tokens, [1, position] each, and what is asked of it."""

    clean: Int[Tensor, "one position"]
    corrupt: Int[Tensor, "one position"]
    answer: str = ""
    wrong: str = ""
    cluster: str = ""

    @property
    def differs(self) -> list[int]:
        """Positions at which the prompts differ."""
        return [int(at) for at in (self.clean != self.corrupt)[0].nonzero()[:, 0]]


@cache
def load(name: str) -> Transformer:
    """A model, or its random twin."""
    if name.endswith("-twin"):
        return random_twin(load(name.removesuffix("-twin")))
    return interp.load(name)


@cache
def asked(kind: str, name: str, number: int) -> Asked:
    """A pair; a twin is asked what the trained model is."""
    name = name.removesuffix("-twin")
    return _plain(load(name), number) if kind == "plain" else _of_task(kind, name)[number]


@cache
def _of_task(kind: str, name: str) -> tuple[Asked, ...]:
    """The pairs of a task, no clean prompt twice."""
    model = load(name)
    found: dict[str, Asked] = {}
    for pair in task(kind).sample(4 * FOUND[kind], SEED, model.tokenizer):
        if pair.clean not in found and len(found) < FOUND[kind]:
            tokens = [left_aligned(model.to_tokens(text)) for text in (pair.clean, pair.corrupt)]
            found[pair.clean] = Asked(*tokens, pair.answer, pair.wrong, pair.cluster or "")
    return tuple(found.values())


def _plain(model: Transformer, number: int) -> Asked:
    """The beginning of a small-town story from its second sentence on; in the other one token is the most probable other."""
    text = story(random.Random(f"{SEED} {number}"), lambda a, b: not may_meet(a, b))
    clean = left_aligned(model.to_tokens(text.split(". ", 1)[1]))[:, :PLAIN]
    return Asked(clean, Swap(SWAPPED).begin(model, clean, "findings"))


def _together(tensors: Sequence[Tensor]) -> Tensor:
    """Prompts as one batch, padded at the end."""
    width = max(one.shape[1] for one in tensors)
    return torch.cat([torch.nn.functional.pad(one, (0, width - one.shape[1]), value=PAD) for one in tensors])


def five(value: float) -> str:
    """Five significant digits."""
    return f"{value:.5g}"


def _named(prefix: str, values: np.ndarray) -> Row:
    return {f"{prefix}{number}": five(value) for number, value in enumerate(values)}


def _grid(values: np.ndarray, layers: Sequence[int]) -> Row:
    return {
        f"{layer}.{head}": five(value)
        for layer, row in zip(layers, values, strict=True)
        for head, value in enumerate(row)
    }


def heads(name: str, kind: str, layers: Sequence[int], unit: Unit) -> list[Row]:
    """What each head's output moves, in logits towards the right answer."""
    direction, number = unit
    one = asked(kind, name, int(number))
    found = analyses.activation_patching(
        load(name), one.clean, one.corrupt, answer=one.answer, wrong=one.wrong, site="z", direction=direction, layers=list(layers),
        smallest_gap=0.0,
    )  # fmt: skip
    value, clean, corrupt = (
        found[key].to_numpy()[0].astype(float) for key in ("value", "clean_baseline", "corrupt_baseline")
    )
    moved = value - corrupt if direction == "denoising" else clean - value
    return [{"cluster": one.cluster, "clean": five(clean), "corrupt": five(corrupt)} | _grid(moved, list(layers))]


def _by_part(values: np.ndarray, one: Asked, prefix: str = "") -> Row:
    """Means over the places of each part of [layer, position]; empty where there is no place of it."""
    last, length = one.differs[-1], one.clean.shape[1]
    places = {"country": [last], "between": list(range(last + 1, length - 1)), "last": [length - 1]}
    return {
        f"{prefix}{part}{layer}": five(row[places[part]].mean()) if places[part] else ""
        for part in PARTS
        for layer, row in enumerate(values)
    }


def stream(name: str, unit: Unit) -> list[Row]:
    """What the stream entering each block moves, in logits towards the right capital."""
    one = asked("capitals", name, int(unit[0]))
    found = analyses.activation_patching(
        load(name), one.clean, one.corrupt, answer=one.answer, wrong=one.wrong, site="resid_pre", smallest_gap=0.0
    )
    value, clean, corrupt = (
        found[key].to_numpy()[0].astype(float) for key in ("value", "clean_baseline", "corrupt_baseline")
    )
    return [{"cluster": one.cluster, "clean": five(clean), "corrupt": five(corrupt)} | _by_part(value - corrupt, one)]


def traced(name: str, unit: Unit) -> list[Row]:
    """What MLPs' outputs, some layers together, restore of the capital's probability after noise on the country."""
    number = int(unit[0])
    one = asked("capitals", name, number)
    found = analyses.causal_tracing(
        load(name), one.clean, subject=one.differs, answer=one.answer, site="mlp_out", window=MLP_WINDOW, draws=NOISES,
        smallest_gap=0.0, seed=number,
    )  # fmt: skip
    clean = float(found["clean_baseline"].to_numpy()[0])
    corrupt = float(found["corrupt_baseline"].to_numpy()[0].mean())
    moved = found["value"].to_numpy()[0].astype(float).mean(0) - corrupt
    return [{"cluster": one.cluster, "clean": five(clean), "corrupt": five(corrupt)} | _by_part(moved, one)]


def lens(name: str, unit: Unit) -> list[Row]:
    """The capital's rank among all tokens, counted from 1, in the stream after the last token."""
    one = asked("capitals", name, int(unit[0]))
    found = analyses.logit_lens(load(name), one.clean, top_k=1, candidates=[one.answer], positions=[-1])
    whole = found.sel(layer=[layer for layer in found["layer"].to_numpy() if layer == int(layer)])
    row: Row = {"cluster": one.cluster}
    for prefix, key, add in (("rank", "candidate_rank", 1), ("log_p", "candidate_log_probability", 0)):
        values = whole[key].transpose("prompt", "position", "candidate", "layer").to_numpy()[0, -1, 0]
        row |= _named(prefix, values.astype(float) + add)
    return [row]


def detectors(name: str, unit: Unit) -> list[Row]:
    """Attention of each head on 50 random tokens, repeated once."""
    found = analyses.detect_heads(load(name), length=50, count=1, seed=int(unit[0]))
    return [
        {"score": score} | _grid(found[score].to_numpy()[0], found["layer"].to_numpy().tolist()) for score in SCORES
    ]


def inside(name: str, unit: Unit) -> list[Row]:
    """ln Gamma entering each block and at the output, on site and over all positions."""
    kind, number = unit
    one = asked(kind, name, int(number))
    found = cascade.gain(load(name), one.clean, n_directions=2, seed=int(number))
    row: Row = {"cluster": one.cluster}
    for prefix, key in (("site", "log_relative_gain"), ("all", "log_whole_relative_gain")):
        row |= _named(prefix, found[key].to_numpy()[0])
    return [row]


def entries(name: str, unit: Unit) -> list[Row]:
    """The ledger of what the swapped word makes: ln k of each layer, less the stream's own growth, by head and MLP."""
    kind, number = unit
    one = asked(kind, name, int(number))
    found = cascade.ledger(load(name), one.clean, one.corrupt)
    own, of_stream = (found[key].to_numpy()[0] for key in ("mlp_entry", "stream_mlp"))
    row: Row = {"cluster": one.cluster}
    row |= _named("k", found["log_k"].to_numpy()[0]) | _named("stream", found["log_stream_growth"].to_numpy()[0])
    row |= _named("mlp", own) | _named("stream_mlp", of_stream)
    return [row | _grid(found["head_entry"].to_numpy()[0], found["layer"].to_numpy().tolist())]


def outside(
    name: str, unit: Unit, *, prompts: int = BLOCK, steps: int = STEPS, model: Transformer | None = None
) -> list[Row]:
    """Coupled texts: aligned damage and the hazard of the beginning alone, at each step of each draw."""
    kind, temperature, block = unit
    first = int(block) * BLOCK
    some = [asked(kind, name, number) for number in range(first, min(first + prompts, FOUND[kind]))]
    model = model or load(name)
    run = couple(
        model, _together([one.clean for one in some]), Replace(_together([one.corrupt for one in some])), seeds=DRAWS, steps=steps,
        temperature=float(temperature), seed=first * DRAWS,
    )  # fmt: skip
    source = -np.log1p(-np.minimum(forced(model, run, MAX_BYTES)[1], LARGEST_H))
    damage, loops = run.alignment[0], looping(run.tokens)
    return [
        {
            "prompt": str(first + number), "draw": str(draw), "cluster": one.cluster, "damage": "".join(map(str, damage[number, draw])),
            "loops": str(int(loops[number, draw])), "source": " ".join(map(five, source[number, draw])),
        }
        for number, one in enumerate(some)
        for draw in range(DRAWS)
    ]  # fmt: skip


def influence(name: str, unit: Unit) -> list[Row]:
    """k(tau) of one prompt's continuation."""
    kind, temperature, number = unit
    one = asked(kind, name, int(number))
    found = cascade.reproduction(
        load(name), one.clean, sources=SOURCES, horizon=HORIZON, temperature=float(temperature), seed=int(number)
    )
    return [{f"lag{lag}": five(k) for lag, k in enumerate(found["influence"].to_numpy()[0], start=1)}]


def branches(name: str, unit: Unit) -> list[Row]:
    """What each role of place restores, layer by layer, where two texts part."""
    kind, number = unit
    one = asked(kind, name, int(number))
    try:
        found = cascade.commitment(
            load(name), one.clean, Replace(one.corrupt), seeds=1, steps=STEPS, temperature=1.0, seed=int(number)
        )
    except ResultError:  # its two texts do not part
        return [{"parted": "0"}]
    row: Row = {
        "parted": "1", "cluster": one.cluster, "step": str(found.sizes["position"] - one.clean.shape[1]),
        "branch": found["branch"].item(), "other": found["other_branch"].item(),
    }  # fmt: skip
    for measure in found["measure"].to_numpy():
        here = found.sel(measure=measure)
        for role in found["role"].to_numpy():
            row |= _named(f"{measure}, {role}, ", here["restored"].sel(role=role).to_numpy()[0])
        row |= _named(f"{measure}, random, ", here["random"].to_numpy()[0])
        row |= {f"{measure}, best": five(float(here["best"][0])), f"{measure}, spread": five(float(here["spread"][0]))}
    return [row]


def _by_temperature(blocks: int, size: int = 1, temperatures: Sequence[float] = TEMPERATURES) -> list[Unit]:
    return [
        (kind, f"{t:g}", str(block))
        for block in range(blocks)
        for t in temperatures
        for kind in KINDS
        if block * size < FOUND[kind]
    ]


def measurements() -> dict[str, Measurement]:
    """Every command of the page."""
    found: dict[str, Measurement] = {}
    directions = ("denoising", "noising")
    for name, tail in ((SUBJECT, ""), (TWIN, "-twin")):
        whole = range(30)
        count = PAIRS if name == SUBJECT else 24
        by_direction = [(one, str(pair)) for pair in range(count) for one in directions]
        by_kind = [(kind, str(pair)) for pair in range(count) for kind in KINDS if pair < FOUND[kind]]
        single = [(str(pair),) for pair in range(min(count, FOUND["capitals"]))]
        random_tokens = [(str(sequence),) for sequence in range(count)]
        ledgers = [(kind, str(pair)) for pair in range(count) for kind in ("ioi", "plain")]
        of = "random init" if tail else "as trained"
        found |= {
            f"heads{tail}": Measurement(f"IOI, heads, {of}", ("direction", "pair"), by_direction, partial(heads, name, "ioi", whole)),
            f"stream{tail}": Measurement(f"capitals, resid_pre patched, {of}", ("pair",), single, partial(stream, name)),
            f"lens{tail}": Measurement(f"capitals, logit lens, {of}", ("pair",), single, partial(lens, name)),
            f"detectors{tail}": Measurement(f"what heads attend to, {of}", ("sequence",), random_tokens, partial(detectors, name)),
            f"inside{tail}": Measurement(f"gain, {of}", ("kind", "pair"), by_kind, partial(inside, name)),
            f"ledger{tail}": Measurement(f"ledger of a swapped word, {of}", ("kind", "pair"), ledgers, partial(entries, name)),
        }  # fmt: skip
    by_pair = [(str(pair),) for pair in range(FOUND["capitals"])]
    late = [(one, str(pair)) for pair in range(PAIRS) for one in directions]
    found["heads-late"] = Measurement(
        "IOI, z of the heads of layers 14 to 29, more pairs",
        ("direction", "pair"),
        late,
        partial(heads, SUBJECT, "ioi", LATE),
    )
    countries = [(one, str(pair)) for pair in range(FOUND["capitals"]) for one in directions]
    found["capital-heads"] = Measurement(
        "capitals, z of the heads of layers 14 to 29",
        ("direction", "pair"),
        countries,
        partial(heads, SUBJECT, "capitals", LATE),
    )
    found["traced"] = Measurement("capitals, causal tracing of MLPs", ("pair",), by_pair, partial(traced, SUBJECT))
    parting = [(kind, str(pair)) for pair in range(PAIRS) for kind in KINDS if pair < FOUND[kind]]
    found["commitment"] = Measurement("where branches commit", ("kind", "pair"), parting, partial(branches, SUBJECT))
    keys = ("kind", "temperature", "block")
    for name, tail in ((SUBJECT, ""), (TWIN, "-twin"), (SMALL, "-smalltown"), (SMALL_TWIN, "-smalltown-twin")):
        texts = _by_temperature(PAIRS // BLOCK, BLOCK)
        lags = _by_temperature(8)
        found[f"outside{tail}"] = Measurement(f"coupled texts, {name}", keys, texts, partial(outside, name))
        found[f"influence{tail}"] = Measurement(
            f"k(τ), {name}", ("kind", "temperature", "pair"), lags, partial(influence, name)
        )
    return found


def kept(name: str) -> list[Row]:
    """The rows that are there."""
    path = DATA / f"{name}.csv.gz"
    if not path.exists():
        return []
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(name: str, rows: Sequence[Row]) -> None:
    """Keep rows; what one lacks is empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    DATA.mkdir(parents=True, exist_ok=True)
    path = DATA / f"{name}.csv.gz"
    part = path.with_suffix(".part")
    with (
        part.open("wb") as whole,
        gzip.GzipFile("", "wb", fileobj=whole, mtime=0) as packed,  # the same bytes for the same rows
        io.TextIOWrapper(packed, newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


def measure(name: str, units: int | None = None) -> None:
    """Measure what is not kept, in order, and keep it unit by unit."""
    one = measurements()[name]
    rows = kept(name)
    there = {tuple(row[key] for key in one.keys) for row in rows}
    left = [unit for unit in one.units if unit not in there][:units]
    with progress_bar(True) as bar:
        for unit in bar.track(left, description=name):
            rows += [dict(zip(one.keys, unit, strict=True)) | row for row in one.rows(unit)]
            write(name, rows)


def main() -> None:
    """Measure, list or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("measure")
    one.add_argument("name", choices=measurements())
    one.add_argument("--units", type=int, default=None, help="stop after so many")
    commands.add_parser("names")
    commands.add_parser("page")
    given = parser.parse_args()
    if given.command == "measure":
        measure(given.name, given.units)
    elif given.command == "page":
        from findings_page import write_page

        write_page()
    else:
        console = Console(width=120)
        for name, found in measurements().items():
            there = {tuple(row[key] for key in found.keys) for row in kept(name)}
            console.print(f"{name:24} {len(there):4} of {len(found.units):4}  {found.said}")


if __name__ == "__main__":
    main()
