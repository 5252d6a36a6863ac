"""A disturbance injected into the stream, and its size at every layer and position, through the sweep."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.cascade.directions import Directions, draw
from analyses.cascade.entering import Clean
from analyses.cascade.linear import placed_at
from interp.config import ModelConfig
from interp.errors import InterpError, ResultError
from interp.generation import left_aligned
from interp.geometry import seen
from interp.model import Transformer
from interp.names import block_name
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES, sweep
from interp.sweep.interventions import Add, Intervention, Patch, Row
from interp.sweep.readouts import EachLayer
from interp.tokenizer import PAD

SMALLEST_DOSE = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Below this dose the difference of two runs is mostly rounding: float32 rounds 4e-7 to 6e-7 of |x| in each layer."""

LARGEST_ROUNDING = 0.02
"""Largest share of a disturbance that may be rounding between the run with it and the one without."""


@dataclass(frozen=True, eq=False)
class Injected:
    """Runs in which a disturbance is injected at one place each.

    Args:
        tokens: [prompt, position].
        places: [place, (prompt, position)], those asked for, or every position that is not set apart (`analyses.set_apart`).
        counted: [prompt, position], the positions whose energy counts: all that are not set apart.
        sizes: [layer, prompt, position], |x| of the stream as its readers see it (`interp.geometry`), from the injection's layer on.
        energies: [place, direction, layer, position], |delta|^2; NaN beyond a prompt's end.
        rounding: [place, layer], |delta|^2 over the counted positions of the same run with dose 0, computed again.
        parameters: what shaped the numbers, for provenance.
    """

    tokens: Int[Tensor, "prompt position"]
    places: Int[Tensor, "place 2"]
    counted: Bool[Tensor, "prompt position"]
    sizes: Float[Tensor, "layer prompt position"]
    energies: Float[Tensor, "place direction layer position"]
    rounding: Float[Tensor, "place layer"]
    parameters: dict[str, Any]

    @property
    def total(self) -> Float[Tensor, "place direction layer"]:
        """E[l], the energy over the counted positions."""
        return self.counted_energies.nansum(-1)

    @property
    def relative_total(self) -> Float[Tensor, "place direction layer"]:
        """The energy over the counted positions, at each in units of the stream's own."""
        sizes = self.sizes.transpose(0, 1)[self.places[:, 0]]  # [place, layer, position]
        return (self.counted_energies / sizes[:, None] ** 2).nansum(-1)

    @property
    def counted_energies(self) -> Float[Tensor, "place direction layer position"]:
        """The energies, NaN where they do not count."""
        return _counted(self.energies, self.counted, self.places)

    @property
    def first(self) -> int:
        """The first position that any prompt injects at."""
        return int(self.places[:, 1].min())

    @property
    def on_site(self) -> Float[Tensor, "place direction layer"]:
        """The energy at the position of the injection."""
        return self.energies[torch.arange(len(self.places)), :, :, self.places[:, 1]]

    @property
    def log_gain(self) -> Float[np.ndarray, "prompt layer"]:
        """Mean over injections and directions of ln G, G the size of the whole disturbance against the injected one."""
        logs = (self.total.double() / self.total[..., :1].double()).log() / 2
        means: np.ndarray = self.by_prompt(logs).nanmean((1, 2)).cpu().numpy()
        return means

    def by_prompt(self, values: Float[Tensor, "place ..."]) -> Float[Tensor, "prompt injection ..."]:
        """Values of each place, laid out by prompt and position from `first` on; NaN where a prompt has none."""
        laid = values.new_full((*self.tokens[:, self.first :].shape, *values.shape[1:]), torch.nan)
        laid[self.places[:, 0], self.places[:, 1] - self.first] = values
        return laid


