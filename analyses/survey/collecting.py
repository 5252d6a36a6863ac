"""Activations of a data set, kept in Zarr: for probes, tuned lenses and sparse autoencoders."""

import errno
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
import xxhash
from torch import Tensor

from analyses.activations import KIND, SUFFIX
from analyses.architecture import architecture
from analyses.extra import need
from analyses.lenses.reading import chosen_positions
from analyses.lenses.tuning import rows_of_text
from analyses.results import as_json, storable
from analyses.survey.manifest import REJECTED
from analyses.survey.rejected import MOST_REJECTED, check_most, write_reasons
from analyses.survey.rows import prompt_ids, reason_of
from analyses.survey.sources import Source
from interp.errors import InterpError, ResultError, TokenError, is_known
from interp.files import make_folder, regular, sweep, temporary_folder, write_whole
from interp.hooks import check_unhooked
from interp.model import Transformer
from interp.names import Selection, select
from interp.progress import progress_bar
from interp.prompts import rows_of_ids
from interp.strict_json import parse
from interp.whole_numbers import Wholes, takes_whole, whole_numbers

DTYPES = {"float16": np.float16, "float32": np.float32, "float64": np.float64}
CHUNK, BLOCK = 16, 256
"""Rows of a chunk, which is what one reading takes, and of a shard, which is a file and is written at once."""

BATCH = 2**25
"""Bytes of the streams of rows that run together."""


@torch.no_grad()
@takes_whole("length", least={"length": 1})
def collect(
    model: Transformer,
    texts: str | Path | Sequence[str | Sequence[SupportsIndex]],
    *,
    names: Selection = "blocks.*.hook_resid_post",
    out: str | Path,
    positions: Wholes | None = None,
    length: int | None = None,
    dtype: str | None = None,
    bos: bool | None = None,
    most_rejected: float = MOST_REJECTED,
    progress: bool = False,
) -> Path:
    """Run a data set once and keep values of hook points in a Zarr folder (format 3, in shards), which xarray opens with dims and names.

    Killed, the same call goes on from the last shard.

    Args:
        texts: a text file (.txt), cut into full rows of `length` tokens as `train_tuned_lens` does; or a data set as `survey` takes it,
            whose column `text`, `prompt` or `clean` has a prompt for each row; or listed prompts, texts or ids; padded at the end.
        names: hook points, as for `run_with_cache`.
        out: the folder; its name ends in .zarr.
        positions: only these of each row, counted from its end where negative; None is all. Of attention the rows of these queries.
        length: tokens of a row of a text file; None is 128, or the context where that is shorter.
        dtype: float16, float32 or float64; None is the model's own (of bfloat16, which Zarr does not have, float32).
        most_rejected: share of rows that may be put aside, such as prompts beyond the context or without a chosen position.

    Returns:
        The path of the folder: an array for each hook point, [prompt, position, ...], and `token_id` [prompt, token] and `place` [prompt,
        position], which token of its prompt a position is, and `row` [prompt], its row in the data set. Padding is NaN, or -1 of ids.
        `rejected.parquet` in it has the rows that were put aside, with the reason.

    Raises:
        InterpError: a name that is no .zarr folder, one of another collection, a data set without texts, or a package that is not
            installed. ResultError: more rows than `most_rejected` would be put aside; the first is named. HookError: an unknown hook
            point, or hooks that are attached.
    """
    zarr = need("zarr")
    folder = _place(out)
    if folder.suffix != SUFFIX:
        raise InterpError(f"collect: {folder} is no name of a Zarr folder; let it end in {SUFFIX}.")
    if dtype is not None and not is_known(dtype, DTYPES):
        raise InterpError(f"collect: dtype {dtype!r} is none of {', '.join(DTYPES)}.")
    check_unhooked(model, "collect")
    points = select(names, list(model.hook_points), "collect")
    check_most(most_rejected, "collect")
    chosen = None if positions is None else whole_numbers(positions, "collect: a position")
    tokens, rows, rejected = _tokens(model, texts, length, bos, chosen or ())
    if len(rejected) > most_rejected * (len(rows) + len(rejected)) or not rows:
        raise _too_many(rejected, len(rows) + len(rejected), most_rejected)
    places = chosen_positions(tokens, chosen, "collect").cpu()
    kept = dtype or {torch.bfloat16: "float32"}.get(model.dtype, str(model.dtype).removeprefix("torch."))
    about = {
        "kind": KIND, "model": storable(model.name), "weight_hash": model.weight_hash(), "architecture": as_json(architecture(model)),
        "names": json.dumps(points), "dtype": kept, "positions": as_json(chosen),
        "tokens": xxhash.xxh3_128(f"{tuple(tokens.shape)}".encode() + tokens.cpu().numpy().tobytes()).hexdigest(),
        "rows": xxhash.xxh3_128(as_json([rows, sorted(rejected.items())]).encode()).hexdigest(),
    }  # fmt: skip
    arrays = {"token_id": (tokens, "token"), "place": (places, "position"), "row": (torch.tensor(rows), None)}
    group, done = _begun(zarr, folder, about, arrays, rejected)
    with progress_bar(progress) as bar, ThreadPoolExecutor(1) as writer:
        task = bar.add_task("collecting", total=len(tokens) - done)
        written: Future[None] | None = None  # the block before is written while one is run
        for start in range(done, len(tokens), BLOCK):
            block = range(start, min(start + BLOCK, len(tokens)))
            some = slice(block.start, block.stop)
            ready = _run(model, tokens[some], places[some], points, kept)
            if written is not None:
                written.result()
            written = writer.submit(_write, folder, group, model, len(tokens), block, ready)
            bar.update(task, completed=block.stop - done)
        if written is not None:
            written.result()
    with _written(folder, "the end"):
        group.attrs["finished"] = True
    return folder


