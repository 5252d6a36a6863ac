"""Direct logit attribution: what each part of the model writes towards an answer (Elhage et al. 2021; Wang et al. 2022, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from einops import einsum, repeat
from jaxtyping import Float, Int
from torch import Tensor

from analyses.answers import Tokens, top_predictions
from analyses.intervals import over_prompts
from analyses.patching.ablation import REPLACEMENTS, without
from analyses.patching.metrics import METRICS, Metric, MetricReadout, Truth
from analyses.patching.pairs import read_answers
from analyses.patching.replacements import averages_for
from analyses.results import Variable, make, token_coords
from interp.decompose import check_sum, reader_of
from interp.errors import InterpError, ResultError, is_known, nearest
from interp.finite import not_finite
from interp.generation import left_aligned
from interp.metrics import entropy, log_probabilities
from interp.model import Block, Transformer
from interp.names import block_name
from interp.norms import Norm
from interp.processing import uncapped
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES, sweep
from interp.sweep.interventions import Row
from interp.sweep.readouts import Position, given_position, positions_of
from interp.tokenizer import PAD
from interp.whole_numbers import takes_whole

WHO = "direct_logit_attribution"
ATTRIBUTED = ("logit_difference", "logit", "log_probability")
TOLERANCE = 1e-4
"""How far the parts' sum may be from the metric, relative to the largest of the sizes that are summed and 1."""


