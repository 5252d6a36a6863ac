"""What a sweep, a stream and a bound on memory may be given: each of these is named as an InterpError.

Run by itself, as users run it: the tests' type checks would refuse most of this before it is looked at.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from inspect import signature
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import xarray as xr

import analyses
import interp
from analyses import cascade
from interp import Intervention, ModelConfig, Row, Set, Transformer
from interp.errors import InterpError
from interp.sweep.interventions import Add, Apply, Patch
from interp.sweep.readouts import EachLayer, Logits, OfLogits

CONFIG = ModelConfig(n_layers=2, d_model=8, n_heads=2, d_head=4, d_mlp=12, n_ctx=24, d_vocab=13, init_std=0.4)
MODEL = Transformer(CONFIG, seed=0).requires_grad_(False).eval().double()
TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]])
STREAM = torch.randn(2, 6, 8, dtype=torch.float64)
POINT = "blocks.0.hook_resid_pre"

STREAMS: list[Any] = [
    *(torch.zeros(shape, dtype=torch.float64) for shape in [(2, 6, 7), (6, 8), (0,)]),
    STREAM.float(), STREAM > 0, STREAM.to("meta"), STREAM.tolist(), STREAM.numpy(), "x",
]  # fmt: skip
NO_STREAM_OF_THESE = [torch.zeros(shape, dtype=torch.float64) for shape in [(3, 6, 8), (1, 6, 8), (2, 7, 8), (2, 5, 8)]]
BOUNDS = [float("nan"), float("inf"), 0, -5, "512", 1e9, None, True, 10**30, [1]]
CHANGES: list[Any] = [
    None, "x", 3, Set, Set("a"), Set(None), Set(1j), Set(object()), Set(np.array(["a"])), Add(torch.tensor(1j)),  # type: ignore[arg-type]
    Patch(None), Patch([1]), Patch(torch.zeros(6, 8, dtype=torch.complex64)),  # type: ignore[arg-type]
    Apply(lambda value: None), Apply(lambda value: value.to("meta")), Apply(lambda value: value.resize_(0)),  # type: ignore[arg-type,return-value]
]  # fmt: skip
ROWS: list[Any] = [None, Row(), [1], [Row(), None], [], iter([])]
READOUTS: list[Any] = [
    None, Logits, "x", OfLogits(lambda logits, prompts: 3), OfLogits(lambda logits, prompts: logits.sum()),  # type: ignore[arg-type,return-value]
    OfLogits(lambda logits, prompts: logits[:1]), EachLayer(lambda a, b: 3), EachLayer(lambda a, b: a[:1]),  # type: ignore[arg-type,return-value]
]  # fmt: skip
NO_FUNCTIONS: list[Any] = [None, "x", 3, torch.zeros(2)]
HOOKS: list[Any] = ["x", None, b"x", 3, [1], [("a",)], {POINT: None}, {POINT: "x"}, [(POINT, 3)]]
IDS: list[Any] = [[], [[]], torch.zeros(2, 0, dtype=torch.long)]
SLICES = [slice("a"), slice(1.5), slice(None, None, 0), slice(True), slice(None, None, 1.0)]


def sweep(rows: Any = None, readout: Any = None, **options: Any) -> Any:
    rows = [Row(), Row(prompt=1)] if rows is None else rows
    return interp.sweep(MODEL, TOKENS, rows, Logits() if readout is None else readout, **options)


def survey_of_one(**options: Any) -> Any:
    with TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_text('{"prompt": [1, 2, 3]}\n')
        return analyses.survey(MODEL, rows, "residual_stream", out=Path(folder) / "out", **options)


def hooked(functions: Any) -> None:
    with MODEL.hooks(functions):
        MODEL(TOKENS)


def bounded() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function that takes a bound on memory."""
    asked = {"answer": 3, "wrong": 4, "smallest_gap": 1e-9}
    one, two = TOKENS[:1], TOKENS[1:]
    yield "sweep", sweep
    given: dict[str, tuple[Any, ...]] = {"causal_tracing": (one,), "direct_logit_attribution": (one,), "head_table": ()}
    given["own_words"] = ()
    extra: dict[str, dict[str, Any]] = {"causal_tracing": {"subject": [1]}, "ablate_heads": {"heads": [(0, 1)]}}
    extra["own_words"] = {"rows": 2, "length": 4}
    whole = analyses.Circuit.whole(MODEL)
    extra |= {name: {"circuit": whole} for name in ("completeness", "minimality")}
    extra |= {"faithfulness": {"circuits": whole}, "faithfulness_curve": {"scores": dict.fromkeys(whole, 1.0)}}
    given["run_circuit"] = (whole, one, two)
    yield "survey", lambda **k: survey_of_one(**k)
    for name in sorted(set(analyses.__all__) - {"survey"}):
        function = getattr(analyses, name)
        if callable(function) and "max_bytes" in signature(function).parameters:
            taken = signature(function).parameters
            options = {key: value for key, value in (asked | extra.get(name, {})).items() if key in taken}
            prompts = given.get(name, (one, two) if "corrupt" in taken else (one,))
            yield name, lambda f=function, p=prompts, o=options, **k: f(MODEL, *p, **o, **k)
    for name in sorted(cascade.__all__):
        function = getattr(cascade, name)
        if callable(function) and "max_bytes" in signature(function).parameters:
            yield f"cascade.{name}", lambda f=function, **k: f(MODEL, TOKENS, **k)


