"""Where the branch commits: which part of the shared past makes two texts part at the first token in which they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.cascade.agreement import disagreement
from analyses.cascade.coupled import Coupled, couple
from analyses.cascade.disturbances import Disturbance, Nudge, disturbance_of
from analyses.intervals import over_prompts
from analyses.results import Variable, make, token_coords, token_strings
from interp.errors import InterpError, ResultError
from interp.metrics import scaled
from interp.model import Transformer
from interp.names import block_name
from interp.progress import progress_bar
from interp.prompts import Prompt
from interp.streams import streams
from interp.sweep import MAX_BYTES, sweep
from interp.sweep.interventions import Intervention, Patch, Row
from interp.tokenizer import PAD
from interp.whole_numbers import takes_whole

WHO = "cascade.commitment"
ROLES = ("changed", "rest of the prompt", "generated", "last")
"""What a place of the shared past is: where the prompts differ, after that in the prompt, generated alike, the token before the branch."""

MEASURES = ("margin", "h")
SMALLEST = 1e-6
"""Difference of margins, logits, and h below which there is nothing to restore."""


@dataclass(frozen=True, eq=False)
class Branch:
    """One pair of texts that part.

    Args:
        clean, other: [position], up to and without the first token in which what was generated differs.
        tokens: the two tokens there, of the clean text and of the other.
        generated: how many of the last positions were generated.
        restored: [measure, layer, position], NaN before the first position at which the two differ.
    """

    prompt: int
    seed: int
    clean: Int[Tensor, " position"]
    other: Int[Tensor, " position"]
    tokens: tuple[int, int]
    generated: int
    restored: Float[np.ndarray, "measure layer position"]

    @property
    def roles(self) -> Int[np.ndarray, " position"]:
        """The number of each position's role; -1 before the first that differs."""
        length, differs = len(self.clean), (self.clean != self.other).cpu().numpy()
        roles = np.full(length, ROLES.index("rest of the prompt"))
        roles[length - self.generated :] = ROLES.index("generated")
        roles[-1] = ROLES.index("last")
        roles[differs] = ROLES.index("changed")
        roles[: int(differs.argmax())] = -1
        return roles


@takes_whole("seeds", "steps", "seed", "max_bytes", least={"steps": 1, "max_bytes": 1})
def commitment(
    model: Transformer,
    prompts: Prompt,
    disturbance: Disturbance | None = None,
    *,
    seeds: int = 4,
    steps: int = 32,
    temperature: float = 1.0,
    seed: int = 0,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
    folder: Path | None = None,
) -> xr.Dataset:
    """At the first token in which two coupled texts differ, put the clean stream into the disturbed run at every (layer, position).

    Up to there both have generated the same, so that the two contexts differ in the prompt alone. Each place is patched by itself, and
    what it restores is a share: of the margin, the logit of the clean text's token less that of the other's, 0 as in the disturbed run, 1
    as in the clean one; and of h, 1 less h against the clean distribution over that of the disturbed run. Noise has no part in it.

    Args:
        disturbance: `Swap`, `Replace` with prompts as long, or `Unrelated`; None swaps the last token for the most probable other.
        temperature: of sampling; 0 is greedy. h is then that at temperature 1.

    The other arguments are those of `analyses.cascade.coupled`.

    Returns:
        A Dataset over measure (`margin`, `h`), layer (the stream that enters it) and role of a place (`ROLES`): `restored` (measure,
        prompt, layer, role), the mean over places of that role of draws that part, NaN for a prompt without any; `random`
        (measure, prompt, layer), the same of a place drawn at random among all from the first difference on; `excess` (measure, prompt,
        layer, role), the one less the other; each with mean and interval over the prompts that have it. `best` (measure, prompt), the
        largest share that one place above layer 0 restores, `spread`, over how many places, as the participation ratio of the positive
        shares of a layer; both means over draws. `parted` (prompt), the share of draws that part. Of one branch, the first: `places`
        (measure, layer, position), with `branch_token`, `other_branch_token` by position, `branch` and `other_branch`, the two tokens.

    Raises:
        InterpError: a nudge, which leaves the tokens alone, or prompts of another length. ResultError: no texts part, or nothing
            differs where they do.
    """
    disturbance = disturbance_of(disturbance, WHO)
    if isinstance(disturbance, Nudge):
        raise InterpError(
            f"{WHO}: a nudge leaves all tokens as they are; disturb the prompt by Swap, Replace or Unrelated."
        )
    run = couple(
        model, prompts, disturbance, seeds=seeds, steps=steps, temperature=temperature, seed=seed, bos=bos,
        max_bytes=max_bytes, progress=progress, folder=folder,
    )  # fmt: skip
    return describe_commitment(model, run, max_bytes=max_bytes, progress=progress)