def _place(out: str | Path) -> Path:
    """Where the folder is or will be; a link is followed."""
    try:
        place = Path(os.path.realpath(out))
        place.exists()
    except (OSError, ValueError, TypeError) as error:  # a name that is too long, has a NUL in it, or is none
        raise InterpError(
            f"collect: {str(out)[:80]!r} cannot name a folder: {getattr(error, 'strerror', None) or error}."
        ) from error
    return place


@contextmanager
def _written(folder: Path, what: str) -> Iterator[None]:
    """Name what stops writing, such as a full disk."""
    try:
        yield
    except OSError as error:
        raise InterpError(
            f"collect: {what} cannot be written to {folder}: {error.strerror or error}. Make room, or what else is missing; the same call "
            "goes on from there."
        ) from error


def _tokens(
    model: Transformer, texts: Any, length: int | None, bos: bool | None, positions: Sequence[int]
) -> tuple[Tensor, list[int], dict[int, str]]:
    """Ids [prompt, token], padded at the end; the row of each prompt; and why each other row was put aside."""
    if isinstance(texts, (str, Path)) and Path(texts).suffix == ".txt":
        tokens = rows_of_text(model, Path(texts), min(128, model.config.n_ctx) if length is None else length, "collect")
        return tokens, list(range(len(tokens))), {}
    if length is not None:
        raise InterpError(
            "collect: length is of rows that are cut from a text file (.txt); prompts of a data set keep theirs."
        )
    found: dict[int, list[int]] = {}
    rejected: dict[int, str] = {}
    for row, (column, value) in enumerate(_prompts(model, texts)):
        try:
            found[row] = prompt_ids(model, value, column, bos)
            _check_there(len(found[row]), positions)
        except TokenError as error:
            found.pop(row, None)
            rejected[row] = reason_of(error)
    ids = rows_of_ids(list(found.values())).to(model.device) if found else torch.empty(0, 0, dtype=torch.long)
    return ids, list(found), rejected


