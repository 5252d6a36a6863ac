"""Every place where a user gives a whole number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

import analyses
import interp
from analyses import cascade
from interp import Intervention, ModelConfig, Row, Set, Transformer
from interp.sweep.readouts import LogitDifference, Logits

CONFIG = ModelConfig(n_layers=2, d_model=8, n_heads=2, d_head=4, d_mlp=12, n_ctx=24, d_vocab=13, init_std=0.4)
MODEL = Transformer(CONFIG, seed=0).requires_grad_(False).eval().double()
TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]])
ONE, TWO = TOKENS[:1], TOKENS[1:]
ASKED = {"answer": 3, "wrong": 4}
GAP = {**ASKED, "smallest_gap": 1e-9}


@dataclass(frozen=True)
class Place:
    """One argument of one public call.

    Args:
        name: for the report.
        call: with a value there.
        good: one that it takes; a list where it takes several.
        optional: None is a value too.
        from_end: -1 is the last, `last` counted from the front.
        lowest: the least that is taken.
    """

    name: str
    call: Callable[[Any], Any]
    good: Any
    optional: bool = False
    last: int | None = None
    lowest: int | None = 0
    texts: bool = False
    pairs: bool = False


def each_argument(
    calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]], about: Callable[[str, str], dict[str, Any]]
) -> Iterator[Place]:
    """Of calls by name, each with good values by argument; `about` gives the rest of a place by both names."""
    for name, (call, arguments) in calls.items():
        for argument, good in arguments.items():
            yield Place(
                f"{name}.{argument}",
                lambda v, call=call, argument=argument: call(**{argument: v}),
                good,
                **about(name, argument),
            )


def places() -> Iterator[Place]:
    """All of them."""
    yield from engine()
    yield from model_calls()
    yield from patching()
    yield from lenses_and_attention()
    yield from inside()
    yield from outside()


def swept(**given: Any) -> Any:
    where = {"positions": None, "heads": None, "neurons": None} | given
    name = "blocks.1.mlp.hook_post" if where["neurons"] is not None else "blocks.1.attn.hook_z"
    rows = [Row([Intervention(name, Set(0.0), **where)])]
    return interp.sweep(MODEL, ONE, rows, Logits()).values


def read(position: Any) -> Any:
    return interp.sweep(MODEL, ONE, [Row()], Logits(position=position)).base


def engine() -> Iterator[Place]:
    yield Place("Intervention.positions", lambda v: swept(positions=v), [3, 1], optional=True, last=5, lowest=None)
    yield Place("Intervention.positions, one", lambda v: swept(positions=v), 3, optional=True, last=5, lowest=None)
    yield Place("Intervention.heads", lambda v: swept(heads=v), [1], optional=True)
    yield Place("Intervention.heads, one", lambda v: swept(heads=v), 1, optional=True)
    yield Place("Intervention.neurons", lambda v: swept(neurons=v), [3, 1], optional=True)
    yield Place("Row.prompt", lambda v: interp.sweep(MODEL, TOKENS, [Row(prompt=v)], Logits()).values, 1)
    yield Place("Logits.position", read, 3, last=5, lowest=None)
    yield Place(
        "Logits.position, each",
        lambda v: interp.sweep(MODEL, TOKENS, [Row()], Logits(position=v)).base,
        [3, 1],
        lowest=None,
    )
    yield Place(
        "Logits.tokens",
        lambda v: interp.sweep(MODEL, ONE, [Row()], Logits(v)).base,
        torch.tensor([[3, 4]]),
        optional=True,
    )
    yield Place(
        "LogitDifference.answer",
        lambda v: interp.sweep(MODEL, ONE, [Row()], LogitDifference(v, torch.tensor([4]))).base,
        torch.tensor([3]),
    )


def model_calls() -> Iterator[Place]:
    _, cache = MODEL.run_with_cache(ONE)
    x = MODEL.embed(ONE)
    yield Place("cache.at", lambda v: cache.at(v)["resid_pre", 1], [3, 1], last=5, lowest=None)
    yield Place("cache.at, one", lambda v: cache.at(v)["resid_pre", 1], 3, last=5, lowest=None)
    yield Place("cache[name, layer]", lambda v: cache["z", v], 1)
    yield Place("run_blocks.start_at_layer", lambda v: MODEL.run_blocks(x, start_at_layer=v), 1)
    yield Place("run_blocks.stop_at_layer", lambda v: MODEL.run_blocks(x, stop_at_layer=v), 1, optional=True)
    yield Place("decompose.layer", lambda v: interp.decompose(MODEL, cache, layer=v).parts, 1, optional=True)
    yield Place("to_single_token", MODEL.to_single_token, 3)
    yield Place(
        "Transformer.seed",
        lambda v: Transformer(CONFIG, seed=v).W_E.detach().double() if v is not None else None,
        3,
        optional=True,
    )
    for name, good in (("n_layers", 2), ("d_model", 8), ("n_heads", 2), ("n_ctx", 24), ("d_vocab", 13)):
        yield Place(
            f"ModelConfig.{name}", lambda v, name=name: replace(CONFIG, **{name: v}).to_dict()[name], good, lowest=1
        )
    yield Place(
        "ModelConfig.window", lambda v: replace(CONFIG, window=v).to_dict()["window"], 2, optional=True, lowest=1
    )
    yield Place(
        "ModelConfig.windowed_layers",
        lambda v: list(replace(CONFIG, window=2, windowed_layers=v).to_dict()["windowed_layers"] or []),
        [1],
        optional=True,
    )
    for name, good in (("max_new_tokens", 3), ("top_k", 2), ("seed", 5)):
        yield Place(
            f"generate.{name}",
            lambda v, name=name: MODEL.generate(ONE, **{"max_new_tokens": 3, name: v}),
            good,
            optional=name == "top_k",
            lowest=None if name == "seed" else 1,
        )
    yield Place("generate.stop", lambda v: MODEL.generate(ONE, max_new_tokens=3, stop=v), [3], optional=True)


def patching() -> Iterator[Place]:
    calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "activation_patching": (
            lambda **k: analyses.activation_patching(MODEL, ONE, TWO, **(GAP | {"layers": [1]} | k)),
            {"answer": 3, "wrong": 4, "position": 3, "layers": [1, 0], "window": 2},
        ),
        "attribution_patching": (
            lambda **k: analyses.attribution_patching(MODEL, ONE, TWO, **(GAP | {"layers": [1]} | k)),
            {"answer": 3, "position": 3, "layers": [1], "verify": 2},
        ),
        "compare_patching": (
            lambda **k: analyses.compare_patching(MODEL, ONE, TWO, **(GAP | {"layers": [1]} | k)),
            {"answer": 3, "position": 3, "layers": [1], "window": 2},
        ),
        "causal_tracing": (
            lambda **k: analyses.causal_tracing(
                MODEL, ONE, **({"subject": [1, 2], "draws": 2, "layers": [1], "smallest_gap": 1e-9} | k)
            ),
            {"subject": [1, 2], "draws": 2, "position": 3, "layers": [1], "window": 2, "seed": 3, "answer": 3},
        ),
        "ablate_heads": (
            lambda **k: analyses.ablate_heads(MODEL, TOKENS, **(ASKED | {"heads": [(1, 0)], "controls": 2} | k)),
            {"answer": 3, "position": 3, "controls": 2, "seed": 3},
        ),
        "head_importance": (
            lambda **k: analyses.head_importance(MODEL, ONE, TWO, **(GAP | k)),
            {"answer": 3, "position": 3},
        ),
        "direct_logit_attribution": (
            lambda **k: analyses.direct_logit_attribution(MODEL, ONE, **(ASKED | k)),
            {"answer": 3, "position": 3, "top_neurons": 3},
        ),
        "edge_patching": (
            lambda **k: analyses.edge_patching(MODEL, ONE, TWO, **(GAP | k)),
            {"answer": 3, "position": 3, "layers": [1]},
        ),
        "edge_attribution": (
            lambda **k: analyses.edge_attribution(MODEL, ONE, TWO, **(ASKED | {"verify": 2} | k)),
            {"answer": 3, "position": 3, "layers": [1], "steps": 2, "verify": 1},
        ),
        "path_patching": (
            lambda **k: analyses.path_patching(MODEL, ONE, TWO, **(GAP | k)),
            {"answer": 3, "position": 3, "positions": [3, 1]},
        ),
    }
    optional = {("causal_tracing", "answer"), ("direct_logit_attribution", "answer"), ("activation_patching", "wrong")}
    lowest = {"position": None, "positions": None, "window": 1, "draws": 1, "subject": None, "controls": 0, "steps": 1}
    yield from each_argument(
        calls,
        lambda name, argument: {
            "optional": argument in ("layers", "positions") or (name, argument) in optional,
            "last": 5 if argument in ("position", "positions") else None,
            "lowest": lowest.get(argument, 0),
            "texts": argument in ("answer", "wrong", "subject"),
        },
    )
    yield Place(
        "ablate_heads.heads, a head",
        lambda v: analyses.ablate_heads(MODEL, TOKENS, **ASKED, heads=[(1, v)], controls=1),
        1,
    )
    yield Place(
        "ablate_heads.heads, a pair",
        lambda v: analyses.ablate_heads(MODEL, TOKENS, **ASKED, heads=[v], controls=1),
        [1, 0],
        pairs=True,
    )
    yield Place(
        "ablate_heads.heads",
        lambda v: analyses.ablate_heads(MODEL, TOKENS, **ASKED, heads=v, controls=1),
        [[1, 0]],
        pairs=True,
    )


def lenses_and_attention() -> Iterator[Place]:
    for name in ("logit_lens", "component_lens"):
        lens = getattr(analyses, name)
        yield Place(
            f"{name}.positions", lambda v, lens=lens: lens(MODEL, ONE, positions=v), [3, 1], optional=True, lowest=None
        )
        yield Place(
            f"{name}.positions, one", lambda v, lens=lens: lens(MODEL, ONE, positions=v), 3, optional=True, lowest=None
        )
        yield Place(f"{name}.candidates", lambda v, lens=lens: lens(MODEL, ONE, candidates=v), [3, 1], texts=True)
        yield Place(f"{name}.top_k", lambda v, lens=lens: lens(MODEL, ONE, top_k=v), 2, optional=True, lowest=1)
    texts = TOKENS.repeat(8, 2)
    for name, good in (("steps", 2), ("rows", 2), ("length", 4), ("validate_every", 1), ("patience", 2), ("seed", 3)):
        yield Place(
            f"train_tuned_lens.{name}",
            lambda v, name=name: torch.cat(
                [
                    t.flatten()
                    for t in analyses.train_tuned_lens(
                        MODEL, texts, **{"steps": 1, "rows": 1, "length": 4, "validate_every": 1, name: v}
                    ).weight.double()
                ]
            ),
            good,
            lowest=0 if name == "seed" else 1,
        )
    for name in ("circuit_slice", "singular_tokens"):
        extra = (
            {"circuit": "ov", "rows": [1], "columns": [2]} if name == "circuit_slice" else {"vectors": 1, "top_k": 2}
        )
        call = lambda k, name=name, extra=extra: getattr(analyses, name)(MODEL, **({"layer": 1, "head": 1} | extra | k))  # noqa: E731
        for argument, good in ({"layer": 1, "head": 1} | extra).items():
            if argument != "circuit":
                yield Place(
                    f"{name}.{argument}",
                    lambda v, call=call, argument=argument: call({argument: v}),
                    good,
                    optional=argument in ("vectors", "top_k"),
                    lowest=1 if argument in ("vectors", "top_k") else 0,
                )
    for name, good in (("length", 5), ("count", 2), ("seed", 3)):
        yield Place(
            f"detect_heads.{name}",
            lambda v, name=name: analyses.detect_heads(MODEL, **{"length": 4, "count": 1, name: v}),
            good,
            optional=name == "length",
            lowest=0 if name == "seed" else 1,
        )
        yield Place(
            f"head_table.{name}",
            lambda v, name=name: analyses.head_table(MODEL, **{"length": 4, "count": 1, name: v}),
            good,
            optional=name == "length",
            lowest=0 if name == "seed" else 1,
        )
    for name, good in (("draws", 2), ("seed", 3)):
        yield Place(
            f"composition.{name}",
            lambda v, name=name: analyses.composition(MODEL, **{"draws": 2, name: v}),
            good,
            lowest=0 if name == "seed" else 1,
        )
    for name, good in (("tokens", [3, 1, 2]), ("top_k", 2), ("n_axes", 2)):
        yield Place(
            f"embedding_structure.{name}",
            lambda v, name=name: analyses.embedding_structure(MODEL, **({"tokens": [1, 2, 3]} | {name: v})),
            good,
            optional=name != "tokens",
            lowest=0 if name == "tokens" else 1,
            texts=name == "tokens",
        )
    patterns = analyses.attention_patterns(MODEL, TOKENS)
    for name in ("prompt", "layer", "head"):
        viewer = lambda v, name=name: bool(analyses.attention_viewer(patterns, **{name: v}))  # noqa: E731
        yield Place(f"attention_viewer.{name}", viewer, 1)
    for name in ("prompt", "layer"):
        drawn = lambda v, name=name: analyses.plot(patterns, **{name: v}).to_dict()["layout"]["title"]  # noqa: E731
        yield Place(f"plot(attention).{name}", drawn, 1, optional=name == "layer")


def inside() -> Iterator[Place]:
    calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "gain": (
            lambda **k: cascade.gain(MODEL, TOKENS, **({"n_directions": 1} | k)),
            {"layer": 1, "n_directions": 2, "seed": 3},
        ),
        "damping": (
            lambda **k: cascade.damping(MODEL, ONE, **({"n_directions": 1} | k)),
            {"layer": 1, "n_directions": 2, "seed": 3},
        ),
        "light_cone": (
            lambda **k: cascade.light_cone(MODEL, TOKENS, **({"n_directions": 1} | k)),
            {"layer": 1, "n_directions": 2, "seed": 3},
        ),
        "compare_directions": (
            lambda **k: cascade.compare_directions(
                MODEL, TOKENS, **({"kinds": ("isotropic", "token"), "n_directions": 1} | k)
            ),
            {"layer": 1, "n_directions": 2, "seed": 3},
        ),
        "dose_response": (
            lambda **k: cascade.dose_response(
                MODEL, ONE, **({"doses": [0.01, 0.1, 0.3], "n_directions": 1, "position": 2} | k)
            ),
            {"layer": 1, "position": 3, "target": 4, "n_directions": 2, "seed": 3},
        ),
        "jacobian_spectrum": (
            lambda **k: cascade.jacobian_spectrum(MODEL, ONE, **({"k": 2, "probes": 2} | k)),
            {"k": 2, "probes": 3, "seed": 3},
        ),
        "lyapunov": (lambda **k: cascade.lyapunov(MODEL, ONE, **({"k": 2} | k)), {"k": 2, "position": 3, "seed": 3}),
        "participation": (
            lambda **k: cascade.participation(MODEL, TOKENS, **k),
            {"position": 3, "layer": 1, "probes": 9},
        ),
        "participation by probes": (
            lambda **k: cascade.participation(MODEL, TOKENS, **({"probes": 8} | k)),
            {"seed": 3},
        ),
        "ledger": (lambda **k: cascade.ledger(MODEL, TOKENS, **k), {"layer": 1, "position": 3, "seed": 3}),
        "random_twin": (lambda seed: cascade.random_twin(MODEL, seed).W_E, {"seed": 3}),
        "precision": (
            lambda **k: cascade.precision(MODEL, ONE, **({"doses": [0.1], "n_directions": 1, "position": 2} | k)),
            {"layer": 1, "position": 3, "n_directions": 2, "seed": 3},
        ),
        "stable_regions": (
            lambda **k: cascade.stable_regions(
                MODEL, TOKENS, **({"points": 3, "pairs": 1, "doses": [0.1, 0.3, 1.0], "layers": [1], "position": 2} | k)
            ),
            {"layers": [1, 0], "points": 4, "position": 3, "pairs": 2, "seed": 3},
        ),
        "rasters": (
            lambda **k: cascade.rasters(MODEL, TOKENS, **({"n_directions": 1, "draws": 2} | k)),
            {"layer": 0, "position": 3, "n_directions": 2, "draws": 3, "seed": 3},
        ),
    }
    optional = {
        ("jacobian_spectrum", "k"), ("lyapunov", "k"), ("lyapunov", "position"), ("participation", "probes"),
        ("stable_regions", "layers"), ("rasters", "position"),
    }  # fmt: skip
    lowest = {"layer": 0, "layers": 0, "seed": 0, "position": None, "target": None, "probes": 8, "points": 3}
    yield from each_argument(
        calls,
        lambda name, argument: {
            "optional": (name, argument) in optional,
            "last": 5
            if argument in ("position", "target") and name != "rasters"
            else None,  # whose last position nothing follows
            "lowest": 1 if (name, argument) == ("jacobian_spectrum", "probes") else lowest.get(argument, 1),
        },
    )
    for end, pair in (("source", [0, 3]), ("target", [2, 5])):
        yield Place(
            f"jacobian_spectrum.{end}",
            lambda v, end=end: cascade.jacobian_spectrum(MODEL, ONE, k=2, **{end: v}),
            pair,
            optional=end == "target",
            pairs=True,
        )
        yield Place(
            f"jacobian_spectrum.{end}, layer",
            lambda v, end=end, at=pair[1]: cascade.jacobian_spectrum(MODEL, ONE, k=2, **{end: (v, at)}),
            pair[0],
        )
        yield Place(
            f"jacobian_spectrum.{end}, position",
            lambda v, end=end, at=pair[0]: cascade.jacobian_spectrum(MODEL, ONE, k=2, **{end: (at, v)}),
            pair[1],
            last=5,
            lowest=None,
        )
    yield Place("self_repair.head", lambda v: cascade.self_repair(MODEL, TOKENS, v, **ASKED), [1, 0], pairs=True)
    yield Place("self_repair.head, a head", lambda v: cascade.self_repair(MODEL, TOKENS, (1, v), **ASKED), 1)
    yield Place(
        "self_repair.position",
        lambda v: cascade.self_repair(MODEL, TOKENS, (0, 0), **ASKED, position=v),
        3,
        last=5,
        lowest=None,
    )


def outside() -> Iterator[Place]:
    few = {"seeds": 1, "steps": 3}
    calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "coupled": (lambda **k: cascade.coupled(MODEL, TOKENS, **(few | k)), {"seeds": 2, "steps": 2, "seed": 3}),
        "channels": (lambda **k: cascade.channels(MODEL, TOKENS, **(few | k)), {"seeds": 2, "steps": 2, "seed": 3}),
        "survival": (lambda **k: cascade.survival(MODEL, TOKENS, **(few | k)), {"seeds": 2, "steps": 2, "seed": 3}),
        "temperature_sweep": (
            lambda **k: cascade.temperature_sweep(
                MODEL, TOKENS, **({"temperatures": (0.5, 0.7, 1.0, 1.5, 2.0), "lengths": (4, 5, 6), "seeds": 1} | k)
            ),
            {"lengths": [4, 6, 8], "seeds": 2, "seed": 3},
        ),
        "reproduction": (
            lambda **k: cascade.reproduction(MODEL, TOKENS, **({"sources": 2, "horizon": 2} | k)),
            {"sources": 1, "horizon": 3, "seed": 3},
        ),
        "driven": (
            lambda **k: cascade.driven(MODEL, TOKENS, **({"sources": 2, "horizon": 2} | few | k)),
            {"seeds": 2, "steps": 4, "sources": 1, "horizon": 3, "seed": 3},
        ),
        "commitment": (
            lambda **k: cascade.commitment(MODEL, TOKENS, cascade.Unrelated(), **({"seeds": 2, "steps": 8} | k)),
            {"seeds": 3, "steps": 6, "seed": 3},
        ),
        "wavefront": (
            lambda **k: cascade.wavefront(MODEL, ONE, **({"steps": 2, "twin": False} | k)),
            {"steps": 3, "seed": 3},
        ),
    }
    yield from each_argument(calls, lambda _, argument: {"lowest": 0 if argument == "seed" else 1})
    for name, good in (("position", 3), ("token", 1)):
        yield Place(
            f"Swap.{name}",
            lambda v, name=name: cascade.coupled(MODEL, TOKENS, cascade.Swap(**({"position": 3} | {name: v})), **few),
            good,
            optional=name == "token",
            last=5 if name == "position" else None,
            lowest=None if name == "position" else 0,
        )
    for name in ("layer", "step", "seed"):
        yield Place(
            f"Nudge.{name}", lambda v, name=name: cascade.coupled(MODEL, TOKENS, cascade.Nudge(**{name: v}), **few), 1
        )
    found = cascade.coupled(MODEL, TOKENS.repeat(3, 1), **few)
    yield Place("avalanches.gap", lambda v: cascade.avalanches(found, gap=v), 2, lowest=1)
