"""Models whose weights are set by hand do exactly what they say."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

import analyses
import interp
from interp.errors import CheckpointError
from interp.zoo.circuits import CIRCUITS


def load(name):
    return interp.load(f"circuit:{name}", dtype=torch.float64)


def patterns(model, tokens):
    _, cache = model.run_with_cache(tokens, "blocks.*.attn.hook_pattern")
    return [cache["pattern", layer][0] for layer in range(model.config.n_layers)]


def logits_at(predicted, strength=8.0):
    return strength * torch.nn.functional.one_hot(torch.tensor(predicted), 32).double()


TOKENS = [5, 3, 9, 5, 3, 7, 9, 9, 3]


def test_previous_token():
    model, tokens = load("previous-token"), torch.tensor([TOKENS])
    torch.testing.assert_close(patterns(model, tokens)[0][0][1:], torch.eye(9).double()[:-1])
    torch.testing.assert_close(model(tokens)[0], logits_at([5, *TOKENS[:-1]]))


def test_duplicate_token():
    model, tokens = load("duplicate-token"), torch.tensor([TOKENS])
    pattern = patterns(model, tokens)[0][0]
    expected = torch.zeros(9, 9, dtype=torch.float64)
    for i, token in enumerate(TOKENS):
        earlier = [j for j in range(i) if TOKENS[j] == token] or [i]
        expected[i, earlier] = 1 / len(earlier)
    torch.testing.assert_close(pattern, expected)
    torch.testing.assert_close(model(tokens)[0], logits_at(TOKENS))


def test_induction():
    model, tokens = load("induction"), torch.tensor([TOKENS])
    pattern = patterns(model, tokens)[1][0]
    predicted = torch.zeros(9, 32, dtype=torch.float64)
    for i, token in enumerate(TOKENS):
        after = [j for j in range(1, i) if TOKENS[j - 1] == token]
        after = [i] if TOKENS[max(i - 1, 0)] == token or not after else after
        expected = torch.zeros(9, dtype=torch.float64)
        expected[after] = 1 / len(after)
        torch.testing.assert_close(pattern[i], expected, msg=f"query {i}")
        for j in after:
            predicted[i, TOKENS[j]] += 8 / len(after)
    torch.testing.assert_close(model(tokens)[0], predicted)
    whole = torch.tensor([[1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]])
    assert model(whole)[0, 6:11].argmax(-1).tolist() == [2, 3, 4, 5, 6]


def test_copying():
    model, tokens = load("copying"), torch.tensor([TOKENS])
    torch.testing.assert_close(model(tokens)[0], logits_at(TOKENS, 4.0))


@pytest.mark.parametrize(
    ("without", "strength"),
    [([], 8), ([(0, 0)], 4), ([(0, 1)], 4), ([(0, 0), (0, 1)], 8), ([(1, 0)], 8), ([(0, 0), (0, 1), (1, 0)], 0)],
)
def test_backup(without, strength):
    model, tokens = load("backup"), torch.tensor([[0, 5, 3, 9, 5, 3, 7]])

    def take_out(heads):
        def hook(value, point):
            value[:, :, heads] = 0

        return hook

    by_layer = {layer: [h for at, h in without if at == layer] for layer in {at for at, _ in without}}
    hooks = {f"blocks.{layer}.attn.hook_z": take_out(heads) for layer, heads in by_layer.items()}
    with model.hooks(hooks) if hooks else nullcontext():
        logits = model(tokens)[0, 2:]
    torch.testing.assert_close(logits, logits_at([5, 3, 9, 5, 3], float(strength)))
    if not without:
        assert (patterns(model, tokens)[1][0][2:, 0] > 1 - 1e-12).all()


CLEAN, CORRUPT = torch.tensor([[1, 2, 3, 4, 1, 2, 3]]), torch.tensor([[1, 2, 3, 5, 1, 2, 3]])


def test_patching_finds_the_parts_of_the_induction_circuit():
    """What followed the 3 is at position 3 until head 1.0 moves it to the last."""
    model = load("induction")
    stream = analyses.activation_patching(model, CLEAN, CORRUPT, answer=4, wrong=5, site="resid_post")["effect"][0]
    expected = np.zeros((2, 7))
    expected[0, 3] = expected[1, 6] = 1
    np.testing.assert_allclose(stream, expected, atol=1e-9)
    heads = analyses.activation_patching(model, CLEAN, CORRUPT, answer=4, wrong=5, site="z")["effect"][0]
    np.testing.assert_allclose(heads, [[0], [1]], atol=1e-9)  # both runs' head 0.0 says the same where it matters


def test_attribution_tells_what_writes_from_what_is_needed():
    """Head 0.0 writes nothing into the answer, yet without it 1.0 does not find it."""
    result = analyses.direct_logit_attribution(load("induction"), CLEAN, answer=4, metric="logit").isel(prompt=0)
    np.testing.assert_allclose(result["head_effect"], [[0], [8]], atol=1e-9)
    np.testing.assert_allclose(result["total_effect"], [[8], [8]], atol=1e-9)
    copies = analyses.direct_logit_attribution(load("copying"), CLEAN, answer=3, metric="logit").isel(prompt=0)
    np.testing.assert_allclose(copies["head_effect"], [[8, -4]], atol=1e-9)


def test_in_single_precision_too_and_to_the_end_of_the_context():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 32, (2, 64), generator=generator)
    tokens[:, 0] = 0
    for name in CIRCUITS:
        torch.testing.assert_close(
            interp.load(f"circuit:{name}")(tokens).double(), load(name)(tokens), atol=1e-4, rtol=0
        )


def test_a_circuit_that_is_not_there():
    with pytest.raises(CheckpointError, match="no circuit 'inductoin'. Did you mean 'induction'"):
        interp.load("circuit:inductoin")