def _prompts(model: Transformer, texts: Any) -> Iterator[tuple[str, Any]]:
    """The column and the value of each row."""
    if not isinstance(texts, (str, Path, Iterable)):
        raise InterpError(f"collect: texts are a file, a data set or a list of texts, got {type(texts).__name__}.")
    if not isinstance(texts, (str, Path)):
        yield from (("text", text) for text in texts)
        return
    for piece in Source.of(texts).pieces(model.tokenizer):
        column = next((name for name in ("text", "prompt", "clean") if name in piece.column_names), None)
        if column is None:
            raise InterpError(
                f"collect: the data set has no column text, prompt or clean; it has {', '.join(piece.column_names)}."
            )
        yield from ((column, value) for value in piece.column(column).to_pylist())


def _check_there(length: int, positions: Sequence[int]) -> None:
    for position in positions:
        if not -length <= position < length:
            raise TokenError(f"position {position} is out of range; the prompt has {length} tokens.")


def _too_many(rejected: Mapping[int, str], rows: int, most: float) -> ResultError:
    if not rows:
        return ResultError(
            "collect: there is no row to collect: the data set is empty, or the text shorter than one row."
        )
    first, why = next(iter(rejected.items()))
    reason, often = Counter(rejected.values()).most_common(1)[0]
    also = "" if reason == why else f" {often} because: {reason}"
    return ResultError(
        f"collect: {len(rejected)} of {rows} rows cannot be taken, more than {most:.0%}; the first is row {first}: {why}{also} Mend them, "
        "or allow more (most_rejected=, --most-rejected)."
    )