@takes_whole("top_neurons")
def direct_logit_attribution(
    model: Transformer,
    prompt: Prompt,
    *,
    answer: Tokens | None = None,
    wrong: Tokens | None = None,
    metric: str | None = None,
    top_neurons: int = 20,
    ablation: str = "zero",
    position: Position = -1,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Split a logit difference (or logit, or log-probability) at one position into what each part of the model wrote towards it there.

    The final norm's scale is taken as it was in the run, so that it acts linearly and the parts sum to the metric. A part's direct
    effect says nothing of what it does through later parts; beside each head's stands its total effect, the fall of the metric when
    the head is ablated at all positions. Their difference is self-repair: what later parts and the norm's scale make up for (Rushing and
    Nanda 2024, arXiv 2402.15390).

    A log-probability is not linear in the stream: it is `logit - sum_k p_k logit_k - H(p)`, split by the first two terms with the run's
    own probabilities p; the entropy H(p) is a component of its own. Where the model soft-caps its logits, all of this is about the logits
    before the cap, which alone are a sum (`before_cap` among the parameters).

    Args:
        prompt: one or several; `answer` and `wrong` one for all, or one each.
        answer: None is the model's top prediction.
        metric: `logit_difference`, `logit` or `log_probability`; None is the logit difference where `wrong` is given, else the logit.
        top_neurons: how many neurons to keep, those of the largest mean effect over prompts, by size.
        ablation: what a head's output is replaced with for its total effect: `zero`; `mean`, over all positions of the prompts together; or
            `mean_by_position`, each position by itself.
        position: where the answer is read, as in `activation_patching`; the default is the last token.

    Returns:
        A Dataset. `component_effect` (prompt, component): embeddings, attention layers, MLPs, biases, which sum to `metric`
        (prompt) but for `residual` (prompt). `head_effect` (prompt, layer, head); `source_effect` (prompt, layer, head, key), the same
        by the position that the head read; `neuron_effect` (prompt, top), of neurons `neuron_layer` and `neuron`. `replaced_effect`,
        the direct effect of the ablation, `total_effect` and `self_repair` (prompt, layer, head). With several prompts means, standard
        errors and intervals of component, head, total effects and self-repair. Units are logits (nats for the log-probability).

    Raises:
        ConfigError: a post-norm model. ResultError: the parts do not sum to the metric (relative 1e-4), or that is no number; then it names
            the first hook point that is none.
        InterpError: a model in half precision, whose parts do not sum; a metric, ablation or number of neurons that cannot be.
        TokenError: as `activation_patching`.
    """
    check_sum(model, WHO)
    if model.dtype not in (torch.float32, torch.float64):
        raise InterpError(f"{WHO}: {model.dtype} is too coarse for parts that sum; load in float32 or float64.")
    name = check_metric(metric, ablation, wrong=wrong)
    read = given_position(position, WHO)
    neurons = model.config.n_layers * model.config.d_mlp if model.config.mlp != "none" else 0
    if not top_neurons >= 0:
        raise InterpError(f"{WHO}: top_neurons must be 0 or more, got {top_neurons}.")
    tokens = left_aligned(model.to_tokens(prompt, bos=bos))
    chosen = METRICS[name]
    lengths = (tokens != PAD).sum(1).tolist()
    places = positions_of(read, lengths, WHO)
    if answer is None:
        read_answers(model, 0, wrong, [chosen], len(tokens), WHO)  # before the model runs for the answer
        answer = top_predictions(model, tokens, places, WHO)
    answers, wrongs = read_answers(model, answer, wrong, [chosen], len(tokens), WHO)
    at = torch.tensor(places, device=tokens.device)
    readout = MetricReadout([chosen], Truth(answers, wrongs), position=places)
    with torch.no_grad():
        against = wrongs if name == "logit_difference" else None
        bare = uncapped(model)
        found = _direct(bare, tokens, at, answers, against, name, min(top_neurons, neurons))
        if not bool(torch.isfinite(found.metric).all()):
            raise not_finite(model, tokens, f"{WHO}: the {chosen.long_name}")
        replaced, total = _ablated(bare, tokens, lengths, at, found, readout, ablation, max_bytes, progress)
    size = float(found.components.abs().max().clamp(min=1))
    residual = found.components.sum(1) - found.metric
    if not bool((residual.abs() <= TOLERANCE * size).all()):
        raise ResultError(
            f"{WHO}: the parts sum to {found.components.sum(1).tolist()}, the metric is {found.metric.tolist()}; use float64."
        )
    parameters = {"metric": name, "ablation": ablation, "top_neurons": top_neurons, "position": read, "bos": bos}
    parameters["before_cap"] = model.config.logit_cap is not None
    return _result(model, tokens, chosen, found, (replaced, total, residual), parameters, (answers, wrongs))


def check_metric(metric: str | None, ablation: str, *, wrong: object) -> str:
    """The metric that is attributed. Raises InterpError for one, or an ablation, that there is not, or that lacks a wrong answer."""
    default = "logit" if wrong is None else "logit_difference"
    name = default if metric is None else metric
    if not is_known(name, ATTRIBUTED):
        raise InterpError(f"{WHO}: metric {name!r} cannot be attributed. {nearest(name, ATTRIBUTED)}")
    if METRICS[name].compares and wrong is None:
        raise InterpError(
            f"{WHO}: the {METRICS[name].long_name} needs a wrong answer to compare with (wrong=, --wrong)."
        )
    if not is_known(ablation, REPLACEMENTS):
        raise InterpError(f"{WHO}: unknown ablation {ablation!r}. {nearest(ablation, REPLACEMENTS)}")
    return name


@dataclass(frozen=True, eq=False)
class Direct:
    """Direct effects of one run.

    Args:
        readers: [prompt, layer, head, d_head], the inner product of which with a head's z at the position that is read is its effect.
    """

    metric: Float[Tensor, " prompt"]
    labels: Sequence[str]
    components: Float[Tensor, "prompt component"]
    heads: Float[Tensor, "prompt layer head"]
    sources: Float[Tensor, "prompt layer head key"]
    neurons: Float[Tensor, "prompt top"]
    neuron_ids: Int[np.ndarray, "two top"]
    readers: Float[Tensor, "prompt layer head d_head"]
    z: Float[Tensor, "prompt layer head d_head"]


def _direct(
    model: Transformer, tokens: Tensor, at: Tensor, answers: Tensor, wrongs: Tensor | None, name: str, top_neurons: int
) -> Direct:
    config, rows = model.config, torch.arange(len(tokens), device=tokens.device)
    points = [
        "attn.hook_z",
        "attn.hook_v",
        "attn.hook_pattern",
        *(["hook_mlp_out", "mlp.hook_post"] if config.mlp != "none" else []),
    ]
    names = [block_name(layer, point) for layer in range(config.n_layers) for point in points]
    names += ["hook_embed", *(["hook_pos_embed"] if config.has_position_embedding else [])]
    names += ["ln_final.hook_scale"] if isinstance(model.ln_final, Norm) else []
    names += [name for name in model.hook_points if name.endswith("_post.hook_scale")]
    values, normed = _capture(model, tokens, at, names)
    logits = model.to_logits(normed)[:, 0]
    direction = model.W_U.mT[answers]  # [prompt, d_model]
    offsets: dict[str, Tensor] = {}
    bias = model.b_U
    if wrongs is not None:
        direction = direction - model.W_U.mT[wrongs]
        metric = logits[rows, answers] - logits[rows, wrongs]
        if bias is not None:
            offsets["unembed_bias"] = bias[answers] - bias[wrongs]
    elif name == "logit":
        metric = logits[rows, answers]
        if bias is not None:
            offsets["unembed_bias"] = bias[answers]
    else:
        log_p = log_probabilities(logits).to(logits.dtype)
        p = log_p.exp()
        direction = direction - p @ model.W_U.mT
        metric = log_p[rows, answers]
        if bias is not None:
            offsets["unembed_bias"] = bias[answers] - p @ bias
        offsets["entropy"] = -entropy(log_p)
    reader = direction  # [prompt, d_model]: the inner product of which with a part of the stream is its direct effect
    if isinstance(model.ln_final, Norm):
        norm = model.ln_final
        if norm.bias is not None:
            offsets["ln_final_bias"] = direction @ norm.bias
        reader = reader_of(norm, direction, values["ln_final.hook_scale"][rows, at])
    parts = {"embed": (values["hook_embed"][rows, at] * reader).sum(-1)}
    if config.has_position_embedding:
        parts["pos_embed"] = (values["hook_pos_embed"].expand(len(tokens), -1, -1)[rows, at] * reader).sum(-1)
    heads, sources, neurons, readers, zs = [], [], [], [], []
    for layer in range(config.n_layers):
        block = cast(Block, model.blocks[layer])
        attention_reader, mlp_reader = (  # of what attention and MLP write, before a norm that stands on it
            reader_of(
                norm,
                reader,
                values[name][rows, at] if (name := block_name(layer, f"{which}.hook_scale")) in values else None,
            )
            for which, norm in (("ln1_post", block.ln1_post), ("ln2_post", block.ln2_post))
        )
        z, v, pattern = (values[block_name(layer, f"attn.hook_{part}")] for part in ("z", "v", "pattern"))
        head_reader = einsum(block.attn.W_O, attention_reader, "h e d, b d -> b h e")
        v = repeat(v, "b p h e -> b p (h g) e", g=config.n_heads // config.kv_heads)
        heads.append((z[rows, at] * head_reader).sum(-1))  # [prompt, head]
        read = einsum(v, head_reader, "b p h e, b h e -> b h p")
        sources.append(pattern[rows, :, at] * read)  # [prompt, head, key]
        readers.append(head_reader)
        zs.append(z[rows, at])
        parts[f"{layer}.attn"] = heads[-1].sum(1)
        added = 0.0 if block.attn.o.bias is None else attention_reader @ block.attn.o.bias
        if isinstance(block.ln1_post, Norm) and block.ln1_post.bias is not None:
            added = added + reader @ block.ln1_post.bias
        if isinstance(added, Tensor):
            parts[f"{layer}.attn_bias"] = added
        if block.mlp is not None:
            neurons.append(
                values[block_name(layer, "mlp.hook_post")][rows, at] * (mlp_reader @ block.mlp.output.weight)
            )
            parts[f"{layer}.mlp"] = (values[block_name(layer, "hook_mlp_out")][rows, at] * reader).sum(-1)
    parts |= offsets
    every = (
        torch.stack(neurons, 1).flatten(1) if neurons else metric.new_zeros(len(tokens), 0)
    )  # [prompt, layer * neuron]
    best = every.mean(0).abs().argsort(descending=True, stable=True)[:top_neurons]
    return Direct(
        metric,
        list(parts),
        torch.stack(list(parts.values()), 1),
        torch.stack(heads, 1),
        torch.stack(sources, 1),
        every[:, best],
        np.stack([best.cpu().numpy() // config.d_mlp, best.cpu().numpy() % config.d_mlp]),
        torch.stack(readers, 1),
        torch.stack(zs, 1),
    )


def _capture(model: Transformer, tokens: Tensor, at: Tensor, names: Sequence[str]) -> tuple[dict[str, Tensor], Tensor]:
    """Values of the run at every position, the final norm's scale among them, and the normed stream at one position of each prompt."""
    with model.capture(list(names)) as values:
        real = model.check_tokens(tokens)
        normed = model.ln_final(model.run_blocks(model.embed(tokens), real=real))
    return values, normed[torch.arange(len(tokens), device=tokens.device), at][:, None]


