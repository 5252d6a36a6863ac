"""Activation patching over a grid of cells: put one value into a run at a time, and read how far the answer moves."""

from collections.abc import Sequence

import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.answers import Tokens
from analyses.patching.experiment import Experiment, Method
from analyses.patching.grid import check_gap, coordinates, normalised, patched
from analyses.patching.metrics import Custom, metric_of
from analyses.patching.replacements import check_used
from analyses.results import make
from interp.errors import InterpError
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.sweep.readouts import Position, given_position
from interp.whole_numbers import takes_whole

WHO = "activation_patching"


@takes_whole("window", several=["layers"])
def activation_patching(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    site: str = "resid_pre",
    direction: str | None = None,
    replacement: str = "resample",
    metric: str | Custom = "logit_difference",
    position: Position = -1,
    by_position: bool | None = None,
    layers: Sequence[int] | None = None,
    window: int = 1,
    reference: Prompt | None = None,
    vector: Float[Tensor, " d_model"] | None = None,
    align: bool = False,
    smallest_gap: float | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Change one value of a run at a time and read how far the answer moves, for a grid of places.

    Denoising puts the clean run's value into the corrupt run (Meng et al. 2022, arXiv 2202.05262, with the corrupt prompt of Wang et al.
    2022, arXiv 2211.00593) and finds what suffices; noising puts the corrupt run's value, or a replacement, into the clean run and finds
    what is necessary (Heimersheim and Nanda 2024, arXiv 2404.15255). The logit difference is the metric that Zhang and Nanda 2023
    (arXiv 2309.16042) recommend. It assumes prompts that are aligned position by position.

    Args:
        clean, corrupt: one prompt each, or as many; each pair of equal token length, unless `align`.
        answer: the token that is right for the clean prompt: text that is one token, or an id; one for all pairs or one per pair.
        wrong: what it is compared with; the logit difference needs it.
        site: `resid_pre`, `resid_mid`, `resid_post`, `attn_out`, `mlp_out`: the grid is layer x position; `z`, `q`, `k`, `v`,
            `pattern`: layer x head; `mlp_post`: layer x neuron.
        direction: `denoising` or `noising`; None is denoising for `resample`, and noising for the others.
        replacement: `resample`, the other run's value; `zero`; `mean`, over all positions of the reference prompts together, or
            `mean_by_position`, each position by itself; `add`, the value itself with `vector` added.
        metric: `logit_difference`, `logit`, `probability`, `log_probability`, `cross_entropy`, `kl` (from the clean run's
            distribution), `rank`; or a function of logits [row, vocab] and the pair of each row [row] that returns [row].
        position: where the answer is read: the default is the last token; negative counts from the end of each prompt; one for all pairs,
            or one for each. In pairs of unequal length a position from 0 on is the clean prompt's, and its partner the corrupt one's.
        by_position: one position at a time (a pattern's by query), or all together; None is by position for values in the stream,
            together for heads, patterns and neurons.
        layers: only these; None is all.
        window: patch this many adjacent layers together, centred on the cell's layer.
        reference: prompts over which the means are taken; None is those of the run that values would come from.
        vector: [d_model], for `add`.
        align: match pairs of unequal length by their common tokens and patch only matched positions, which the result names.
        smallest_gap: least difference of the baselines, in the metric's units, that an effect is normalised by; None is the metric's own.
            At 0 a pair whose baselines are equal has no effect (NaN) and is left out of the means, which say so.
        bos: see `Transformer.to_tokens`.
        max_bytes: bound on the memory of the sweep.
        progress: show a progress bar with the time left on standard error.

    Returns:
        A Dataset. `value` (prompt, layer, ...), the metric of the patched run, and `effect`, the same normalised: 0 at the corrupt
        baseline, 1 at the clean one. `clean_baseline` and `corrupt_baseline` (prompt); `left_out` (prompt), whether they are equal. With
        several pairs also `effect_mean`, `effect_standard_error` and `effect_interval`, 95 % bootstrap over pairs. Dim `prompt` numbers
        the pairs; where a shorter pair has no position, or one is not matched, there is NaN. Over prompts of unequal length an index
        from the start means another token in each, so there the means are by `position_from_end` (-1 is the last token), as far back
        as every pair goes.

    Raises:
        TokenError: a pair of unequal length (both token rows are shown), an answer of several tokens or out of range, a position that a
            prompt does not have.
        ResultError: baselines too close together to normalise by, or that are no numbers; then it names the first hook point that is none.
        InterpError: a site, direction, replacement, metric, layer or window that cannot be.
    """
    check_gap(smallest_gap, WHO)
    read = given_position(position, WHO)
    method = Method.of(
        model,
        site,
        direction=direction,
        replacement=replacement,
        by_position=by_position,
        layers=layers,
        window=window,
        vector=vector,
        who=WHO,
    )
    chosen = metric_of(metric)
    run = Experiment.of(
        model,
        clean,
        corrupt,
        answer=answer,
        wrong=wrong,
        metrics=[chosen],
        position=read,
        bos=bos,
        align=align,
        max_bytes=max_bytes,
        who=WHO,
    )
    if align and method.site.name == "pattern" and not run.pairs.equal:
        raise InterpError(f"{WHO}: patterns of prompts of unequal length cannot be aligned.")
    check_used(reference, replacement, WHO)
    reference_tokens = None if reference is None else model.to_tokens(reference, bos=bos)
    values, baselines = run.patch(method, [chosen], reference_tokens, "patching" if progress else None)
    effect = normalised(values[0], baselines[0], chosen, smallest_gap, WHO)
    variables = patched(run, method, chosen, effect, values[0], baselines[0])
    return make(
        "activation_patching",
        variables,
        coordinates(run, method),
        model=model,
        prompts={"clean": run.pairs.clean, "corrupt": run.pairs.corrupt},
        parameters={**method.parameters(), "metric": chosen.name, "position": read, "bos": bos, "align": align},
    )
