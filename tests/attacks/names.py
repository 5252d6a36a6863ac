"""Every place where a user gives a name, and everything that is none: each is an InterpError. Run by itself, see `indices.py`."""

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from places import GAP, MODEL, ONE, TOKENS, TWO

import analyses
import interp
from analyses import cascade
from analyses.cascade import Nudge
from interp import Intervention, Row, Set
from interp.errors import InterpError
from interp.sweep.readouts import Logits
from interp.transformer_lens import HookedTransformer, HookedTransformerConfig, utils
from interp.zoo import task

NO_NAMES: list[Any] = [
    3, 2.7, True, None, [], {}, set(), ["nothing"], [["z"]], [3], np.array(["z", "q"]), np.str_("zz"), torch.tensor([1]), b"z", object(),
    "nothing", "", "\udcff",
]  # fmt: skip

_, CACHE = MODEL.run_with_cache(ONE)
LENS = analyses.logit_lens(MODEL, ONE)


def patched(**options: Any) -> Any:
    return analyses.activation_patching(MODEL, ONE, TWO, **(GAP | {"layers": [1]} | options))


def swept(name: Any) -> Any:
    return interp.sweep(MODEL, ONE, [Row([Intervention(name, Set(0.0))])], Logits())


def hooked(names: Any) -> None:
    with MODEL.hooks([(names, lambda value, hook: None)]):
        MODEL(ONE)


def edged(**options: Any) -> Any:
    return analyses.edge_patching(MODEL, ONE, TWO, **(GAP | options))


def along(**options: Any) -> Any:
    return analyses.path_patching(MODEL, ONE, TWO, **(GAP | options))


def unless_number(value: Any) -> Any:
    """What is no number, and no truth value in the place of one."""
    return "x" if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def circuit_of(names: Any) -> Any:
    return analyses.Circuit.of(MODEL, "x" if isinstance(names, (list, set, dict)) and not names else names)


def unless_whole(value: Any) -> Any:
    """Nothing that is a whole number, or stands for the default."""
    return float("nan") if value is None or type(value) is int else value