def _ablated(
    model: Transformer,
    tokens: Tensor,
    lengths: Sequence[int],
    at: Tensor,
    found: Direct,
    readout: MetricReadout,
    ablation: str,
    max_bytes: int,
    progress: bool,
) -> tuple[Float[Tensor, "prompt layer head"], Float[Tensor, "prompt layer head"]]:
    """The direct effect of each head's ablation, and its total effect."""
    config = model.config
    names = [block_name(layer, "attn.hook_z") for layer in range(config.n_layers)]
    averages = averages_for(model, ablation, tokens, max(lengths), names, WHO)
    new = torch.zeros_like(found.z)
    if averages is not None:  # [position, head, d_head] or [1, ...] for each layer
        put_in = torch.stack([averages[name] for name in names])
        new = put_in[:, at if put_in.shape[1] > 1 else torch.zeros_like(at)].transpose(0, 1)
    replaced = ((found.z - new) * found.readers).sum(-1)
    rows = [
        Row([without(layer, head, averages, length)], prompt)
        for prompt, length in enumerate(lengths)
        for layer in range(config.n_layers)
        for head in range(config.n_heads)
    ]
    swept = sweep(model, tokens, rows, readout, max_bytes=max_bytes, progress="ablating heads" if progress else None)
    after = swept.values[:, 0].reshape(replaced.shape)
    return replaced, swept.base[:, 0, None, None] - after


