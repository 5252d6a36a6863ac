"""Models smaller than what is asked for by default: everything that lists the most of something lists as many as there are."""

import pytest
from conftest import random_tokens, tiny
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

import analyses
from analyses import cascade
from analyses.attention import singular_tokens
from analyses.plots import plot_trajectories
from analyses.report import collect, render, summary
from analyses.report.lens import lens_figures
from interp import ModelConfig, Tokenizer, Transformer
from interp.errors import InterpError, TokenError

WORDS = {"a": 0, "b": 1, "c": 2}


@pytest.fixture(scope="module")
def small() -> Transformer:
    """Three tokens, a stream of four, heads of two."""
    backend = Backend(models.WordLevel(WORDS, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    config = ModelConfig(n_layers=2, d_model=4, n_heads=2, d_head=2, d_mlp=3, n_ctx=8, d_vocab=3, init_std=0.5)
    return Transformer(config, tokenizer=Tokenizer(backend), name="small").requires_grad_(False)


def test_a_whole_report(small):
    results = collect(small, "a b c b", corrupt="a c c b", answer="a", wrong="c")
    assert results["trajectory"].sizes["top"] == 3
    assert results["lens"].sizes["top"] == 3
    assert results["embeddings"].sizes["top"] == 2
    assert len(summary(results)) >= 5
    assert "small" in render(results)


def test_every_default_fits(small):
    text = "a b c b"
    lens = analyses.logit_lens(small, text, candidates=["a"])
    assert lens.sizes["top"] == 3
    assert analyses.component_lens(small, text).sizes["top"] == 3
    plot_trajectories(lens)
    assert len(lens_figures(small, lens, [text], second=None, color="probability", parts=True)) == 3
    embedded = analyses.embedding_structure(small, ["a", "b"])
    assert (embedded.sizes["top"], embedded.sizes["axis"]) == (2, 4)
    analyses.plot(embedded)
    found = singular_tokens(small, 1, 0)
    assert (found.sizes["pair"], found.sizes["top"]) == (2, 3)
    assert cascade.jacobian_spectrum(small, text).sizes["singular"] == 3
    assert cascade.lyapunov(small, text).sizes["mode"] == 3
    assert cascade.lyapunov(small, ["a b", "a b c"], position=None).sizes["mode"] == 6  # two tokens, neither set apart
    assert analyses.direct_logit_attribution(small, text, answer="a").sizes["top"] == 6
    answers = {"answer": "a", "wrong": "c", "smallest_gap": 0.0}
    assert analyses.attribution_patching(small, text, "a c c b", **answers)["effect"].notnull().sum() == 4
    assert small.generate(text, max_new_tokens=2, top_k=50).shape[1] == 6
    assert analyses.head_table(small, length=2, count=2)["copying"].notnull().all()


def test_what_is_asked_for_must_be_there(small):
    for call in (
        lambda: analyses.logit_lens(small, "a b", top_k=4),
        lambda: analyses.component_lens(small, "a b", top_k=4),
        lambda: analyses.embedding_structure(small, ["a"], top_k=3),
    ):
        with pytest.raises(TokenError, match="top_k must be"):
            call()
    with pytest.raises(InterpError, match="vectors must be 1 to 2 and top_k 1 to 3"):
        singular_tokens(small, 0, 0, vectors=3)
    with pytest.raises(InterpError, match="k must be 1 to 3"):
        cascade.jacobian_spectrum(small, "a b", k=4)
    with pytest.raises(InterpError, match="10 controls of 3 heads from the 1 others cannot be drawn; use controls=0"):
        analyses.ablate_heads(small, "a b", answer="a", wrong="b", heads=[(0, 0), (0, 1), (1, 0)])


def test_defaults_of_larger_models_stay():
    model, tokens = tiny(), random_tokens(1, 4)
    assert analyses.logit_lens(model, tokens).sizes["top"] == 5
    assert analyses.component_lens(model, tokens).sizes["top"] == 5
    assert analyses.embedding_structure(model, [1]).sizes["top"] == 10
    assert singular_tokens(model, 0, 0).sizes["top"] == 8
    assert cascade.jacobian_spectrum(model, tokens).sizes["singular"] == 15
    assert cascade.lyapunov(model, tokens).sizes["mode"] == 15
