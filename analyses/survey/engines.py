"""Who does the shards: this process, or workers of Ray Data, here or in a cluster."""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from analyses.extra import need
from analyses.survey.manifest import done
from analyses.survey.shard import Worker
from interp.errors import InterpError
from interp.loading import load
from interp.model import Transformer

Reports = Iterator[dict[str, Any]]
"""Of shards, as each is done."""

REACHED_WITHIN = 10.0
"""Seconds for a cluster to answer."""

SETTINGS = bytes([4])
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + SETTINGS + bytes(5)
"""How HTTP/2 begins, which Ray speaks: a preface and an empty frame of settings, answered by such a frame (RFC 9113, sections 3.4, 4.1)."""


def here(
    model: Transformer, folder: Path, request: Mapping[str, Any], todo: Sequence[int], advance: Callable[[int], Any]
) -> Reports:
    """In this process, one after the other."""
    worker = Worker(model, folder, request)
    for number in todo:
        yield worker.shard(number, advance)


class RayWorker:
    """A `Worker` in a process of its own, with a GPU of its own where it was given one.

    Ray calls from another thread than it makes this in, and threads of torch that two threads of a process have set to work stand in each
    other's way; so all is done in the one that calls.
    """

    def __init__(
        self, model: str, options: Mapping[str, Any], folder: str, request: Mapping[str, Any], threads: int
    ) -> None:
        self._model, self._options, self._folder, self._request = model, options, Path(folder), request
        self._threads = threads
        self._worker: Worker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The shards of a batch: their numbers, and rows."""
        if self._worker is None:
            torch.set_num_threads(self._threads)
            device = "cuda" if os.environ.get("CUDA_VISIBLE_DEVICES") and torch.cuda.is_available() else "cpu"
            model = load(self._model, **{"device": device, **self._options})
            self._worker = Worker(model, self._folder, self._request)
        reports = [self._worker.shard(int(number)) for number in batch["shard"]]
        return {"shard": [report["shard"] for report in reports], "rows": [report["rows"] for report in reports]}


def with_ray(
    model: str,
    options: Mapping[str, Any],
    folder: Path,
    request: Mapping[str, Any],
    todo: Sequence[int],
    workers: int,
    address: str | None,
    advance: Callable[[int], Any],
) -> Reports:
    """By so many workers of Ray Data. A worker that dies is replaced and its shard done again.

    Args:
        model, options: as for `interp.load`; each worker loads it once.
        folder: one that all machines of the cluster see.
        address: of a cluster that runs; None starts one in this machine, which ends with this.
    """
    ray, data = need("ray"), need("ray.data")
    if not todo:
        return
    with _cluster(ray, address), _quiet(data):
        resources = ray.cluster_resources()
        cores = resources.get("CPU", 1.0) / workers
        threads = max(1, int(cores))
        shards = data.from_items([{"shard": number} for number in todo], override_num_blocks=len(todo))
        reports = shards.map_batches(
            RayWorker,
            fn_constructor_args=(model, dict(options), str(folder.resolve()), dict(request), threads),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(workers, len(todo)), max_tasks_in_flight_per_actor=2),
            num_cpus=min(threads, int(1e4 * cores) / 1e4),  # more workers than cores share them
            num_gpus=1 if resources.get("GPU", 0) >= workers else 0,
        )
        try:
            for row in reports.iter_rows():
                advance(int(row["rows"]))
                yield _seen(folder, int(row["shard"]))
        except ray.exceptions.RayError as error:
            cause = error.__cause__ if isinstance(error.__cause__, InterpError) else getattr(error, "cause", None)
            if isinstance(cause, InterpError):
                raise cause from error
            said = str(error).strip().splitlines()[-1]
            raise InterpError(f"survey: Ray has failed: {said} The same call goes on from the last shard.") from error


def _seen(folder: Path, number: int) -> dict[str, Any]:
    """The report of a shard that a worker has done, once its files are seen from here."""
    report = done(folder, number)
    if report is None:
        raise InterpError(
            f"survey: a worker has done shard {number}, but its files are not in {folder} as this process sees it. All machines of a "
            "cluster must see the same folder."
        )
    return report


@contextmanager
def _cluster(ray: Any, address: str | None) -> Iterator[None]:
    """A connection to a cluster, or one of our own for as long as it is needed. One that the caller has opened is used and left open."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which Ray would send to its makers
    where = {"num_cpus": os.cpu_count(), "include_dashboard": False} if address is None else {"address": address}
    try:
        _listens(address)
        ray.init(**where, log_to_driver=False, logging_level="ERROR")
    except (OSError, OverflowError, ValueError) as error:
        raise InterpError(
            f"survey: the Ray cluster {address!r} cannot be reached: {str(error).rstrip('.')}. If it asks for a token, this process needs "
            "it: RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _listens(address: str | None) -> None:
    """Raise OSError where nothing, or nothing that speaks as Ray does, answers at HOST:PORT: Ray itself goes on trying for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    with socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_WITHIN) as answering:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return  # it speaks only once keys are exchanged
        answering.sendall(HELLO)
        try:
            answer = answering.makefile("rb").read(9)
        except (TimeoutError, ConnectionError):
            answer = b""
    if answer[3:4] != SETTINGS:
        raise OSError("what listens there is no Ray cluster")


@contextmanager
def _quiet(data: Any) -> Iterator[None]:
    """Ray Data without its own bars and plans on the screen, and in whatever order shards are done."""
    context, log = data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, context.print_on_execution_start, log.level
    context.enable_progress_bars, context.print_on_execution_start = False, False
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before[:2]
        log.setLevel(before[2])