def cascades() -> Iterator[tuple[str, Callable[..., Any]]]:
    """What the cascade is given where a number, a list, or another result belongs."""
    numbers: list[Any] = ["x", None, 1j, True, float("nan"), float("inf"), -1.0, [1.0], object()]
    others: list[Any] = ["x", 3, object(), {}, xr.Dataset(), TOKENS]
    takers = {
        "temperature": ("channels", "commitment", "coupled", "driven", "precision", "reproduction", "survival", "wavefront"),
        "dose": ("compare_directions", "damping", "ledger", "light_cone", "rasters"),
        "rate": ("rasters",),
    }  # fmt: skip
    for argument, names in takers.items():
        for name, value in product(names, numbers):
            if argument == "dose" and value is None:
                continue  # the derivative
            prompts = TOKENS[:1] if name == "wavefront" else TOKENS
            options = {argument: value}
            yield (
                f"cascade.{name}({options!r})",
                lambda n=name, p=prompts, o=options: getattr(cascade, n)(MODEL, p, **o),
            )
    grids = {"precision": "doses", "dose_response": "doses", "temperature_sweep": "temperatures"}
    names = {"precision": "precisions", "compare_directions": "kinds"}
    for name, argument in (
        *grids.items(),
        *names.items(),
        ("compare_directions", "own"),
        ("reproduction", "loop"),
        ("rasters", "texts"),
    ):
        for value in others:
            if not (argument == "own" and isinstance(value, Mapping)):
                options = {argument: value}
                yield f"cascade.{name}({options!r})", lambda n=name, o=options: getattr(cascade, n)(MODEL, TOKENS, **o)
    for name, value in product(("avalanches", "external_verdict", "internal_verdict"), [*others, None]):
        yield f"cascade.{name}({value!r})", lambda n=name, v=value: getattr(cascade, n)(v)
    for value in [*others, None]:
        yield f"cascade.joined_verdict({value!r})", lambda v=value: cascade.joined_verdict(v, v)
    measured = cascade.gain(MODEL, TOKENS, n_directions=1)
    for labels in (
        3.5,
        6,
        "ab",
        {"a", "b"},
        {"a": 1, "b": 2},
        (one for one in "ab"),
        [["a"], ["b"]],
        [{}, {}],
        ["a"],
        TOKENS,
    ):
        yield f"clusters={labels!r}", lambda named=labels: cascade.internal_verdict(measured, clusters=named)
        yield f"clustered({labels!r})", lambda named=labels: within(named, measured)


def within(labels: Any, measured: Any) -> None:
    with analyses.clustered(labels):
        cascade.internal_verdict(measured)


def attacks() -> Iterator[tuple[str, Callable[[], Any]]]:
    for stream in STREAMS:
        yield f"run_blocks of {stream!r}", lambda s=stream: MODEL.run_blocks(s)
    for stream in [*STREAMS, *NO_STREAM_OF_THESE]:
        yield f"residual={stream!r}", lambda s=stream: sweep(residual=s)
    for name, call in bounded():
        for bound in BOUNDS:
            yield f"{name}: max_bytes={bound!r}", lambda c=call, b=bound: c(max_bytes=b)
    yield from cascades()
    for change in CHANGES:
        yield f"change {change!r}", lambda c=change: sweep([Row([Intervention(POINT, c)])])
    for rows in ROWS:
        yield f"rows {rows!r}", lambda r=rows: interp.sweep(MODEL, TOKENS, r, Logits())
    for readout in READOUTS:
        yield f"readout {readout!r}", lambda r=readout: interp.sweep(MODEL, TOKENS, [Row(), Row(prompt=1)], r)
    for made in (Apply, OfLogits, EachLayer):
        for given in NO_FUNCTIONS:
            yield f"{made.__name__}({given!r})", lambda m=made, g=given: m(g)
    for ids in IDS:
        yield f"Logits({ids!r})", lambda i=ids: sweep(readout=Logits(i))
    cache = MODEL.run_with_cache(TOKENS)[1]
    for chosen in SLICES:
        yield f"positions={chosen!r}", lambda c=chosen: sweep([Row([Intervention(POINT, Set(0.0), positions=c)])])
        yield f"cache.at({chosen!r})", lambda c=chosen: cache.at(c)
    for functions in HOOKS:
        yield f"hooks {functions!r}", lambda f=functions: hooked(f)
    for share in ("x", 1j, [0.5]):
        yield f"top_p={share!r}", lambda p=share: MODEL.generate(TOKENS, max_new_tokens=1, top_p=p)
    for rate in ("x", None, 1j, True, float("nan"), [1.0]):
        yield f"learning_rate={rate!r}", lambda r=rate: analyses.train_tuned_lens(MODEL, TOKENS, learning_rate=r)
    for temperature in ("x", None, 1j, True, 0, float("nan"), [1.0]):
        yield f"own words at {temperature!r}", lambda t=temperature: analyses.own_words(MODEL, temperature=t)
    for path in ("a" * 400, "~no-such-user/x", "a\0"):
        yield f"load {path[:9]!r}", lambda p=path: interp.load(p)
        yield f"load(tokenizer={path[:9]!r})", lambda p=path: interp.load(tokenizer=p)
        yield f"analyses.load {path[:9]!r}", lambda p=path: analyses.load(p)
    yield "published_lens", lambda: analyses.published_lens("a" * 400, MODEL)
    yield "coupled", lambda: cascade.coupled(MODEL, TOKENS, folder=Path("a" * 400))


if __name__ == "__main__":
    count, wrong = 0, []
    for what, attack in attacks():
        count += 1
        try:
            attack()
            wrong.append(f"{what} was taken")
        except InterpError:
            pass
        except Exception as error:  # noqa: BLE001 - whatever else it raises is the finding
            wrong.append(f"{what}: {type(error).__name__}: {error}")
    sys.stdout.write("\n".join([str(count), *wrong]) + "\n")
    sys.exit(bool(wrong))