def describe_commitment(
    model: Transformer, run: Coupled, *, draws: int | None = None, max_bytes: int = MAX_BYTES, progress: bool = False
) -> xr.Dataset:
    """The result of `commitment` from texts that are there already; of each prompt the first `draws` that part are patched, None is all."""
    lengths = [[int((row != PAD).sum()) for row in rows] for rows in (run.clean, run.other)]
    if lengths[0] != lengths[1]:
        prompt = next(n for n, (a, b) in enumerate(zip(*lengths, strict=True)) if a != b)
        raise InterpError(
            f"{WHO}: prompt {prompt} has {lengths[0][prompt]} tokens and the disturbed one {lengths[1][prompt]}, so that places do not "
            "correspond. Give prompts of equal length."
        )
    parted: np.ndarray = np.asarray(run.damage.any(-1))
    patched = parted if draws is None else parted & (parted.cumsum(1) <= draws)
    branches = []
    with progress_bar(progress) as bar:
        task = bar.add_task("patching", total=int(patched.sum()))
        for prompt, draw in np.argwhere(patched).tolist():
            if (branch := _branch(model, run, prompt, draw, max_bytes)) is not None:
                branches.append(branch)
            bar.advance(task)
    if not branches:
        raise ResultError(
            f"{WHO}: no two texts part where their predictions differ; disturb more, or take more steps or draws."
        )
    return _described(model, run, branches, parted)


def _branch(model: Transformer, run: Coupled, prompt: int, draw: int, max_bytes: int) -> Branch | None:
    """Patch every place of one pair; None where the two predict the same, so that there is nothing to restore."""
    step = int(run.damage[prompt, draw].argmax())
    shared = torch.from_numpy(run.tokens[0, prompt, draw, :step]).to(run.clean.device)
    clean, other = (torch.cat([rows[prompt][rows[prompt] != PAD], shared]) for rows in (run.clean, run.other))
    tokens = int(run.tokens[0, prompt, draw, step]), int(run.tokens[1, prompt, draw, step])
    first = int((clean != other).int().argmax())
    places = [(layer, at) for layer in range(model.config.n_layers) for at in range(first, len(clean))]
    sources = streams(model, clean[None])
    rows = [
        Row([Intervention(block_name(layer, "hook_resid_pre"), Patch(sources[layer][0]), positions=at)])
        for layer, at in places
    ]
    readout = _Restored(_last_log_p(model, clean, run), tokens, run.parameters["temperature"] or 1.0)
    swept = sweep(model, other[None], rows, readout, max_bytes=max_bytes)
    (undone, apart), values = swept.base[0].tolist(), swept.values.double().cpu().numpy()
    whole = readout.margin_of_clean - undone
    if abs(whole) < SMALLEST or apart < SMALLEST:
        return None
    restored = np.full((len(MEASURES), model.config.n_layers, len(clean)), np.nan)
    shares = (values[:, 0] - undone) / whole, 1 - values[:, 1] / apart
    for measure, share in enumerate(shares):
        restored[measure, :, first:] = share.reshape(model.config.n_layers, -1)
    return Branch(prompt, draw, clean, other, tokens, step, restored)


@torch.no_grad()
def _last_log_p(model: Transformer, text: Int[Tensor, " position"], run: Coupled) -> Float[Tensor, " vocab"]:
    stream = model.run_blocks(model.embed(text[None]))
    return scaled(model.unembed(stream[:, -1:])[0, 0], run.parameters["temperature"] or 1.0).log_softmax(-1)


