"""Every kind of figure once, on smalltown: `python docs/gallery.py` writes gallery.md and its pictures."""

from collections.abc import Callable
from functools import cache
from html import unescape
from pathlib import Path

import plotly.graph_objects as go
import torch
import xarray as xr
from rich.console import Console
from rich.progress import track

import analyses
import interp
from analyses import cascade, plots
from analyses.cascade import Replace
from analyses.plots.browser import keep_open
from analyses.plots.kinds import kinds
from interp.zoo import task

HERE = Path(__file__).parent
PROMPT = "When Mary and John went to the store, John gave a drink to"
OTHER = "When Mary and John went to the store, Mary gave a drink to"
ASKED = {"answer": " Mary", "wrong": " John"}
OTHERS = ("plot_head", "plot_lens_pair", "plot_lens_curves", "plot_trajectories", "plot_positions", "plot_circuit")
"""Figures that no kind of result has as its own."""


class Examples:
    """A result of each kind of figure; those that others are made of are measured once."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.model = interp.load("smalltown", dtype=dtype)
        self.pairs = task("ioi").sample(6, 0, self.model.tokenizer)
        self.clean, self.corrupt = [pair.clean for pair in self.pairs], [pair.corrupt for pair in self.pairs]
        self.answers = {"answer": [pair.answer for pair in self.pairs], "wrong": [pair.wrong for pair in self.pairs]}
        self.edges = cache(lambda: analyses.edge_patching(self.model, self.clean, self.corrupt, **self.answers))
        self.estimate = cache(
            lambda: analyses.edge_attribution(
                self.model, self.clean, self.corrupt, **self.answers, method="eap", verify=0
            )
        )
        self.circuit = cache(lambda: analyses.Circuit.from_scores(self.edges(), count=40).pruned())
        self.gain = cache(lambda: cascade.gain(self.model, self.clean, n_directions=2))
        self.null = cache(lambda: cascade.gain(cascade.random_twin(self.model), self.clean, n_directions=2))
        self.influence = cache(lambda: cascade.reproduction(self.model, self.clean, horizon=16))
        self.texts = cache(lambda: cascade.coupled(self.model, self.clean, Replace(self.corrupt), seeds=3, steps=32))
        self.inside = cache(lambda: cascade.internal_verdict(self.gain(), null=self.null()))
        self.driven = cache(
            lambda: cascade.driven(self.model, self.clean, Replace(self.corrupt), seeds=3, steps=32, horizon=16)
        )
        self.outside = cache(lambda: cascade.external_verdict(self.driven()))

    def all(self) -> dict[str, Callable[[], xr.Dataset]]:
        """How to measure each kind, in the order of the gallery."""
        model, clean, corrupt = self.model, self.clean, self.corrupt
        one = {**ASKED, "clean": PROMPT, "corrupt": OTHER}
        disturbed = {"seeds": 3, "steps": 24}
        return {
            "logit_lens": lambda: analyses.logit_lens(model, PROMPT),
            "tuned_lens": lambda: analyses.tuned_lens(model, PROMPT),
            "component_lens": lambda: analyses.component_lens(model, PROMPT),
            "attention_patterns": lambda: analyses.attention_patterns(model, PROMPT),
            "head_table": lambda: analyses.head_table(model, count=6),
            "head_detectors": lambda: analyses.detect_heads(model, count=6),
            "head_importance": lambda: analyses.head_importance(model, clean, corrupt, **self.answers),
            "head_composition": lambda: analyses.composition(model),
            "embedding_structure": lambda: analyses.embedding_structure(model, [" Mary", " John", " Paris", " Rome", " dog", " cat"]),
            "residual_stream": lambda: analyses.residual_stream(model, PROMPT),
            "direct_logit_attribution": lambda: analyses.direct_logit_attribution(model, PROMPT, **ASKED),
            "activation_patching": lambda: analyses.activation_patching(model, **one),
            "patching_methodology": lambda: analyses.compare_patching(model, **one, site="z"),
            "attribution_patching": lambda: analyses.attribution_patching(model, **one, site="z"),
            "edge_patching": lambda: analyses.edge_patching(model, clean, corrupt, **self.answers, layers=[4, 5]),
            "edge_attribution": lambda: analyses.edge_attribution(
                model, clean, corrupt, **self.answers, method=["eap", "eap_ig_inputs", "relp", "atp_star"], verify=12
            ),
            "path_patching": lambda: analyses.path_patching(model, clean, corrupt, **self.answers),
            "circuit_faithfulness": lambda: analyses.faithfulness(
                model, clean, corrupt, **self.answers,
                circuits={"first 40, exact": self.circuit(), "first 40, EAP": analyses.Circuit.from_scores(self.estimate(), count=40)},
            ),
            "faithfulness_curve": lambda: analyses.faithfulness_curve(
                model, clean, corrupt, **self.answers, scores={"exact": self.edges(), "EAP": self.estimate()}
            ),
            "circuit_methods": lambda: analyses.compare_methods(
                model, clean, corrupt, **self.answers, methods=["eap", "eap_ig_inputs", "relp"]
            ),
            "circuit_stability": lambda: analyses.circuit_stability(self.edges(), count=40),
            "circuit_completeness": lambda: analyses.completeness(model, clean, corrupt, **self.answers, circuit=self.circuit()),
            "circuit_minimality": lambda: analyses.minimality(model, clean, corrupt, **self.answers, circuit=self.circuit()),
            "causal_tracing": lambda: analyses.causal_tracing(model, "The capital of France is", subject="France", answer=" Paris"),
            "head_ablation": lambda: analyses.ablate_heads(model, clean, **self.answers, heads=[(4, 1), (4, 3)], controls=6),
            "cascade_gain": self.gain,
            "internal_verdict": self.inside,
            "mean_field": lambda: cascade.mean_field(model, clean),
            "light_cone": lambda: cascade.light_cone(model, clean, n_directions=2),
            "cascade_ledger": lambda: cascade.ledger(model, clean, corrupt),
            "cascade_directions": lambda: cascade.compare_directions(model, clean, kinds=("covariance", "token"), n_directions=2),
            "dose_response": lambda: cascade.dose_response(model, clean[:2]),
            "jacobian_spectrum": lambda: cascade.jacobian_spectrum(model, clean[:2], k=10),
            "cascade_participation": lambda: cascade.participation(model, PROMPT),
            "lyapunov": lambda: cascade.lyapunov(model, clean[:2], k=16),
            "cascade_damping": lambda: cascade.damping(model, clean, n_directions=2),
            "self_repair": lambda: cascade.self_repair(model, clean, (4, 1), **self.answers),
            "cascade_precision": lambda: cascade.precision(model, clean, n_directions=1),
            "stable_regions": lambda: cascade.stable_regions(model, clean, corrupt),
            "cascade_rasters": lambda: cascade.rasters(model, clean, texts=self.texts()),
            "cascade_coupled": self.texts,
            "cascade_driven": self.driven,
            "cascade_commitment": lambda: cascade.commitment(model, clean, Replace(corrupt), steps=24),
            "cascade_survival": lambda: cascade.survival(model, clean, cascade.Swap(1), **disturbed),
            "cascade_reproduction": self.influence,
            "cascade_avalanches": lambda: cascade.avalanches(self.texts(), reproduction=self.influence()),
            "cascade_channels": lambda: cascade.channels(model, clean, cascade.Nudge(layer=2, dose=1.0), **disturbed),
            "cascade_temperature": lambda: cascade.temperature_sweep(
                model, clean, Replace(corrupt), temperatures=(0.5, 0.8, 1.0, 1.3, 1.8), lengths=(8, 16, 24), seeds=3
            ),
            "external_verdict": self.outside,
            "cascade_wavefront": lambda: cascade.wavefront(model, PROMPT, Replace([OTHER]), steps=20),
            "joined_verdict": lambda: cascade.joined_verdict(self.inside(), self.outside(), gain=self.gain(), coupled=self.texts()),
        }  # fmt: skip

    def others(self) -> dict[str, Callable[[], go.Figure]]:
        """Figures that are drawn by a function of their own, by its name."""
        model = self.model
        return {
            "plot_head": lambda: plots.plot_head(analyses.attention_patterns(model, PROMPT), layer=4, head=2),
            "plot_lens_pair": lambda: plots.plot_lens_pair(
                analyses.logit_lens(model, PROMPT),
                analyses.tuned_lens(model, PROMPT),
                names=["logit lens", "tuned lens"],
            ),
            "plot_lens_curves": lambda: plots.plot_lens_curves(
                {
                    "logit lens": analyses.logit_lens(model, self.clean),
                    "tuned lens": analyses.tuned_lens(model, self.clean),
                }
            ),
            "plot_trajectories": lambda: plots.plot_trajectories(
                analyses.logit_lens(model, PROMPT, positions=[-1], candidates=[" Mary", " John"])
            ),
            "plot_positions": lambda: plots.plot_positions(analyses.embedding_structure(model, [" Mary"])),
            "plot_circuit": lambda: plots.plot_circuit(self.circuit(), exact=self.edges()),
        }


def main() -> None:
    """Draw all and write the page."""
    from gallery_code import SETUP, snippets

    folder = HERE / "gallery"
    folder.mkdir(exist_ok=True)
    lines = [
        "# Gallery",
        "",
        "Every kind of figure, drawn by `analyses.plot(result)`; last, those with functions of their own."
        " The code beneath each runs after this:",
        "",
        "```python",
        SETUP.strip(),
        "```",
        "",
    ]
    keep_open()
    examples, code = Examples(), snippets()
    drawn = [
        (kind, kinds()[kind], lambda measure=measure: analyses.plot(measure()))
        for kind, measure in examples.all().items()
    ]
    drawn += [(name, getattr(plots, name), draw) for name, draw in examples.others().items()]
    for name, function, draw in track(drawn, "drawing", console=Console(stderr=True)):
        figure = draw()
        figure.write_image(folder / f"{name}.png", scale=1)
        summary = " ".join(str(function.__doc__).split("\n\n")[0].split())
        title = f"`{name}`" if name.startswith("plot_") else name.replace("_", " ")
        picture = f"![{_bare(str(figure.layout.meta['caption']))}](gallery/{name}.png)"
        lines += [f"## {title}", "", summary, "", picture, "", "```python", code[name], "```", ""]
    (HERE / "gallery.md").write_text("\n".join(lines), encoding="utf-8")


def _bare(caption: str) -> str:
    """A caption as the words of a picture in Markdown."""
    return unescape(caption).replace("[", "(").replace("]", ")")


if __name__ == "__main__":
    main()