@torch.no_grad()
def inject(
    model: Transformer,
    prompts: Prompt,
    *,
    dose: float | None,
    layer: int,
    directions: Directions = "isotropic",
    n_directions: int,
    seed: int,
    positions: Sequence[int] | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
    who: str,
    frozen: bool = False,
    beside: Injected | None = None,
) -> Injected:
    """Inject at every position that is not set apart, by itself, and check the controls; arguments and errors are those of `gain`.

    Args:
        positions: only at these.
        dose: None is infinitely small: derivatives, in units of the stream's own size.
        frozen: hold the scales of all norms at what they are in the clean run.
        beside: the injection of other directions into the same runs at the same places, whose zero dose, computed again, serves here too.
    """
    check_request(model, dose, layer, n_directions, who)
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    clean = Clean.of(model, tokens)
    clean.check_some_are_left(who)
    parameters = {
        "dose": dose,
        "layer": layer,
        "directions": directions if isinstance(directions, str) else "given",
        "n_directions": n_directions,
        **({} if positions is None else {"positions": list(positions)}),
        "bos": bos,
        "set_apart": clean.apart.about(),
    }
    real, counted, config = tokens != PAD, clean.kept, model.config
    sizes = torch.stack([seen(config, stream).norm(dim=-1) for stream in clean.entering[layer:]])
    places = counted.nonzero() if positions is None else _asked(clean, positions, who)
    prompt, position = places.T
    if bool((sizes[0, prompt, position] == 0).any()):
        raise InterpError(f"{who}: the stream is zero at a position, so a dose relative to it means nothing.")
    unit = draw(clean, layer, places, directions, n_directions, seed, who)
    deltas = (1.0 if dose is None else dose) * sizes[0, prompt, position, None, None] * unit
    if dose is None:
        energies = _pushed(clean, places, deltas, layer)
        _check_finite(energies, real[prompt], who)
        if model.config.causal:
            check_causal(energies, position, who)
        return Injected(tokens, places, counted, sizes, energies, torch.zeros_like(energies[:, 0, :, 0]), parameters)
    name, zero = block_name(layer, "hook_resid_pre"), deltas.new_zeros(model.config.d_model)
    held = _scales(model, tokens, layer) if frozen else {}
    rows = []
    controls = [False] if beside is not None else [False, True]  # of zero dose: skipped, and computed again
    for (number, at), there in zip(places.tolist(), deltas, strict=True):
        for delta, always in [*((zero, again) for again in controls), *((one, False) for one in there)]:
            reached = slice(at if model.config.causal else 0, None)
            changes = [
                Intervention(name, Add(delta), positions=at),
                *(Intervention(scale, Patch(own[number]), positions=reached) for scale, own in held.items()),
            ]
            rows.append(Row(changes, number, always=always))
    swept = sweep(
        model,
        tokens,
        rows,
        EachLayer(partial(_energy, config)),
        max_bytes=max_bytes,
        progress="injecting" if progress else None,
    )
    energies = swept.values.reshape(len(places), -1, *swept.values.shape[1:])[:, :, layer:]
    _check_finite(energies, real[prompt], who)
    if model.config.causal:
        check_causal(energies, position, who)
    of_counted = _counted(energies, counted, places)
    rounding = of_counted[:, 1].nansum(-1) if beside is None else beside.rounding
    disturbed = len(controls)
    check_controls(of_counted[:, 0], rounding, of_counted[:, disturbed:], layer, who)
    return Injected(tokens, places, counted, sizes, energies[:, disturbed:], rounding, parameters)


def _asked(clean: Clean, positions: Sequence[int], who: str) -> Int[Tensor, "place 2"]:
    """The places of these positions in each prompt. Raises InterpError where there are none, or one may not be disturbed."""
    if not positions:
        raise InterpError(f"{who}: the list of positions is empty. Pass None for all of them.")
    asked = [
        (prompt, at)
        for prompt in range(len(clean.tokens))
        for at in sorted({clean.position(prompt, position, who) for position in positions})
    ]
    return torch.tensor(asked, device=clean.tokens.device)


def _counted(
    energies: Float[Tensor, "place row layer position"],
    counted: Bool[Tensor, "prompt position"],
    places: Int[Tensor, "place 2"],
) -> Float[Tensor, "place row layer position"]:
    return energies.masked_fill(~counted[places[:, 0], None, None], torch.nan)


def _pushed(
    clean: Clean, places: Int[Tensor, "place 2"], deltas: Float[Tensor, "place direction d_model"], layer: int
) -> Float[Tensor, "place direction layer position"]:
    """Energies of the derivatives along each delta, pushed up block by block, those of a prompt together."""
    config, count = clean.model.config, deltas.shape[1]
    depth = config.n_layers - layer + 1
    energies = deltas.new_full((*deltas.shape[:2], depth, clean.tokens.shape[1]), torch.nan)
    for prompt, length in enumerate(clean.lengths):
        own = (places[:, 0] == prompt).nonzero()[:, 0]
        at = places[own, 1].tolist()
        if config.causal:
            begun = {first: placed_at(deltas[own[n]], 0, length - first) for n, first in enumerate(at)}
        else:
            begun = {0: torch.cat([placed_at(deltas[own[n]], position, length) for n, position in enumerate(at)])}
        energies[own, :, :, :length] = 0.0  # before the injection nothing moves
        run = clean.linearised(prompt)
        for step, pushed in enumerate([begun, *run.up_from(begun, layer, config.n_layers)]):
            for first, vectors in pushed.items():
                found = seen(config, vectors).pow(2).sum(-1).reshape(-1, count, vectors.shape[1])
                whose = own[at.index(first), None] if config.causal else own
                energies[whose, :, step, first:length] = found.to(energies)
    return energies