@dataclass(frozen=True, eq=False)
class _Restored:
    """The margin between two tokens and h against the clean prediction, after the last token."""

    log_p: Float[Tensor, " vocab"]
    tokens: tuple[int, int]
    temperature: float

    @property
    def margin_of_clean(self) -> float:
        return self._margin(self.log_p[None]).item()

    def _margin(self, log_q: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
        return (log_q[:, self.tokens[0]] - log_q[:, self.tokens[1]]) * self.temperature

    def positions(self, length: int, prompt: int) -> Sequence[int]:
        return [length - 1]

    def read(
        self, model: Transformer, normed: Float[Tensor, "row read d_model"], prompts: Int[Tensor, " row"]
    ) -> Tensor:
        log_q = scaled(model.to_logits(normed)[:, 0], self.temperature).log_softmax(-1)
        apart = disagreement(self.log_p.expand_as(log_q), log_q)
        return torch.stack([self._margin(log_q), apart], dim=-1)


def _described(
    model: Transformer, run: Coupled, branches: Sequence[Branch], parted: Bool[np.ndarray, "prompt seed"]
) -> xr.Dataset:
    prompts, layers = len(parted), model.config.n_layers
    by_role = np.full((len(MEASURES), prompts, layers, len(ROLES)), np.nan)
    at_random = np.full((len(MEASURES), prompts, layers), np.nan)
    best, spread = np.full((2, len(MEASURES), prompts), np.nan)
    for prompt in range(prompts):
        own = [branch for branch in branches if branch.prompt == prompt]
        if not own:
            continue
        at_random[:, prompt] = np.mean([np.nanmean(one.restored, axis=-1) for one in own], axis=0)
        for number in range(len(ROLES)):
            there = [one.restored[..., one.roles == number].mean(-1) for one in own if (one.roles == number).any()]
            if there:
                by_role[:, prompt, :, number] = np.mean(there, axis=0)
        above = slice(1, None) if layers > 1 else slice(None)
        best[:, prompt] = np.mean([np.nanmax(one.restored[:, above], axis=(1, 2)) for one in own], axis=0)
        spread[:, prompt] = np.mean([_spread(one.restored[:, above]) for one in own], axis=0)
    excess = by_role - at_random[..., None]
    described: dict[str, tuple[np.ndarray, tuple[str, ...], str, str]] = {
        "restored": (by_role, ("measure", "layer", "role"), "share that places of the role restore", "1"),
        "random": (at_random, ("measure", "layer"), "share that a place drawn at random restores", "1"),
        "excess": (excess, ("measure", "layer", "role"), "share above that of a random place", "1"),
        "best": (best, ("measure",), "largest share that one place restores", "1"),
        "spread": (spread, ("measure",), "places over which a layer's share is spread", "places"),
    }
    variables: dict[str, Variable] = {}
    for name, (values, dims, long_name, units) in described.items():
        variables[name] = ((dims[0], "prompt", *dims[1:]), values, long_name, units)
        if prompts > 1:
            variables |= _over_those_that_have(name, np.moveaxis(values, 1, 0), dims, long_name, units)
    shown = branches[0]
    position = np.arange(len(shown.clean))
    variables |= {
        "parted": (("prompt",), parted.mean(1), "share of draws that part", "1"),
        "places": (
            ("measure", "layer", "position"),
            shown.restored,
            "share that the place restores, of one branch",
            "1",
        ),
        "branch_token": (
            ("position",),
            token_strings(model, shown.clean.cpu().numpy()),
            "token of the clean text",
            "1",
        ),
        "other_branch_token": (("position",), token_strings(model, shown.other.cpu().numpy()), "of the disturbed", "1"),
        "branch": ((), token_strings(model, np.array(shown.tokens[0])).item(), "token at the branch", "1"),
        "other_branch": ((), token_strings(model, np.array(shown.tokens[1])).item(), "of the disturbed text", "1"),
        "branches": ((), len(branches), "branches that were patched", "1"),
    }
    coords: dict[Any, Any] = {
        "measure": list(MEASURES), "layer": np.arange(layers), "role": list(ROLES), "position": position,
        **({"bound": ["lower", "upper"]} if prompts > 1 else {}), **token_coords(model, run.clean, "prompt_position", "prompt_"),
    }  # fmt: skip
    return make(
        "cascade_commitment", variables, coords, model=model, prompts={"clean": run.clean, "disturbed": run.other},
        parameters=run.parameters | {"shown": {"prompt": shown.prompt, "seed": shown.seed}}, seed=run.seed,
    )  # fmt: skip


def _spread(restored: Float[np.ndarray, "measure layer position"]) -> Float[np.ndarray, " measure"]:
    """Participation ratio over positions of the positive shares, the mean over layers that have any."""
    positive = np.where(restored > 0, restored, 0.0)
    total, squares = positive.sum(-1), (positive**2).sum(-1)
    ratio = np.divide(total**2, squares, out=np.full(total.shape, np.nan), where=squares > 0)
    some = np.isfinite(ratio)
    return np.where(some.any(-1), np.where(some, ratio, 0).sum(-1) / np.maximum(some.sum(-1), 1), np.nan)


def _over_those_that_have(
    name: str, values: Float[np.ndarray, "prompt ..."], dims: tuple[str, ...], long_name: str, units: str
) -> dict[str, Variable]:
    """`over_prompts` of each role by itself, over the prompts that have it."""
    if dims[-1] != "role":
        return over_prompts(
            name, values, dims, long_name, units, kept=np.isfinite(values).all((*range(1, values.ndim),))
        )
    each = []
    for number in range(values.shape[-1]):
        own = values[..., number]
        kept = np.isfinite(own).all((*range(1, own.ndim),))
        each.append(over_prompts(name, own, dims[:-1], long_name, units, kept=kept))
    stacked: dict[str, Variable] = {}
    for key, (inner, _, _, _) in each[0].items():
        said = f"{key.removeprefix(name + '_').replace('_', ' ')} over the prompts that have it: {long_name}"
        stacked[key] = ((*inner, "role"), np.stack([one[key][1] for one in each], axis=-1), said, units)
    return stacked
