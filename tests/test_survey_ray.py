"""Surveys with workers of Ray: the same tables as in one process, whoever is killed."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from survey_data import pairs, same_tables, written

import analyses
import interp
from analyses.survey import engines

ray = pytest.importorskip("ray", reason="Ray is not installed")

HEADS = {"site": "z", "smallest_gap": 1e-6}
CODE = """
import analyses
analyses.survey({model!r}, {place!r}, "activation_patching", out={out!r}, options={options!r}, shard_rows=2, workers=2,
    address={address!r})
"""
CLUSTER = """
import sys, ray
print(ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False).address_info["address"], flush=True)
sys.stdin.read()
"""


def of_workers(root: psutil.Process) -> list[psutil.Process]:
    found = []
    for process in root.children(recursive=True):
        try:
            if process.cmdline() and "MapWorker" in process.cmdline()[0]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def of_node(root: psutil.Process) -> list[psutil.Process]:
    return [process for process in root.children(recursive=True) if process.name() == "raylet"]


@pytest.fixture
def made(tmp_path: Path, small_checkpoint: Path) -> Callable[[int], tuple[Path, Path]]:
    """A data set of so many rows and the survey of it in one process."""

    def make(rows: int) -> tuple[Path, Path]:
        model = interp.load(small_checkpoint)
        place = written(tmp_path / "rows.jsonl", pairs([8, 9] * (rows // 2), vocab=model.config.d_vocab))
        analyses.survey(model, place, "activation_patching", out=tmp_path / "whole", options=HEADS, shard_rows=2)
        return place, tmp_path / "whole"

    return make


def started(small_checkpoint: Path, place: Path, out: Path, address: str | None = None) -> subprocess.Popen:
    code = CODE.format(model=str(small_checkpoint), place=str(place), out=str(out), options=HEADS, address=address)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} | ({"RAY_AUTH_MODE": "token"} if address else {})
    with (out.parent / "said").open("a") as said:
        return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=said)


def said(folder: Path) -> str:
    return (folder / "said").read_text()


def done(out: Path) -> int:
    return len(list((out / "shards").glob("*.json")))


def wait_for(process: subprocess.Popen, out: Path, shards: int) -> None:
    while process.poll() is None and done(out) < shards:
        time.sleep(0.01)
    assert process.poll() is None, said(out.parent)
    time.sleep(random.uniform(0, 0.3))


def test_two_workers_make_the_same_tables(tmp_path, small_checkpoint, made):
    place, whole = made(8)
    process = started(small_checkpoint, place, tmp_path / "s")
    assert process.wait(120) == 0, said(tmp_path)
    same_tables(whole, tmp_path / "s")


def test_a_cluster_that_runs_is_used_and_left_running(tmp_path, small_checkpoint, made):
    place, whole = made(8)
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env={**os.environ, "RAY_AUTH_MODE": "token"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as cluster:
        address = cluster.stdout.readline().strip()
        process = started(small_checkpoint, place, tmp_path / "s", address)
        nodes, workers = [], []
        while process.poll() is None:
            nodes += of_node(psutil.Process(process.pid))
            workers += of_workers(psutil.Process(cluster.pid))
            time.sleep(0.1)
        assert process.returncode == 0, said(tmp_path)
        assert workers
        assert not nodes  # it has started none of its own
        assert of_node(psutil.Process(cluster.pid))
        cluster.communicate("")
    same_tables(whole, tmp_path / "s")


def test_a_cluster_that_cannot_be_reached(tmp_path, small_checkpoint):
    place = written(tmp_path / "rows.jsonl", pairs([8, 9], vocab=interp.load(small_checkpoint).config.d_vocab))
    process = started(small_checkpoint, place, tmp_path / "s", "127.0.0.1:9")
    assert process.wait(120) != 0
    assert "the Ray cluster '127.0.0.1:9' cannot be reached" in said(tmp_path)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 404 Not Found\r\n\r\n", None])
def test_what_is_no_cluster_is_told_at_once(monkeypatch, answer):
    """Something else listens there: it says nothing, something else, or closes."""
    monkeypatch.setattr(engines, "REACHED_WITHIN", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answered():
            with server.accept()[0] as caller:
                if answer is None:
                    return
                caller.sendall(answer)
                done.wait(5)

        done = threading.Event()
        thread = threading.Thread(target=answered)
        thread.start()
        try:
            with pytest.raises(OSError, match="what listens there is no Ray cluster"):
                engines._listens(f"127.0.0.1:{server.getsockname()[1]}")
        finally:
            done.set()
            thread.join()


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(tmp_path, small_checkpoint, made):
    place, whole = made(200)
    process = started(small_checkpoint, place, tmp_path / "s")
    for shards in (3, 20):
        wait_for(process, tmp_path / "s", shards)
        random.choice(of_workers(psutil.Process(process.pid))).kill()
    assert process.wait(200) == 0, said(tmp_path)
    same_tables(whole, tmp_path / "s")


@pytest.mark.slow
@pytest.mark.parametrize("who", ["driver", "node"])
def test_killed_driver_or_node_the_same_call_goes_on(tmp_path, small_checkpoint, made, who):
    place, whole = made(200)
    process = started(small_checkpoint, place, tmp_path / "s")
    wait_for(process, tmp_path / "s", 5)
    workers = of_workers(psutil.Process(process.pid))
    if who == "driver":
        os.kill(process.pid, signal.SIGKILL)
    else:
        (node,) = of_node(psutil.Process(process.pid))
        node.kill()
    assert process.wait(200) != 0
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive  # no worker is left behind
    before = done(tmp_path / "s")
    assert 5 <= before < 100
    again = started(small_checkpoint, place, tmp_path / "s")
    assert again.wait(200) == 0, said(tmp_path)
    same_tables(whole, tmp_path / "s")
