"""Training a tuned lens (Belrose et al. 2023, arXiv 2303.08112, section 3.1)."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor

from analyses.activations import SUFFIX, Activations
from analyses.architecture import architecture
from analyses.lenses.targets import Targets
from analyses.lenses.translators import TunedLens, save_lens
from analyses.lenses.writing import OwnWords, check_length
from analyses.results import as_json
from interp.errors import CheckpointError, InterpError, ResultError, TokenError
from interp.files import check_free, regular, write_whole
from interp.finite import not_finite
from interp.hooks import check_unhooked
from interp.loading.safetensors_file import read_safetensors
from interp.metrics import cross_entropy, kl_divergence, log_probabilities
from interp.model import Transformer
from interp.modes import ordinary, recording
from interp.prompts import listed, rows_of_ids
from interp.strict_json import parse
from interp.whole_numbers import in_64_bits, takes_whole

VALIDATION = 0.1
"""Share of the rows that is kept out of training."""

LEAST_GAIN = 1e-3
"""A validation counts as better where the KL falls by at least this share."""

BETAS, EPS = (0.9, 0.99), 1e-8


@dataclass
class _State:
    """Where a training stands: everything that it takes to go on with the same numbers.

    Args:
        tensors: `weight`, `bias`, the two moments of each, and the best `weight` and `bias` so far.
        best: validation KL of those, mean over layers, nats.
        waited: validations since then.
        history: (step, validation KL of each layer).
    """

    tensors: dict[str, Tensor]
    step: int
    best: float
    waited: int
    history: list[tuple[int, list[float]]]


@ordinary()
@takes_whole(
    "steps",
    "rows",
    "length",
    "validate_every",
    "patience",
    "seed",
    least={"length": 1, "validate_every": 1, "patience": 1},
)
def train_tuned_lens(
    model: Transformer,
    source: str | Path | Sequence[str] | Int[Tensor, "row position"] | OwnWords,
    *,
    out: str | Path | None = None,
    steps: int = 1000,
    rows: int = 8,
    length: int = 128,
    learning_rate: float = 3e-3,
    validate_every: int = 50,
    patience: int = 5,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = False,
) -> TunedLens:
    """Train one translator for the stream entering each layer, on KL(final || lens), beginning at the identity.

    Adam with a rate that falls linearly to zero. A tenth of the rows is kept out; the translators that did best there are returned.
    Training stops early when that has not improved for `patience` validations. The model is left as it is, gradients included.

    Args:
        source: the path of a text file; texts, or one long text; or rows of token ids. Texts are cut into rows of `length` tokens. Or the
            Path of a .zarr folder of `analyses.collect` with `blocks.*.hook_resid_post`, from which the streams are read. Or what
            `own_words` gives, which the lens then says of itself.
        out: safetensors file to write. Beside it, at each validation, `<out>.training` keeps the state: the same call goes on from
            there after a kill, to the same numbers, and removes it at the end.
        steps, rows: batches, and rows of a batch.
        length: tokens of a row of text; at most the model's context.
        learning_rate: at the first step.
        validate_every, patience: steps between validations; how many without gain end the training.
        seed: of the order of rows and of the choice of those kept out.
        overwrite: replace an existing `out`.
        progress: show a progress bar on standard error.

    Raises:
        InterpError: steps, rows or a learning rate that are not positive.
        TokenError: text that gives fewer than two rows, tokens that the model cannot take, or own words of another model.
        CheckpointError: the state beside `out` belongs to another training.
        ResultError: a model whose predictions are no numbers; it names the first hook point that is none. A training that diverges.
        InterpError: `out` exists or cannot be written, or is asked for while hooks are attached.
    """
    path = None if out is None else Path(out)
    if path is not None:
        check_free(path, overwrite=overwrite)
        check_unhooked(model, "train_tuned_lens")
    check_training(steps=steps, rows=rows, learning_rate=learning_rate)
    collected = _collected(source)
    tokens = training_rows(model, source, length)
    targets = Targets(model, tokens, collected)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed)).tolist()
    kept = max(1, round(VALIDATION * len(tokens)))
    held_out, trained = order[:kept], order[kept:]
    about = {
        "method": "tuned lens (Belrose et al. 2023)",
        "model": model.name,
        "architecture": architecture(model),
        "tokens": hashlib.sha256(tokens.cpu().numpy().tobytes()).hexdigest(),
        **{"steps": steps, "rows": rows, "length": tokens.shape[1], "learning_rate": learning_rate},
        **({"own_words": dict(source.about)} if isinstance(source, OwnWords) else {}),
        **({} if collected is None else {"collected": [collected.about["dtype"], collected.about["positions"]]}),
        **{"validate_every": validate_every, "patience": patience, "seed": seed},
    }
    lens = TunedLens.identity(model, about)
    request = json.loads(as_json(about | {"weight_hash": lens.weight_hash}))
    beside = None if path is None else path.with_name(path.name + ".training")
    state = _resumed(beside, lens, request)
    if state is None:
        before = _divergences(targets, lens, held_out, rows)
        if not all(math.isfinite(one) for one in before):
            raise not_finite(
                model, tokens[held_out], "train_tuned_lens: the KL between a layer's prediction and the final one"
            )
        state = _begun(lens, before)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("KL {task.fields[kl]:.3f}"))
    with Progress(*columns, *times, console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("tuning the lens", total=steps, completed=state.step, kl=state.best)
        while state.step < steps and state.waited < patience:
            batch = _batch(trained, rows, state.step, seed)
            _update(targets, state, batch, learning_rate * (1 - state.step / steps))
            state.step += 1
            if state.step % validate_every == 0 or state.step == steps:
                _validate(state, _divergences(targets, _lens_of(lens, state), held_out, rows))
                if beside is not None:
                    _keep(beside, state, request)
            bar.update(task, completed=state.step, kl=state.best)
    best = replace(
        lens,
        weight=state.tensors["best.weight"],
        bias=state.tensors["best.bias"],
        about=about | {"trained_steps": state.step, "validation_kl": [[at, kl] for at, kl in state.history]},
    )
    if path is not None and beside is not None:
        save_lens(best, path, overwrite=overwrite)
        beside.unlink(missing_ok=True)
    return best


def check_training(*, steps: int, rows: int, learning_rate: float) -> None:
    """Raise InterpError for numbers with which nothing can be trained."""
    number = isinstance(learning_rate, Real) and not isinstance(learning_rate, bool)
    if steps < 1 or rows < 1 or not number or not 0 < learning_rate < float("inf"):
        raise InterpError(
            f"train_tuned_lens: steps, rows and learning_rate must be positive; got {steps}, {rows} and {learning_rate!r}."
        )


def _collected(source: Any) -> Activations | None:
    return Activations(source) if isinstance(source, Path) and source.suffix == SUFFIX else None


def training_rows(model: Transformer, source: Any, length: int) -> Int[Tensor, "row position"]:
    """What a lens is trained on, and where its translators are chosen; the arguments are those of `train_tuned_lens`."""
    collected = _collected(source)
    if collected is not None:
        return torch.from_numpy(collected.tokens).to(model.device)
    source = source.of(model) if isinstance(source, OwnWords) else source
    given = source if isinstance(source, (str, Path)) else listed(source)
    if not isinstance(given, (str, Path)) and not all(isinstance(text, str) for text in given):
        tokens = rows_of_ids(given)
        if model.check_tokens(tokens) is not None:
            raise TokenError(
                "train_tuned_lens: rows of token ids must be full; give texts, or cut the rows to one length."
            )
    else:
        tokens = rows_of_text(model, given, length)
    if len(tokens) < 2:
        raise TokenError(
            f"train_tuned_lens: the source gives {len(tokens)} rows of {length} tokens; one to train on and one kept out are the least."
        )
    return tokens.to(model.device, torch.long)


def rows_of_text(
    model: Transformer, given: str | Path | Sequence[str], length: int, who: str = "train_tuned_lens"
) -> Int[Tensor, "row position"]:
    """Text, or texts one after the other, cut into full rows of so many tokens, each beginning as a prompt does. Raises TokenError for a
    length that the model does not take."""
    check_length(model, length, who)
    texts = [text_of(given, who)] if isinstance(given, (str, Path)) else given
    tokenizer = model.need_tokenizer()
    end, begin = tokenizer.eos, [] if tokenizer.bos is None else [tokenizer.bos]
    stream = [i for text in texts if text for i in (*tokenizer.encode(text), end) if i is not None]
    each = length - len(begin)
    starts = range(0, len(stream) - each + 1, each)
    return torch.tensor(
        [begin + stream[at : at + each] for at in starts], dtype=torch.long, device=model.device
    ).reshape(-1, length)


def text_of(source: str | Path, who: str = "train_tuned_lens") -> str:
    """The text itself, or what a file holds. Raises TokenError for a file that is no text in UTF-8."""
    if isinstance(source, str):
        return source
    try:
        return regular(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError(f"{who}: {source} cannot be read as text in UTF-8: {error}.") from error


def _batch(rows: Sequence[int], count: int, step: int, seed: int) -> list[int]:
    """Of these rows those of a step, which depend on its number alone: one epoch after the other, each in an order of its own."""
    chosen = []
    for at in range(step * count, (step + 1) * count):
        epoch, place = divmod(at, len(rows))
        order = torch.randperm(
            len(rows), generator=torch.Generator().manual_seed(in_64_bits(seed * 100_003 + epoch + 1))
        )
        chosen.append(rows[int(order[place])])
    return chosen


def _read(model: Transformer, stream: Tensor) -> Tensor:
    return log_probabilities(model.unembed(stream[None])[0])


@torch.no_grad()
def _divergences(targets: Targets, lens: TunedLens, kept: Sequence[int], rows: int) -> list[float]:
    """KL(final || lens) of each layer, nats, mean over all places of the rows that are kept out."""
    total, places = torch.zeros(targets.model.config.n_layers, dtype=torch.float64), 0
    for start in range(0, len(kept), rows):
        entering, log_p = targets.of(kept[start : start + rows])
        places += len(log_p)
        for layer, stream in enumerate(entering):
            total[layer] += len(log_p) * float(
                kl_divergence(log_p, _read(targets.model, lens.translate(layer, stream))).mean()
            )
    return [float(x) for x in total / places]


def _update(targets: Targets, state: _State, batch: Sequence[int], rate: float) -> None:
    """One step of Adam, layer by layer: the translators do not depend on each other, so that one layer's logits are held at a time."""
    model = targets.model
    entering, log_p = targets.of(batch)
    corrections = [1 - beta ** (state.step + 1) for beta in BETAS]
    for layer, stream in enumerate(entering):
        parts = [state.tensors[name][layer].clone().requires_grad_() for name in ("weight", "bias")]
        with recording("train_tuned_lens"):
            translated = torch.nn.functional.linear(stream.to(parts[0]), *parts) + stream
            loss = cross_entropy(log_p, _read(model, translated.to(stream))).mean()
            gradients = torch.autograd.grad(loss, parts)
        for name, gradient in zip(("weight", "bias"), gradients, strict=True):
            first, second = (state.tensors[f"{moment}.{name}"][layer] for moment in ("first", "second"))
            first.lerp_(gradient, 1 - BETAS[0])
            second.lerp_(gradient.square(), 1 - BETAS[1])
            scale = (second / corrections[1]).sqrt() + EPS
            state.tensors[name][layer] -= rate / corrections[0] * first / scale


