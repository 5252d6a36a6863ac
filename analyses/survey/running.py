"""A survey from its data set to its folder of tables."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from analyses.extra import need
from analyses.survey.engines import here, with_ray
from analyses.survey.manifest import ask, begun, done, write_manifest
from analyses.survey.rejected import MOST_REJECTED, check_most, check_share, gather_rejected
from analyses.survey.rows import roles_of
from analyses.survey.sources import Source
from analyses.survey.staged import stage
from analyses.survey.surveyed import check_options, checked_options, surveyed
from analyses.survey.values import check_values
from interp.errors import InterpError
from interp.hooks import check_unhooked
from interp.loading import load
from interp.model import Transformer
from interp.progress import progress_bar
from interp.sweep import MAX_BYTES
from interp.whole_numbers import takes_whole

FORMAT = 1
"""Of the tables and their folder."""

SHARD_ROWS = 1000


@takes_whole("workers", "shard_rows", "max_bytes", least={"workers": 1, "shard_rows": 1, "max_bytes": 1})
def survey(
    model: Transformer | str,
    pairs: str | Path,
    analysis: str,
    *,
    out: str | Path,
    options: Mapping[str, Any] | None = None,
    load_options: Mapping[str, Any] | None = None,
    workers: int | None = None,
    address: str | None = None,
    shard_rows: int = SHARD_ROWS,
    most_rejected: float = MOST_REJECTED,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> dict[str, Any]:
    """Ask one analysis of every row of a data set, and keep all numbers as Parquet tables in a folder.

    Killed at any moment, the same call goes on from there: at most the shards in flight are done again, and the tables are those of a run
    that was not interrupted. Each row's numbers are those of the analysis called for that row alone (of random directions and draws: with
    `seed` plus the row's number, times the draws of a prompt), up to the rounding of a batch.

    Args:
        model: one that is loaded, or what `interp.load` takes; with workers the latter, since each loads its own.
        pairs: a Parquet, CSV or JSON-lines file, a directory that Hugging Face `datasets` saved, or `task:NAME:COUNT[:SEED]`. Columns
            `prompt`, or `clean` and `corrupt`, with `answer` and `wrong` where the analysis takes them; prompts are texts or token ids,
            answers texts of one token or ids. Further columns are kept as labels.
        analysis: a name of `analyses.survey.SURVEYED`, such as "activation_patching" or "cascade.gain".
        out: the folder. `manifest.json` in it says what there is; a table for each set of axes, such as `layer-head/`, has a row for each
            prompt and cell, `prompts/` one for each prompt, and `rejected.parquet` each row that was put aside, with the reason.
        options: of the analysis; JSON values.
        load_options: of `interp.load`, besides the model, for one that is given by name.
        workers: so many workers of Ray Data, each with one model and a share of the threads, or a GPU of its own where there are as many;
            None is this process, without Ray.
        address: of a Ray cluster that runs, whose machines all see `out`; None starts one here.
        shard_rows: rows of a shard, which is done by one worker and is what a kill may lose.
        most_rejected: share of rows beyond which the survey stops.
        max_bytes: bound on the memory of what runs together.
        progress: show a bar with the rate and the time left on standard error.

    Returns:
        The manifest: the request, `rows`, `accepted`, `rejected`, `reasons` and `shards`.

    Raises:
        InterpError: an unknown analysis or option, a value that an option cannot have, a data set that cannot be read or lacks a column,
            a folder of another survey (it says what differs), or a package that is not installed. HookError: hooks are attached.
        ResultError: more rows than `most_rejected` were put aside; the commonest reason is named.
    """
    need("pyarrow")
    folder, source, about = Path(out), Source.of(pairs), surveyed(analysis)
    asked = checked_options(analysis, {} if options is None else options)
    load_options = {} if load_options is None else load_options
    check_options(load_options, "load_options")
    check_most(most_rejected, "survey")
    ray = workers is not None or address is not None
    if ray and not isinstance(model, str):
        raise InterpError("survey: with workers the model is given by its name or path, since each of them loads it.")
    if ray:
        need("ray.data")
    loaded = load(model, **dict(load_options)) if isinstance(model, str) else model
    check_unhooked(loaded, "survey")
    if not begun(folder):
        check_values(loaded, analysis, asked, max_bytes)
    request = {
        "format": FORMAT, "analysis": analysis, "options": asked, "data": source.about(), "shard_rows": shard_rows,
        "max_bytes": max_bytes, "model": _about_model(loaded),
    }  # fmt: skip
    ask(folder, request)
    with progress_bar(progress) as bar:
        reading = bar.add_task("reading rows", total=None)
        staged = stage(source, folder, shard_rows, loaded.tokenizer, lambda rows: bar.update(reading, completed=rows))
        bar.remove_task(reading)
        roles_of(about, staged["columns"])
        reports = {n: found for n in range(len(staged["shards"])) if (found := done(folder, n)) is not None}
        todo = [number for number in range(len(staged["shards"])) if number not in reports]
        left = sum(staged["shards"][number]["rows"] for number in todo)
        with _rate(bar, analysis, left) as advance:
            check_share(folder, reports, most_rejected, staged["rows"])
            if ray:
                del loaded  # each worker has its own
                shards = with_ray(str(model), load_options, folder, request, todo, workers or 1, address, advance)
            else:
                shards = here(loaded, folder, request, todo, advance)
            for report in shards:
                reports[report["shard"]] = report
                check_share(folder, reports, most_rejected, staged["rows"])
    gather_rejected(folder)
    return write_manifest(folder, request, staged, [reports[number] for number in sorted(reports)])


def _about_model(model: Transformer) -> dict[str, Any]:
    return {
        "weight_hash": model.weight_hash(),
        "config": model.config.to_dict(),
        "tokenizer_hash": model.tokenizer.hash() if model.tokenizer else "",
        "dtype": str(model.dtype).removeprefix("torch."),
    }


@contextmanager
def _rate(bar: Any, analysis: str, rows: int) -> Iterator[Any]:
    """What tells the bar of so many rows more; its text says how many there are a second."""
    task = bar.add_task(analysis, total=rows)
    began, so_far = time.perf_counter(), 0

    def advance(more: int) -> None:
        nonlocal so_far
        so_far += more
        rate = so_far / max(time.perf_counter() - began, 1e-9)
        bar.update(task, completed=so_far, description=f"{analysis}, {rate:,.1f} rows/s")

    yield advance
