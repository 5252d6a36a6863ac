"""Tiny models, and what tests skip for."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import checked  # noqa: F401  before the packages: it says how their calls are checked
import pytest
import torch
import xarray as xr
from filelock import FileLock
from hypothesis import settings
from playwright.sync_api import Page, sync_playwright

import interp
from analyses.plots.browser import browser
from analyses.report.arrays import read_arrays, write_arrays
from analyses.report.shelf import TWINS
from interp import ModelConfig, Transformer
from interp.errors import InterpError
from interp.files import write_whole
from interp.loading import packaged
from interp.tokenizer import Tokenizer

# In CI the same examples each time, so that a red run is about the change; elsewhere new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

if os.environ.get("PYTEST_XDIST_WORKER"):
    torch.set_num_threads(1)  # the workers share the cores; threads of several would wait for each other

_twins = tempfile.TemporaryDirectory(prefix="criticalpile-twins-")
os.environ[TWINS] = _twins.name  # not the user's cache, also where a command is run

pytest_plugins = ["tabs"]

NO_BROWSER = "needs a browser, but"

SHARED = Path(__file__).parents[2] / "shared"
TINY = ModelConfig(n_layers=3, d_model=16, n_heads=2, d_head=8, d_mlp=32, n_ctx=24, d_vocab=50, init_std=0.2)

PROMPTS = [
    "Once upon a time",
    "Mary and John went to",
    "The dogs near the",
    "Then she gave a",
    "He was",
    "They saw a <b>duck</b>",
]
"""As many as an interval needs."""


def tiny(
    seed: int = 0, dtype: torch.dtype = torch.float64, config: ModelConfig = TINY, tokenizer: Tokenizer | None = None
) -> Transformer:
    """A random model with weights large enough that every part matters."""
    model = Transformer(config, seed=seed, tokenizer=tokenizer).requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.normal_(0, 0.3, generator=generator)
    return model.to(dtype)


def random_tokens(rows: int = 2, length: int = 10, seed: int = 0, vocab: int = TINY.d_vocab) -> torch.Tensor:
    return torch.randint(0, vocab, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model() -> Transformer:
    return tiny()


@pytest.fixture
def tokens() -> torch.Tensor:
    return random_tokens()


@pytest.fixture(scope="session")
def smalltown() -> Transformer:
    return interp.load("smalltown")


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory, smalltown: Transformer) -> Path:
    """A folder with smalltown's tokenizer and a random model of little more than it: for what no weights decide."""
    size = {"n_layers": 3, "n_heads": 2, "d_head": 8, "d_model": 16, "d_mlp": 32, "init_std": 0.3}
    folder = tmp_path_factory.mktemp("checkpoint") / "small"
    interp.save_directory(
        tiny(config=replace(smalltown.config, **size), dtype=torch.float32, tokenizer=smalltown.tokenizer), folder
    )
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[], xr.Dataset]], xr.Dataset]:
    """What is measured under a name, by the first worker that asks for it; in inference mode, which changes nothing."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared

    def kept(name: str, measure: Callable[[], xr.Dataset]) -> xr.Dataset:
        path = shared / f"{name}.npz"
        with FileLock(shared / f"{name}.lock"):
            if not path.exists():
                with torch.inference_mode():
                    result = measure()
                write_whole(path, lambda temporary: write_arrays(result, temporary))
        return read_arrays(path)

    return kept


@pytest.fixture(scope="session")
def examples(once):
    """What measures a result of each kind that has a figure; what several are made of is measured once for all workers."""
    from gallery import Examples

    found = Examples(torch.float64)
    for name in ("edges", "estimate", "gain", "null", "influence", "texts", "inside", "driven", "outside"):
        setattr(found, name, cache(partial(once, f"of several, {name}", getattr(found, name))))
    return found


@pytest.fixture(scope="session")
def measured(examples, once) -> Callable[[str], xr.Dataset]:
    """A result of each kind that has a figure, measured once for all workers."""
    return cache(lambda kind: once(kind, examples.all()[kind]))


@pytest.fixture(scope="session")
def smollm2_file() -> Path:
    """The file of a pretrained model of 30 layers, where `interp get smollm2-135m` has got it."""
    path = packaged.find("smollm2-135m")
    if path is None:
        pytest.skip("smollm2-135m is not on this machine; get it with: interp get smollm2-135m")
    return path


@pytest.fixture(scope="session")
def smollm2(smollm2_file) -> Transformer:
    """The model of that file."""
    return interp.load("smollm2-135m")


@pytest.fixture(scope="session")
def gpt2_tokenizer_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2's real tokenizer under the names that checkpoints give its files."""
    source = SHARED / "data" / "gpt2-tokenizer"
    if not source.exists():
        pytest.skip("GPT-2's tokenizer files are not beside this checkout")
    directory = tmp_path_factory.mktemp("gpt2-tokenizer")
    shutil.copy(source / "encoder.json", directory / "vocab.json")
    shutil.copy(source / "vocab.bpe", directory / "merges.txt")
    return directory


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of this machine's Chrome or Chromium; for tests with the mark `browser`."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        page = launched.new_page()
        page.set_default_navigation_timeout(180_000)  # a page of every figure, on a machine that does other things too
        yield page
        launched.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that needs a browser skips where there is none, or fails where BROWSER_REQUIRED says that there must be one."""
    if item.get_closest_marker("browser") is None:
        return
    try:
        browser()
    except InterpError as error:
        refuse = pytest.fail if os.environ.get("BROWSER_REQUIRED") else pytest.skip
        refuse(f"{NO_BROWSER} {error}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was left out for want of a browser, and why."""
    skipped = [
        str(report.longrepr[2])
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    ]
    wanting = [reason for reason in skipped if NO_BROWSER in reason]
    if wanting:
        why = wanting[0].partition(NO_BROWSER)[2].strip()
        terminalreporter.section("without a browser")
        terminalreporter.write_line(
            f"{len(wanting)} tests that need a browser were skipped, and notebooks drew no pictures: {why}"
        )