def _scales(model: Transformer, tokens: Tensor, layer: int) -> dict[str, list[Tensor]]:
    """By hook name, the scales of the norms from `layer` on in the clean run of each prompt [position, ...]."""
    names = [
        block_name(above, f"{norm}.hook_scale")
        for above in range(layer, model.config.n_layers)
        for norm in ("ln1", "attn.q_norm", "attn.k_norm", "ln1_post", "ln2", "ln2_post")
        if block_name(above, f"{norm}.hook_scale") in model.hook_points
    ]
    with model.capture(names) as scales:
        model.run_blocks(model.embed(tokens), real=model.check_tokens(tokens))
    lengths = (tokens != PAD).sum(1).tolist()
    return {name: [scales[name][row, :length] for row, length in enumerate(lengths)] for name in names}


def check_request(model: Transformer, dose: float | None, layer: int, n_directions: int, who: str) -> None:
    """Raise InterpError for an injection that the model cannot take: to be asked before any work."""
    if model.dtype not in SMALLEST_DOSE:
        raise InterpError(
            f"{who}: {model.dtype} is too coarse to measure small differences; load in float32 or float64."
        )
    smallest = SMALLEST_DOSE[model.dtype]
    if not isinstance(dose, Real | None) or isinstance(dose, bool):
        raise InterpError(f"{who}: dose must be a number, or None for the derivative; got {dose!r}.")
    if dose is not None and not smallest <= dose < float("inf"):
        raise InterpError(
            f"{who}: dose {dose:g} is out of range; in {model.dtype} it must be at least {smallest:g}, below which rounding "
            "drowns the difference. Load the model in float64 for smaller doses."
        )
    if not 0 <= layer < model.config.n_layers:
        raise InterpError(
            f"{who}: layer {layer} is out of range; {model.name} has layers 0 to {model.config.n_layers - 1}."
        )
    if n_directions < 1:
        raise InterpError(f"{who}: n_directions must be at least 1, got {n_directions}.")


def _energy(
    config: ModelConfig, stream: Float[Tensor, "place d_model"], base: Float[Tensor, "place d_model"]
) -> Float[Tensor, " place"]:
    return seen(config, stream - base).pow(2).sum(-1)


def _check_finite(
    energies: Float[Tensor, "place row layer position"], there: Bool[Tensor, "place position"], who: str
) -> None:
    """Raise ResultError where a disturbance at a token is no number; those beyond a prompt's end are NaN by right."""
    if not bool(torch.isfinite(energies.masked_fill(~there[:, None, None], 0.0)).all()):
        raise ResultError(
            f"{who}: the disturbed run is not finite, though the clean one is: it overflows. Lower the dose, or load the model in float64."
        )


def check_causal(
    energies: Float[Tensor, "place row layer position"], position: Int[Tensor, " place"], who: str
) -> None:
    """Raise ResultError where a disturbance shows before its position."""
    before = torch.arange(energies.shape[-1], device=position.device) < position[:, None]
    if bool(energies.nan_to_num().amax((1, 2))[before].any()):
        raise ResultError(f"{who}: the disturbance reached a position before the injection: causality is violated.")


def check_controls(
    skipped: Float[Tensor, "place layer position"],
    computed: Float[Tensor, "place layer"],
    disturbed: Float[Tensor, "place direction layer position"],
    layer: int,
    who: str,
) -> None:
    """Raise ResultError where a zero dose moved anything, a disturbance vanished, or rounding is a share of it that matters: energies of
    the zero dose that the sweep skips, of that computed again, and of the disturbances."""
    total = disturbed.nansum(-1)
    if bool(skipped.nan_to_num().any()):
        raise ResultError(f"{who}: the zero-dose control moved; the model is not deterministic here.")
    vanished = (total == 0).nonzero()
    if len(vanished):
        raise ResultError(
            f"{who}: the disturbance is exactly zero at layer {layer + int(vanished[0, 2])}, so its logarithm does not exist. "
            "Raise the dose."
        )
    share = (computed[:, None] / total).sqrt()
    if float(share.max()) > LARGEST_ROUNDING:
        raise ResultError(
            f"{who}: the zero-dose control, computed again, moved by {float(share.max()):.2g} of the disturbance. Raise the dose "
            "or load the model in float64; if that does not help, the model is not deterministic or not causal."
        )