def surveyed(**options: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_text('{"prompt": [1, 2, 3, 4], "answer": 3, "wrong": 4}\n', encoding="utf-8")
        asked = options.get("options")
        name = "direct_logit_attribution" if isinstance(asked, dict) and "ablation" in asked else "logit_lens"
        return analyses.survey(MODEL, rows, name, out=Path(folder) / "out", **options)


def config(**fields: Any) -> Any:
    return HookedTransformerConfig(
        **(
            {"n_layers": 1, "d_model": 4, "n_ctx": 8, "d_head": 2, "d_vocab": 5, "act_fn": "relu", "device": "cpu"}
            | fields
        )
    )


NO_GAPS: list[Any] = [-1, -0.5, float("nan"), "x", True, [0.1], np.array([1.0, 2.0]), object()]
PATCHING = (
    analyses.activation_patching, analyses.attribution_patching, analyses.compare_patching, analyses.edge_patching, analyses.causal_tracing,
    analyses.head_importance, analyses.path_patching,
)  # fmt: skip
NAMES: dict[str, Callable[[Any], Any]] = {
    "site": lambda v: patched(site=v),
    "replacement": lambda v: patched(replacement=v),
    "metric": lambda v: patched(metric=v),
    "direction or None": lambda v: patched(direction=v),
    "methods": lambda v: analyses.compare_patching(
        MODEL, ONE, TWO, **GAP, methods=[(v, "resample", "logit_difference")]
    ),
    "ablate_heads.replacement": lambda v: analyses.ablate_heads(
        MODEL, ONE, heads=[(0, 0)], answer=1, wrong=2, replacement=v
    ),
    "ablation": lambda v: analyses.direct_logit_attribution(MODEL, ONE, answer=1, wrong=2, ablation=v),
    "attributed metric or None": lambda v: analyses.direct_logit_attribution(MODEL, ONE, answer=1, wrong=2, metric=v),
    "edge sources or None": lambda v: edged(sources=v),
    "edge destinations or None": lambda v: edged(destinations=v),
    "edge direction": lambda v: edged(direction=v),
    "edge replacement": lambda v: edged(replacement=v),
    "edge metric": lambda v: edged(metric=v),
    "edge method": lambda v: analyses.edge_attribution(MODEL, ONE, TWO, answer=1, wrong=2, method=v),
    "path senders or None": lambda v: along(senders=v),
    "path receivers": lambda v: along(receivers=v),
    "path norm": lambda v: along(norm=v),
    "path direction": lambda v: along(direction=v),
    "path replacement": lambda v: along(replacement=v),
    "path metric": lambda v: along(metric=v),
    "path through_mlps": lambda v: along(receivers="logits", through_mlps="x" if v is True else v),
    "circuit's edges": circuit_of,
    "circuit's model": lambda v: analyses.Circuit.of(v, []),
    "circuit's scores": lambda v: analyses.Circuit.from_scores(v, model=MODEL, count=0),
    "circuit's score": lambda v: analyses.Circuit.from_scores({"input->m0": unless_number(v)}, model=MODEL, count=0),
    "circuit's threshold": lambda v: analyses.Circuit.from_scores(
        {"input->m0": 1.0}, model=MODEL, threshold=unless_number(v)
    ),
    "curve's scores": lambda v: analyses.faithfulness_curve(MODEL, ONE, TWO, **GAP, scores=v),
    "eap_ig": lambda v: analyses.write_eap_ig(Path("never"), v),
    "graphml": lambda v: analyses.write_graphml(Path("never"), v),
    "networkx": analyses.to_networkx,
    "circuit": lambda v: analyses.singular_tokens(MODEL, 0, 0, circuit=v),
    "embedding": lambda v: analyses.copying_scores(MODEL, embedding=v),
    "directions": lambda v: cascade.gain(MODEL, TOKENS, directions=v),
    "kinds": lambda v: cascade.compare_directions(MODEL, TOKENS, kinds=[v]),
    "precisions": lambda v: cascade.precision(MODEL, TOKENS, precisions=[v]),
    "color": lambda v: analyses.plot(LENS, color=v),
    "task": task,
    "circuit:": lambda v: interp.load(f"circuit:{v}"),
    "sweep": swept,
    "run_with_cache or None": lambda v: MODEL.run_with_cache(ONE, v),
    "hooks or None": hooked,
    "cache[]": lambda v: CACHE[v],
    "cache[, layer]": lambda v: CACHE[v, 1],
    "cache.stack": CACHE.stack,
    "load": interp.load,
    "to_tokens": lambda v: (
        MODEL.to_tokens(v) if not isinstance(v, (list, torch.Tensor)) else MODEL.to_tokens("nothing")
    ),
    "disturbance or None": lambda v: cascade.coupled(MODEL, TOKENS, v, seeds=1, steps=2),
    "survival's disturbance or None": lambda v: cascade.survival(MODEL, TOKENS, v, seeds=1, steps=2),
    "driven's disturbance or None": lambda v: cascade.driven(MODEL, TOKENS, v, seeds=1, steps=2),
    "channels' disturbance or None": lambda v: cascade.channels(MODEL, TOKENS, v, seeds=1, steps=4),
    "wavefront's disturbance or None": lambda v: cascade.wavefront(MODEL, ONE, v, steps=2, twin=False),
    "commitment's disturbance or None": lambda v: cascade.commitment(MODEL, TOKENS, v, seeds=1, steps=2),
    "temperature's disturbance or None": lambda v: cascade.temperature_sweep(MODEL, TOKENS, v, seeds=1),
    "survey's options or None": lambda v: surveyed(options=5 if isinstance(v, dict) else v),
    "survey's load_options or None": lambda v: surveyed(load_options=5 if isinstance(v, dict) else v),
    "survey's top_k": lambda v: surveyed(options={"top_k": unless_whole(v)}),
    "survey's reference": lambda v: surveyed(options={"ablation": v}),
    "disturbance vector or None": lambda v: cascade.coupled(MODEL, TOKENS, Nudge(vector=v), seeds=1, steps=2),
    "disturbance dose": lambda v: cascade.coupled(
        MODEL,
        TOKENS,
        Nudge(dose=-1 if isinstance(v, (int, float)) and not isinstance(v, bool) else v),
        seeds=1,
        steps=2,
    ),
}


HOOKED = HookedTransformer(config(n_layers=2))
TOWN = HookedTransformer.from_pretrained("smalltown", device="cpu")
NO_WHOLE: list[Any] = [
    True,
    1.0,
    1.5,
    float("nan"),
    "a",
    None,
    [[1.0]],
    object(),
    99,
    torch.tensor(True),
    np.float64(1),
    {},
    b"a",
]
NOT_IN_ROWS: list[Any] = [
    [[1, 2], [1]], [[1], 2], np.array([1, "a"], dtype=object), np.array(["a"]), [[1.0]], [[True]], torch.ones(2), -1, 99, None, {}, {1},
]  # fmt: skip
WHOLE: dict[str, Callable[[Any], Any]] = {
    "QK[]": lambda v: HOOKED.QK[v],
    "QK[..., ]": lambda v: HOOKED.QK[..., v],
    "QK[slice]": lambda v: HOOKED.QK[slice("a" if v is None or v == 99 else v, None)],
    "QK.get_corner": lambda v: HOOKED.QK.get_corner(-1 if isinstance(v, int) and v == 99 else v),
    "blocks[]": lambda v: HOOKED.blocks[v],
    "test_prompt's top_k": lambda v: utils.test_prompt(
        "They", " saw", TOWN, top_k=-1 if isinstance(v, int) and v == 99 else v
    ),
    **{
        f"HookedTransformerConfig.{name}": lambda v, name=name: config(
            **{name: -7 if isinstance(v, int) and v == 99 else v}
        )
        for name in ("n_layers", "d_model", "n_ctx", "d_head", "n_heads", "d_vocab")
    },
}
LOSSES: list[Any] = [
    torch.ones(1, 5, dtype=torch.long),
    torch.ones(1, 3),
    [[1, 2, 3]],
    None,
    torch.full((1, 3), 9),
    torch.full((1, 3), -1),
]


def of_the_layer() -> list[tuple[str, Callable[[Any], Any], Any]]:
    """Places of `interp.transformer_lens` with what each does not take."""
    logits, ids = torch.zeros(1, 3, 5), torch.ones(1, 3, dtype=torch.long)
    return [
        *((place, call, value) for place, call in WHOLE.items() for value in NO_WHOLE),
        *(("to_directions", HOOKED.tokens_to_residual_directions, value) for value in NOT_IN_ROWS),
        *(("loss's tokens", lambda v: utils.lm_cross_entropy_loss(logits, v), value) for value in LOSSES),
        *(("loss's tokens, masked", lambda v: utils.lm_cross_entropy_loss(logits, v, ids), value) for value in LOSSES),
        *(("act_fn", lambda v: HookedTransformer(config(act_fn=v)), value) for value in (True, "a", ["a"], {"a": 1}, object())),
        *(("loss's mask", lambda v: utils.lm_cross_entropy_loss(logits, ids, v), value) for value in ([[1]], 3, ids[:, :2])),
        *((f"config's {name}", lambda v, name=name: config(**{name: v}), value)
          for name in ("eps", "attn_scale", "rotary_base", "attn_types") for value in (True, "a", [], {}, object())),
    ]  # fmt: skip


GRIDS = {
    "stable_regions": lambda v: cascade.stable_regions(MODEL, TOKENS, doses=v),
    "dose_response": lambda v: cascade.dose_response(MODEL, TOKENS, doses=v),
    "precision": lambda v: cascade.precision(MODEL, TOKENS, doses=v),
    "temperature_sweep": lambda v: cascade.temperature_sweep(MODEL, TOKENS, temperatures=v, lengths=(4, 5, 6), seeds=1),
}


def parameters_in_any_form() -> None:
    """What is taken is kept with the result, in whatever form it came."""
    for number in (np.float32(0.5), np.float64(0.5), 0.5):
        run = cascade.coupled(MODEL, TOKENS, seeds=np.int64(1), steps=torch.tensor(2), temperature=number)
        assert "0.5" in run.attrs["parameters"]
        cascade.gain(MODEL, TOKENS, dose=number, n_directions=1)
    with tempfile.TemporaryDirectory() as folder:
        options = {"steps": np.int64(1), "rows": 1, "length": 4, "learning_rate": np.float32(0.01)}
        lens = analyses.train_tuned_lens(MODEL, TOKENS.repeat(4, 1), out=Path(folder) / "lens", **options)
        analyses.save_lens(lens, Path(folder) / "again")
    ones = [Nudge(vector=vector).about() for vector in (torch.ones(8), np.ones(8, dtype=int), [1] * 8)]
    assert ones[0] == ones[1] == ones[2]


def main() -> int:
    """Print every fault; their number."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = 0
    wrong = [(place, call, value) for place, call in NAMES.items() for value in NO_NAMES]
    for call in PATCHING:
        given = (ONE,) if call is analyses.causal_tracing else (ONE, TWO)
        asked = {"subject": [1], "answer": 1} if call is analyses.causal_tracing else {"answer": 1, "wrong": 2}
        with_gap = lambda v, call=call, given=given, asked=asked: call(MODEL, *given, **asked, smallest_gap=v)  # noqa: E731
        wrong += [(f"{call.__name__}.smallest_gap", with_gap, value) for value in NO_GAPS]
    wrong += of_the_layer()
    wrong += [("disturbance, a class", lambda v: cascade.coupled(MODEL, TOKENS, v, seeds=1, steps=2), cascade.Swap)]
    for options in (iter([]), torch.ones(2), (name for name in "a"), 0, False):
        wrong += [("survey's options", lambda v: surveyed(options=v), options)]
    wrong += [("survey's positions", lambda v: surveyed(options={"positions": v}), float("nan"))]
    grids = ("x", None, ["a"], 5, [[1, 2], [3]], True, 1j, [1j] * 5, [True] * 5, [float("inf")] * 5, iter([2, 1, 0]))
    wrong += [(f"{name}'s grid", call, value) for name, call in GRIDS.items() for value in grids]
    wrong += [("rasters' dose", lambda v: cascade.rasters(MODEL, TOKENS, dose=v), None)]
    wrong += [("temperature", lambda v: cascade.coupled(MODEL, TOKENS, temperature=v, seeds=1, steps=2), True)]
    for place, call, value in wrong:
        if value is None and place.endswith("or None"):
            continue
        try:
            call(value)
        except InterpError:
            continue
        except Exception as error:  # noqa: BLE001
            said = f"is unnamed: {type(error).__name__}: {str(error)[:120]}"
        else:
            said = "is silent"
        print(f"{place}: {value!r} {said}")  # noqa: T201
        found += 1
    parameters_in_any_form()
    return found


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
