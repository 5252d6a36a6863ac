"""Text that a model writes itself, as rows to train a lens on: for models whose training text is not at hand."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors.torch import save_file
from torch import Tensor

from analyses.architecture import architecture
from analyses.results import as_json
from interp.errors import CheckpointError, InterpError, TokenError
from interp.files import check_free, write_whole
from interp.hooks import check_unhooked
from interp.loading.safetensors_file import read_safetensors
from interp.model import Transformer
from interp.modes import ordinary
from interp.progress import progress_bar
from interp.strict_json import parse
from interp.whole_numbers import takes_whole

WHO = "own_words"
SEPARATOR = "<|endoftext|>"
"""What stands between documents in the training text of GPT-2, GPT-NeoX, SmolLM, Qwen and OLMo."""

MAX_BYTES = 512 * 2**20
"""Default bound on the memory of the rows that are written together."""

LARGEST_BATCH = 64
"""Rows written together at most: what a kill can lose."""


@dataclass(frozen=True, eq=False)
class OwnWords:
    """Rows that a model wrote.

    Args:
        tokens: [row, position], full rows of ids.
        weight_hash: of the model.
        about: how they were drawn: `temperature`, `seed`, `rows`, `length`, `tokens` (ids in all) and `opening`, the id that each row
            begins with, or what chose it.
    """

    tokens: Int[Tensor, "row position"]
    weight_hash: str
    about: Mapping[str, Any]

    def of(self, model: Transformer) -> Int[Tensor, "row position"]:
        """The rows, on the model's device. Raises TokenError where another model wrote them."""
        if self.weight_hash != model.weight_hash():
            raise TokenError(f"own words: a model with other weights wrote them than {model.name} has.")
        return self.tokens.to(model.device, torch.long)


