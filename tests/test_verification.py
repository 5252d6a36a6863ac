"""Figures of a model against a reference: they must fail on other weights and pass on the model's own."""

import json
from itertools import pairwise

import numpy as np
import pytest
from typer.testing import CliRunner

import interp
from analyses.attribution import direct_logit_attribution
from analyses.cascade import random_twin
from analyses.cli.app import app
from analyses.verification import PUBLISHED, Check, read_reference, reference_of, verify, write_reference
from analyses.verification.measures import diagonals, of_heads
from interp import ModelConfig, Transformer
from interp.errors import InterpError
from interp.processing import fold_value_biases
from interp.zoo import task
from interp.zoo.circuits import circuit


@pytest.fixture(scope="module")
def prompts():
    return [
        row for p in task("ioi").sample(2) for row in ((p.clean, p.answer, p.wrong), (p.corrupt, p.wrong, p.answer))
    ]


@pytest.fixture(scope="module")
def reference(smalltown, prompts):
    return reference_of(smalltown, prompts)


def test_a_model_agrees_with_its_own_reference(smalltown, reference):
    checks = verify(smalltown, reference)
    assert len(checks) == 4 + 5 * 8 + 2
    assert all(check.passed for check in checks)


def test_other_weights_do_not(smalltown, reference):
    assert sum(check.passed for check in verify(random_twin(smalltown), reference)) < 5
    changed = interp.load("smalltown")
    changed.blocks[3].attn.qkv.weight.mul_(1.05)
    assert not all(check.passed for check in verify(changed, reference))


def test_a_figure_that_is_no_number_fails():
    assert Check("", 1.0, 1.0005, 1e-3).passed
    assert not Check("", 1.0, 1.002, 1e-3).passed
    assert not Check("", 1.0, float("nan"), 1e-3).passed


def test_heads_are_measured_as_the_published_figures_were(smalltown, prompts):
    """Attribution without value biases, and patching normalised after the mean: each by hand, with hooks."""
    random_tokens = {"sequences": 1, "length": 8, "lowest": 0, "highest": 99}
    found = of_heads(smalltown, prompts, random_tokens, bos=True)
    texts, answers, wrongs = (list(column) for column in zip(*prompts, strict=True))
    with_bias = direct_logit_attribution(smalltown, texts, answer=answers, wrong=wrongs)["head_effect"].mean("prompt")
    without = direct_logit_attribution(fold_value_biases(smalltown), texts, answer=answers, wrong=wrongs)[
        "head_effect"
    ].mean("prompt")
    np.testing.assert_allclose(found["direct_attribution"], without, atol=1e-6)
    assert np.abs(without - with_bias).max() > 1e-4

    ids = [smalltown.to_tokens(text) for text in texts]
    right, other = ([smalltown.to_single_token(token) for token in column] for column in (answers, wrongs))

    def gaps(runs):
        return np.mean([float(run[0, -1, right[n]] - run[0, -1, other[n]]) for n, run in enumerate(runs)])

    clean, corrupt = gaps([smalltown(row) for row in ids]), gaps([smalltown(ids[n ^ 1]) for n in range(len(ids))])
    runs = []
    for n, row in enumerate(ids):
        name = "blocks.4.attn.hook_z"
        with smalltown.capture(name) as values:
            smalltown(row)

        def put(value, hook, z=values[name]):
            value[:, :, 1] = z[:, :, 1]
            return value

        with smalltown.hooks({name: put}):
            runs.append(smalltown(ids[n ^ 1]))
    assert found["patching"][4, 1] == pytest.approx((gaps(runs) - corrupt) / (clean - corrupt), abs=1e-4)


def test_diagonals_of_a_circuit_that_is_known():
    model = circuit("induction")
    length = min(12, model.config.n_ctx // 2)
    found = diagonals(model, {"sequences": 2, "length": length, "lowest": 0, "highest": model.config.d_vocab - 1})
    assert found["previous_token"][0].max() > 0.9
    assert found["induction"][1].max() > 0.5


def test_published_figures_come_with_the_package():
    assert PUBLISHED == ("gpt2",)
    published = read_reference("gpt2")
    assert "TransformerLens" in published["source"]
    assert len(published["ioi"]["prompts"]) == len(published["ioi"]["logit_difference"]) == 8
    assert np.mean(published["ioi"]["logit_difference"]) == pytest.approx(3.5518715, abs=1e-4)
    for (_, answer, wrong), (_, other, right) in list(pairwise(published["ioi"]["prompts"]))[::2]:
        assert (answer, wrong) == (right, other)


def test_random_gpt2_fails(gpt2_tokenizer_directory):
    """The real tokenizer and heads, on random weights: every prompt and head of the reference is there, and nearly nothing agrees."""
    config = ModelConfig(n_layers=12, d_model=48, n_heads=12, d_head=4, d_mlp=96, n_ctx=256, d_vocab=50257)
    tokenizer = interp.Tokenizer.from_directory(gpt2_tokenizer_directory)
    model = Transformer(config, tokenizer=tokenizer, seed=0).requires_grad_(False).eval()
    assert model.tokenizer.bos is None  # it is not prepended unasked, but was in the published figures
    checks = verify(model, read_reference("gpt2"))
    prompt, answer, wrong = read_reference("gpt2")["ioi"]["prompts"][0]
    last = model(model.to_tokens("<|endoftext|>" + prompt))[0, -1]
    gap = float(last[model.to_single_token(answer)] - last[model.to_single_token(wrong)])
    assert checks[0].found == pytest.approx(gap, abs=1e-4)
    assert len(checks) == 8 + 8 + 8 + 5 + 1 + 2 + 2
    assert not any(
        check.passed for check in checks if check.name.startswith(("logit", "induction", "rank", "probability"))
    )


def test_bad_requests(smalltown, reference, tmp_path):
    with pytest.raises(InterpError, match=r"names head 9\.9; smalltown has 6 layers of 4 heads"):
        verify(smalltown, read_reference("gpt2"))
    with pytest.raises(InterpError, match="no reference 'gtp2'. Did you mean 'gpt2'"):
        read_reference("gtp2")
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(InterpError, match="is not a reference"):
        read_reference(path)
    path.write_text("{}")
    with pytest.raises(InterpError, match="lacks bos, ioi"):
        read_reference(path)
    with pytest.raises(InterpError, match="exists"):
        write_reference(reference, path)
    write_reference(reference, path, overwrite=True)
    assert read_reference(path) == json.loads(json.dumps(reference))
    too_long = reference | {"random_tokens": {**reference["random_tokens"], "length": 10_000}}
    with pytest.raises(InterpError, match="scores attention on 20000 tokens"):
        verify(smalltown, too_long)


def test_command(smalltown, reference, tmp_path):
    runner, path = CliRunner(), tmp_path / "reference.json"
    assert runner.invoke(app, ["verify", "smalltown", "--write", str(path)]).exit_code == 0
    good = runner.invoke(app, ["verify", "smalltown", "--reference", str(path)])
    assert good.exit_code == 0, good.output
    assert "50 of 50 figures agree" in good.output
    changed = read_reference(path)
    changed["next_token"]["probability"] += 0.1
    write_reference(changed, path, overwrite=True)
    bad = runner.invoke(app, ["verify", "smalltown", "--reference", str(path)])
    assert bad.exit_code == 1
    assert "49 of 50 figures agree" in bad.output
    assert "FAIL" in bad.output
