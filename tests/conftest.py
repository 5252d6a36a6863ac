"""Tiny models, and what tests skip for."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from playwright.sync_api import Page, sync_playwright

import interp
from interp import ModelConfig, Transformer

# In CI the same examples each time, so that a red run is about the change; elsewhere new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

if os.environ.get("PYTEST_XDIST_WORKER"):
    torch.set_num_threads(1)  # the workers share the cores; threads of several would wait for each other

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


def tiny(seed: int = 0, dtype: torch.dtype = torch.float64, config: ModelConfig = TINY) -> Transformer:
    """A random model with weights large enough that every part matters."""
    model = Transformer(config, seed=seed).requires_grad_(False).eval()
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
def page(tmp_path: Path) -> Iterator[Page]:
    """A page of the system's Chromium. Without one, browser tests skip; in CI they fail."""
    chromium = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if chromium is None:
        reason = "no Chromium or Chrome was found"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()