def _lens_of(lens: TunedLens, state: _State) -> TunedLens:
    return replace(lens, weight=state.tensors["weight"], bias=state.tensors["bias"])


def _begun(lens: TunedLens, divergences: list[float]) -> _State:
    tensors: dict[str, Tensor] = {}
    for name, value in (("weight", lens.weight), ("bias", lens.bias)):
        tensors |= {key: value.clone() for key in (name, f"first.{name}", f"second.{name}", f"best.{name}")}
    return _State(tensors, 0, sum(divergences) / len(divergences), 0, [(0, divergences)])


def _validate(state: _State, divergences: list[float]) -> None:
    if not all(math.isfinite(one) for one in divergences):
        raise ResultError(
            f"train_tuned_lens: after {state.step} steps the translators' predictions are no numbers any more, and nothing of them is "
            "kept. Take a smaller learning rate."
        )
    state.history.append((state.step, divergences))
    mean = sum(divergences) / len(divergences)
    if mean < state.best * (1 - LEAST_GAIN):
        state.best, state.waited = mean, 0
        for name in ("weight", "bias"):
            state.tensors[f"best.{name}"].copy_(state.tensors[name])
    else:
        state.waited += 1


def _keep(path: Path, state: _State, request: dict[str, Any]) -> None:
    metadata = {
        "training": json.dumps(request),
        "state": json.dumps({"step": state.step, "best": state.best, "waited": state.waited, "history": state.history}),
    }
    tensors = {name: value.cpu() for name, value in state.tensors.items()}
    write_whole(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def _resumed(path: Path | None, lens: TunedLens, request: dict[str, Any]) -> _State | None:
    """The kept state of the same training; None where there is none. Raises CheckpointError for a damaged file, or another training's."""
    if path is None or not path.exists():
        return None
    try:
        tensors, metadata = read_safetensors(path)
        training, kept = parse(metadata["training"]), parse(metadata["state"])
        history = [(step, divergences) for step, divergences in kept["history"]]
        device = lens.weight.device
        moved = {
            name: tensors[name].to(device, copy=True) for name in _begun(lens, [0.0]).tensors
        }  # the file is written anew
        state = _State(moved, kept["step"], kept["best"], kept["waited"], history)
    except (CheckpointError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"train_tuned_lens: {path} is no state of a training, or is damaged ({error}). Delete it to begin anew."
        ) from error
    if training != request:
        raise CheckpointError(
            f"train_tuned_lens: {path} keeps the state of another training (other model, text or settings). Finish that one by the "
            "same call, or delete the file."
        )
    return state
