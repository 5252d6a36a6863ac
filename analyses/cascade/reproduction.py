"""The token reproduction number: how many later tokens one changed token changes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from scipy import optimize
from torch import Tensor

from analyses.cascade.agreement import disagreement
from analyses.cascade.coupled import Coupled
from analyses.cascade.rising import positive
from analyses.cascade.rounding import check_share, rounding_along
from analyses.intervals import bootstrap_mean, ratio_interval, resampled
from analyses.results import Variable, make, token_coords
from interp.errors import InterpError
from interp.generation import left_aligned
from interp.metrics import scaled
from interp.model import Transformer
from interp.progress import progress_bar
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES, sweep
from interp.sweep.interventions import Intervention, Row, Set
from interp.tokenizer import PAD
from interp.whole_numbers import takes_whole

WHO = "cascade.reproduction"

ROUNDED = 4
"""Texts along which rounding is measured, at most."""


@takes_whole("sources", "horizon", "seed")
def reproduction(
    model: Transformer,
    prompts: Prompt,
    *,
    sources: int = 8,
    horizon: int = 32,
    temperature: float = 1.0,
    loop: Coupled | None = None,
    seed: int = 0,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """k(tau), the probability that a changed token changes the one tau later, and R_H = sum_{tau <= H} k(tau).

    Each prompt is continued by 2 H tokens. At some of the positions that have H tokens after them the token is swapped for another, drawn
    from the model's own distribution there; the rest of the text stays, and h at each later position is K(s -> s + tau). One run through
    the sweep gives all tau. R_H grows with H where k falls slowly, so it means nothing without H; and it alone makes no pile, since
    in the closed loop children coincide: `r_loop` is what is left there.

    Args:
        sources: positions that are swapped, of each prompt, evenly spread over those with `horizon` tokens after them.
        horizon: H, tokens that are followed.
        temperature: of the texts and of h; positive.
        loop: coupled texts of `analyses.cascade.coupled.couple` at the same temperature, from which R in the closed loop is taken.
        seed: of texts and replacements.

    The other arguments are those of `analyses.cascade.coupled`.

    Returns:
        A Dataset over prompt and lag (1 to H): `influence` k(tau) of each prompt, mean over its sources, `influence_mean`,
        `influence_interval`; `reproduction` R_lag (lag), the running sum, with `reproduction_interval`. `malthusian`, nu with
        sum k(tau) e^(-nu tau) = 1, per token: positive where R_H > 1; `exponent`, p in k ~ tau^-p by least squares through the logarithms
        of the mean; each with an interval over prompts. With a loop: `r_loop`, aligned damage over its parents (the disturbance itself, as
        if it stood just before what it first changes, and each damaged token), each counted by the share of its influence that falls within
        the text, see `loop_counts`; its interval, and `deficit`, R_H - R_loop.

    Raises:
        InterpError: temperature 0, no position with `horizon` tokens after it, or a loop at another temperature. TokenError: texts
            beyond the context. ResultError: more than 2 % of the influence is rounding.
    """
    if not positive(temperature) or sources < 1 or horizon < 1:
        raise InterpError(
            f"{WHO}: temperature, sources and horizon must be positive, got {temperature!r}, {sources} and {horizon}; greedy texts have no "
            "probabilities to compare."
        )
    if not isinstance(loop, Coupled | None):
        raise InterpError(
            f"{WHO}: loop must be what analyses.cascade.coupled.couple gives, not its result as a Dataset; got {type(loop).__name__}."
        )
    if loop is not None and loop.parameters["temperature"] != temperature:
        raise InterpError(
            f"{WHO}: the loop is of temperature {loop.parameters['temperature']:g}, the texts of {temperature:g}, so that their influence "
            "is not the same. Give both the same temperature."
        )
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    texts = [
        _continued(model, row[row != PAD], 2 * horizon, temperature, seed + number) for number, row in enumerate(tokens)
    ]
    influence = np.empty((len(texts), horizon))
    with progress_bar(progress) as bar:
        task = bar.add_task("swapping tokens", total=len(texts))
        for number, text in enumerate(texts):
            places = _places(len(text), sources, horizon)
            influence[number] = _influence(model, text, places, horizon, temperature, seed + number, max_bytes).mean(0)
            bar.advance(task)
    floor = np.mean([float(rounding_along(model, text, temperature)[1:].mean()) for text in texts[:ROUNDED]])
    check_share(model, float(floor), float(influence.mean()), WHO)
    variables = _summary(influence)
    parameters: dict[str, Any] = {"sources": sources, "horizon": horizon, "temperature": temperature, "bos": bos}
    if loop is not None:
        variables |= _loop(loop, influence.mean(0))
        parameters |= {"loop": loop.parameters}
    return make(
        "cascade_reproduction",
        variables,
        {
            "lag": np.arange(1, horizon + 1),
            "bound": ["lower", "upper"],
            **token_coords(model, tokens, prefix="prompt_"),
        },
        model=model,
        prompts={"prompt": tokens},
        parameters=parameters,
        seed=seed,
    )


def _continued(
    model: Transformer, prompt: Tensor, steps: int, temperature: float, seed: int
) -> Int[Tensor, " position"]:
    text: Tensor = model.generate(prompt[None], max_new_tokens=steps, temperature=temperature, seed=seed, stop=[])[0]
    return text


def _places(length: int, sources: int, horizon: int) -> list[int]:
    """Positions from 1 on with `horizon` tokens after them."""
    last = length - 1 - horizon
    if last < 1:
        raise InterpError(
            f"{WHO}: a text of {length} tokens has no position from 1 on with {horizon} tokens after it; lower the horizon."
        )
    return sorted({int(place) for place in np.linspace(1, last, sources).round()})


def _influence(
    model: Transformer, text: Tensor, places: Sequence[int], horizon: int, temperature: float, seed: int, max_bytes: int
) -> Float[np.ndarray, "source lag"]:
    """h at each lag after each swapped position."""
    with torch.no_grad():
        logits = model(text[None])[0]
    log_p = scaled(logits, temperature).log_softmax(-1)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for place in places:
        others = logits[place - 1].double().cpu()
        others[text[place]] = -torch.inf
        drawn = int(torch.multinomial(scaled(others, temperature).softmax(-1), 1, generator=generator))
        instead = Set(model.W_E[drawn] * model.config.embed_scale)
        rows.append(Row([Intervention("hook_embed", instead, positions=place)]))
    found = sweep(
        model, text[None], rows, _Disagreement(log_p, temperature), max_bytes=max_bytes
    ).values  # [source, position]
    # The logits at s + tau - 1 draw the token at s + tau.
    return torch.stack([row[place : place + horizon] for row, place in zip(found, places, strict=True)]).cpu().numpy()


@dataclass(frozen=True, eq=False)
class _Disagreement:
    """h at every position between a row's distribution and the base run's."""

    log_p: Float[Tensor, "position vocab"]
    temperature: float

    def positions(self, length: int, prompt: int) -> Sequence[int]:
        return range(length)

    def read(
        self, model: Transformer, normed: Float[Tensor, "row read d_model"], prompts: Int[Tensor, " row"]
    ) -> Tensor:
        return torch.stack(
            [
                disagreement(self.log_p, scaled(model.to_logits(one[None])[0], self.temperature).log_softmax(-1))
                for one in normed
            ]
        )


def _summary(influence: Float[np.ndarray, "prompt lag"]) -> dict[str, Variable]:
    running = influence.cumsum(-1)
    single: dict[str, tuple[Any, str, str]] = {
        "malthusian": (malthusian, "Malthusian rate", "per token"),
        "exponent": (exponent, "exponent of influence as a power of the lag", "1"),
    }
    mean = influence.mean(0)
    variables: dict[str, Variable] = {
        "influence": (("prompt", "lag"), influence, "influence k: probability that the token differs", "1"),
        "influence_mean": (("lag",), mean, "mean over prompts of k", "1"),
        "influence_interval": (("bound", "lag"), bootstrap_mean(influence), "95 % interval over prompts", "1"),
        "reproduction": (("lag",), running.mean(0), "reproduction number R up to a lag", "1"),
        "reproduction_interval": (("bound", "lag"), bootstrap_mean(running), "95 % interval over prompts", "1"),
    }
    for name, (function, long_name, units) in single.items():
        variables[name] = ((), function(mean), long_name, units)
        interval = resampled(influence, partial(_of_mean, function))
        variables[f"{name}_interval"] = (("bound",), interval, "95 % interval over prompts", units)
    return variables


def _of_mean(function: Callable[[np.ndarray], float], influence: Float[np.ndarray, "prompt lag"]) -> float:
    return function(influence.mean(0))


def _loop(loop: Coupled, influence: Float[np.ndarray, " lag"]) -> dict[str, Variable]:
    children, parents = loop_counts(loop.alignment[0], influence, loop.disturbance.step)
    found = branching_ratio(children, parents)
    interval = ratio_interval(children, parents)
    return {
        "r_loop": ((), found, "reproduction number in the closed loop", "1"),
        "r_loop_interval": (("bound",), interval, "95 % interval over prompts", "1"),
        "deficit": ((), float(influence.sum()) - found, "R less that in the closed loop", "1"),
    }


def loop_counts(
    damage: Int[np.ndarray, "prompt seed time"], influence: Float[np.ndarray, " lag"], step: int = 0
) -> tuple[Int[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]]:
    """For each prompt: children, the damaged tokens; and their parents, the disturbance of each run and each damaged token, counted by the
    share W of their influence that the text is long enough to show.

    With D_t damaged tokens at t of T, R = sum_t D_t / sum_t D_t W(T - t). All children over the parents that have a whole horizon after
    them would count children whose parents are not counted.

    Args:
        damage: 0 or 1 in a text, any number in a branching process.
        influence: k at lags from 1 on, which W is the cumulative share of.
        step: the step whose draw the disturbance first changes.
    """
    steps = damage.shape[-1]
    followed = _followed(influence, steps)
    parents = damage.shape[1] * followed[steps - step] + (damage * followed[steps - 1 :: -1]).sum((1, 2))
    return damage.sum((1, 2)), parents


def _followed(influence: Float[np.ndarray, " lag"], steps: int) -> Float[np.ndarray, " after"]:
    """The share of a token's influence that falls within so many tokens after it, 0 to `steps`; where it has none it is over at once."""
    total = influence.sum()
    share = influence.cumsum() / total if total > 0 else np.ones(1)
    return np.concatenate([[0.0], share, np.ones(max(0, steps - len(share)))])[: steps + 1]


def branching_ratio(children: np.ndarray, parents: np.ndarray) -> float:
    """Children over parents, each summed first (Harris 1948); the mean of the ratios would be biased. NaN without parents."""
    return float(children.sum() / parents.sum()) if parents.sum() > 0 else float("nan")


def malthusian(k: Float[np.ndarray, " lag"]) -> float:
    """nu with sum k(tau) e^(-nu tau) = 1, per token; minus infinity where k is zero."""
    lags, there = np.arange(1, len(k) + 1), k > 0
    if not there.any():
        return float("-inf")

    def excess(nu: float) -> float:
        return float(np.logaddexp.reduce(np.log(k[there]) - nu * lags[there]))

    return float(optimize.brentq(excess, -60.0, 60.0))


def exponent(k: Float[np.ndarray, " lag"]) -> float:
    """p of k ~ lag^-p, by least squares through the logarithms; NaN with fewer than 3 lags that have an influence."""
    there = k > 0
    if there.sum() < 3:
        return float("nan")
    return -float(np.polyfit(np.log(np.arange(1, len(k) + 1)[there]), np.log(k[there]), 1)[0])