def _run(
    model: Transformer, tokens: Tensor, places: Tensor, points: Sequence[str], dtype: str
) -> dict[str, np.ndarray]:
    """The values at the chosen places of some rows, in the dtype that is kept, batch by batch."""
    size = tokens.shape[1] * model.config.d_model * model.W_E.element_size() * (len(points) + 4)
    found: dict[str, Tensor] = {}
    together = max(1, BATCH // size)
    for start in range(0, len(tokens), together):
        some = slice(start, start + together)
        with model.capture(list(points)) as values:
            batch = tokens[some]
            model.run_blocks(model.embed(batch), real=model.check_tokens(batch)) if _of_blocks(points) else model(batch)
        for name in points:
            part = _at(values[name].cpu(), model.hook_points[name].axes, places[some])
            if name not in found:
                found[name] = torch.empty((len(tokens), *part.shape[1:]), dtype=getattr(torch, dtype))
            _put(found[name][some], part, name)
    return {name: values.numpy() for name, values in found.items()}


def _write(
    folder: Path, group: Any, model: Transformer, rows: int, block: range, arrays: Mapping[str, np.ndarray]
) -> None:
    """A block of rows, of so many; after it the next run begins behind it."""
    with _written(folder, f"rows {block.start} to {block.stop - 1}"):
        for name, array in arrays.items():
            if name not in group:
                _make(group, name, model.hook_points[name].axes, (rows, *array.shape[1:]), array.dtype)
            group[name][block.start : block.stop] = array
        _keep(folder, block.stop)


def _put(place: Tensor, values: Tensor, name: str) -> None:
    """Values into their place, in its dtype. Raises ResultError where that has no room for one."""
    place.copy_(values)
    most = torch.finfo(place.dtype).max
    narrower = most < torch.finfo(values.dtype).max and not _within(values, most)
    if narrower and bool((torch.isinf(place) & ~torch.isinf(values)).any()):
        largest = float(values[torch.isfinite(values)].abs().max())
        raise ResultError(
            f"collect: {name} has values up to {largest:.3g}, which {str(place.dtype).removeprefix('torch.')} cannot hold; give dtype "
            "float32."
        )


def _within(values: Tensor, most: float) -> bool:
    """Whether all are numbers between -most and most: one look, where telling which are infinite makes four tensors."""
    lowest, highest = values.aminmax()
    return bool((lowest >= -most) & (highest <= most))


def _of_blocks(points: Sequence[str]) -> bool:
    """Whether no value behind the blocks is asked for, so that nothing need be unembedded."""
    return all(name.startswith(("blocks.", "hook_embed", "hook_pos_embed")) for name in points)


def _at(value: Tensor, axes: tuple[str, ...], places: Tensor) -> Tensor:
    axis = axes.index("query" if "query" in axes else "position")
    if places.shape[1] == value.shape[axis] and bool((places == torch.arange(places.shape[1])).all()):
        return value
    there = places >= 0
    index = places.clamp(min=0).reshape(len(places), *[1] * (axis - 1), -1, *[1] * (value.ndim - axis - 1))
    shape = [*value.shape]
    shape[axis] = places.shape[1]
    taken = value.gather(axis, index.expand(shape))
    return taken.masked_fill(~there.reshape(index.shape), math.nan)


def _begun(
    zarr: Any,
    folder: Path,
    about: dict[str, Any],
    arrays: Mapping[str, tuple[Tensor, str | None]],
    rejected: Mapping[int, str],
) -> tuple[Any, int]:
    """The Zarr group, and how many rows are in it already. Raises InterpError for a folder of something else."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        try:
            group = zarr.open_group(str(folder), mode="r+")
            before = {name: group.attrs.get(name) for name in about}
            done = parse(regular(folder / DONE).read_text(encoding="utf-8"))["rows"]
            if type(done) is not int or not 0 <= done <= len(arrays["row"][0]):
                raise ValueError(f"{done!r} rows are not of this collection")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InterpError(
                f"collect: {folder} holds no collection that can go on; name another folder, or delete it."
            ) from error
        if different := [name for name in about if before[name] != about[name]]:
            raise InterpError(
                f"collect: {folder} holds another collection: its {', '.join(different)} differ. Name another folder, or delete it."
            )
        return group, done
    make_folder(folder.parent)
    sweep(folder.parent)
    # In a temporary folder first, so that a kill leaves none that cannot go on.
    with _written(folder, "the beginning"), temporary_folder(folder.parent) as place:
        _begin(zarr, place / folder.name, about, arrays, rejected)
        try:
            (place / folder.name).rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise InterpError(
                f"collect: {folder} was begun by another call meanwhile; the same call goes on when that has ended."
            ) from error
    return zarr.open_group(str(folder), mode="r+"), 0


def _begin(
    zarr: Any,
    folder: Path,
    about: dict[str, Any],
    arrays: Mapping[str, tuple[Tensor, str | None]],
    rejected: Mapping[int, str],
) -> None:
    group = zarr.open_group(str(folder), mode="w", zarr_format=3)
    group.attrs.update(about)
    for name, (values, along) in arrays.items():
        group.create_array(
            name, data=values.cpu().numpy(), dimension_names=("prompt",) if along is None else ("prompt", along)
        )
    if rejected:
        write_reasons(folder / f"{REJECTED}.parquet", rejected)
    _keep(folder, 0)


DONE = "done.json"


def _keep(folder: Path, rows: int) -> None:
    write_whole(folder / DONE, lambda temporary: temporary.write_text(json.dumps({"rows": rows}), encoding="utf-8"))


def _make(group: Any, name: str, axes: tuple[str, ...], shape: tuple[int, ...], dtype: Any) -> None:
    dims = tuple("prompt" if axis == "batch" else "position" if axis == "query" else axis for axis in axes)
    chunks, shards = (
        (min(CHUNK, shape[0]), *shape[1:]),
        (math.ceil(min(BLOCK, shape[0]) / min(CHUNK, shape[0])) * min(CHUNK, shape[0]),),
    )
    group.create_array(
        name, shape=shape, dtype=dtype, chunks=chunks, shards=(*shards, *shape[1:]), dimension_names=dims, fill_value=math.nan,
        compressors=None,  # activations are noise to them: a tenth smaller, an eighth slower
    )  # fmt: skip