@ordinary()
@takes_whole("rows", "length", "seed", "max_bytes", least={"rows": 1, "length": 1, "max_bytes": 1})
def own_words(
    model: Transformer,
    *,
    rows: int = 1024,
    length: int = 128,
    temperature: float = 1.0,
    seed: int = 0,
    keep: str | Path | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> OwnWords:
    """Rows that the model writes itself, for `train_tuned_lens`: what it says is the text on which its own prediction matters.

    At temperature 1 a token is drawn from the model's own distribution, so that rows are fair draws from it, given how they begin. Colder
    text repeats itself and shows the lens fewer contexts. A row goes on through an end of text, as rows of a text do.

    A row begins as the model's texts begin: with BOS where the model was trained with one; else with the token that stood between documents
    when it was trained, `<|endoftext|>` where the tokenizer has it as one token, or the tokenizer's end of text, for that is what a
    beginning came after. (SmolLM2 has no BOS, and its instruct version's end of text ends a turn, not a document.) A model without any of
    these begins a row with what it would put after a token drawn at random from those that stand for text, and does not see that one again.

    Args:
        rows, length: how many, and tokens of each, the first one counted.
        temperature: divides the logits; positive. Greedy rows (0) would all be the same.
        seed: what row r draws depends on the seed and r only. Another seed gives rows that have nothing to do with these.
        keep: safetensors file that holds the rows so far, written anew after each batch. The same call goes on from there after a kill,
            to the same rows; a finished file is read and nothing is drawn.
        max_bytes: bound on the memory of a batch, bytes; one row is always written. A batch has at most 64 rows.
        progress: show a progress bar on standard error.

    Raises:
        InterpError: a number of rows, a length or a temperature that cannot be; `keep` cannot be written, or hooks are attached with it.
        TokenError: a length outside the context. ConfigError: a model that is not causal.
        CheckpointError: `keep` is damaged, or holds rows of another request; the message says what differs.
        ResultError: logits that are no numbers; it names the first hook point that is none.
    """
    check_own_words(temperature=temperature)
    check_length(model, length, WHO)
    path = None if keep is None else Path(keep)
    if path is not None:
        check_free(path, overwrite=True)
        check_unhooked(model, WHO)
    begins, together = opening(model), min(LARGEST_BATCH, max(1, max_bytes // _bytes_per_row(model, length)))
    about: dict[str, Any] = {
        **{"temperature": float(temperature), "seed": seed, "rows": rows, "length": length, "tokens": rows * length},
        "opening": "drawn from its own predictions" if begins is None else begins,
    }
    weight_hash = model.weight_hash()
    request: dict[str, Any] = {
        "weight_hash": weight_hash,
        "architecture": architecture(model),
        "dtype": str(model.dtype),
    }
    request |= {"device": model.device.type, "together": together} | about
    request = json.loads(as_json(request))
    parts = _resumed(path, model, request)
    done = sum(map(len, parts))
    with progress_bar(progress) as bar:
        task = bar.add_task("writing its own words", total=rows * length, completed=done * length)
        for start in range(done, rows, together):
            numbers = range(start, min(start + together, rows))
            parts.append(_written(model, numbers, length, float(temperature), seed, begins).cpu())
            if path is not None:
                _keep(path, torch.cat(parts), request)
            bar.update(task, completed=numbers.stop * length)
    return OwnWords(torch.cat(parts).to(model.device), weight_hash, about)


def check_own_words(*, temperature: float) -> None:
    """Raise InterpError for a temperature at which nothing can be drawn."""
    number = isinstance(temperature, Real) and not isinstance(temperature, bool)
    if not number or not 0 < temperature < float("inf"):
        raise InterpError(
            f"{WHO}: temperature must be positive and finite, got {temperature!r}; at 0 every row would be the same."
        )


def check_length(model: Transformer, length: int, who: str) -> None:
    """Raise TokenError for rows that the model does not take, or that have no next token."""
    if not 2 <= length <= model.config.n_ctx:
        raise TokenError(f"{who}: length {length} is outside 2 to {model.config.n_ctx}, the context.")


def opening(model: Transformer) -> int | None:
    """The id that the model's texts begin with or come after, by the rule of `own_words`; None where the tokenizer has no such token."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        return None
    if tokenizer.bos is not None:
        return tokenizer.bos
    try:
        between = tokenizer.single(SEPARATOR)
    except TokenError:  # several tokens, or none of the model's
        return tokenizer.eos
    return between if tokenizer.decode([between]) == SEPARATOR else tokenizer.eos  # else it is the unknown token


def _written(
    model: Transformer, numbers: range, length: int, temperature: float, seed: int, begins: int | None
) -> Int[Tensor, "row position"]:
    """The rows of these numbers, drawn together."""
    if begins is None:
        ordinary = model.ordinary_ids()
        places = [_seed("before", seed, row) % len(ordinary) for row in numbers]
        before = _column([ordinary[place] for place in places], model)
        first = _continued(model, before, 1, temperature, [_seed("first", seed, row) for row in numbers])[:, 1:]
    else:
        first = _column([begins] * len(numbers), model)
    return _continued(model, first, length - 1, temperature, [_seed("row", seed, row) for row in numbers])


def _continued(
    model: Transformer, tokens: Tensor, more: int, temperature: float, seeds: Sequence[int]
) -> Int[Tensor, "row position"]:
    return model.generate(tokens, max_new_tokens=more, temperature=temperature, seed=seeds, stop=[])


def _column(ids: Sequence[int], model: Transformer) -> Int[Tensor, "row one"]:
    return torch.tensor(ids, dtype=torch.long, device=model.device)[:, None]


def _seed(what: str, seed: int, row: int) -> int:
    """Of a generator, 63 bits: no two rows, of one seed or of two, share their noise, as they would with seed + row."""
    return int.from_bytes(hashlib.sha256(f"{WHO} {what} {seed} {row}".encode()).digest()[:8], "big") >> 1


def _bytes_per_row(model: Transformer, length: int) -> int:
    """Keys and values, and what a draw makes of the logits in float64."""
    config, size = model.config, model.W_E.element_size()
    return 2 * config.n_layers * config.kv_heads * config.d_head * length * size + 8 * 8 * config.d_vocab


def _keep(path: Path, tokens: Int[Tensor, "row position"], request: Mapping[str, Any]) -> None:
    metadata = {WHO: json.dumps(request)}
    write_whole(path, lambda temporary: save_file({"tokens": tokens}, temporary, metadata=metadata))


def _resumed(path: Path | None, model: Transformer, request: Mapping[str, Any]) -> list[Int[Tensor, "row position"]]:
    """The rows of the same request that are kept, if any. Raises CheckpointError for a damaged file, or rows of another request."""
    if path is None or not path.exists():
        return []
    try:
        tensors, metadata = read_safetensors(path)
        kept, tokens = parse(metadata[WHO]), tensors["tokens"].clone()
        differing = [name for name in request if kept[name] != request[name]]
    except (CheckpointError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{WHO}: {path} holds no own words, or is damaged ({error}). Delete it to begin anew."
        ) from error
    if differing:
        told = "; ".join(
            name if name == "architecture" else f"{name} {_short(kept[name])}, here {_short(request[name])}"
            for name in differing
        )
        raise CheckpointError(
            f"{WHO}: {path} keeps rows of another request. There: {told}. Finish that one by the same call, or delete the file."
        )
    try:
        whole = len(tokens) == request["rows"] or len(tokens) % request["together"] == 0
        fits = whole and 0 < len(tokens) <= request["rows"] and tokens.shape[1:] == (request["length"],)
        if not fits or model.check_tokens(tokens) is not None:
            raise TokenError(f"its rows have shape {tuple(tokens.shape)}, or are not full")
    except TokenError as error:
        raise CheckpointError(f"{WHO}: {path} is damaged: {error}. Delete it to begin anew.") from error
    return [tokens.long()]


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)