def _result(
    model: Transformer,
    tokens: Tensor,
    chosen: Metric,
    found: Direct,
    measured: tuple[Tensor, Tensor, Tensor],
    parameters: dict[str, Any],
    answers: tuple[Tensor, Tensor | None],
) -> xr.Dataset:
    heads, metric, units = ("layer", "head"), chosen.long_name, chosen.units
    replaced, total, residual = measured
    direct = f"direct effect on the {metric}"
    values: dict[str, tuple[tuple[str, ...], Tensor, str]] = {
        "component_effect": (("component",), found.components, direct),
        "head_effect": (heads, found.heads, direct),
        "replaced_effect": (heads, replaced, "direct effect of the ablation"),
        "total_effect": (heads, total, f"fall of the {metric} when the head is ablated"),
        "self_repair": (heads, replaced - total, "direct minus total effect of the ablation"),
        "source_effect": ((*heads, "key"), found.sources, f"{direct}, by the position that the head read"),
        "neuron_effect": (("top",), found.neurons, direct),
        "metric": ((), found.metric, metric),
        "residual": ((), residual, f"sum of the components minus the {metric}"),
    }
    variables: dict[str, Variable] = {
        name: (("prompt", *dims), value, long_name, units) for name, (dims, value, long_name) in values.items()
    }
    if len(tokens) > 1:
        for name in ("component_effect", "head_effect", "total_effect", "self_repair"):
            dims, value, long_name = values[name]
            variables |= over_prompts(name, value.cpu().double().numpy(), dims, long_name, units)
    ids = {role: given for role, given in zip(("answer", "wrong"), answers, strict=True) if given is not None}
    coords: dict[Any, Any] = {
        "component": np.array(found.labels, dtype=object),
        "layer": np.arange(model.config.n_layers),
        "head": np.arange(model.config.n_heads),
        "neuron_layer": (("top",), found.neuron_ids[0]),
        "neuron": (("top",), found.neuron_ids[1]),
        **({"bound": ["lower", "upper"]} if len(tokens) > 1 else {}),
        **token_coords(model, tokens, "key"),
        **{f"{role}_id": (("prompt",), given.cpu().numpy()) for role, given in ids.items()},
    }
    return make(
        "direct_logit_attribution", variables, coords, model=model, prompts={"prompt": tokens}, parameters=parameters
    )
