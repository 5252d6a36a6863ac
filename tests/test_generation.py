"""Decoding: with and without kept keys and values, alone and in a batch, under interventions."""

import pytest
import torch
from conftest import TINY, random_tokens, tiny
from hypothesis import given, settings
from test_options import build, configs

from interp import PAD
from interp.errors import TokenError
from interp.generation import Sampling, gumbel


def padded(*lengths):
    tokens = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        tokens[row, :length] = random_tokens(1, length, seed=row)[0]
    return tokens


@pytest.mark.parametrize("temperature", [0.0, 0.7, 2.0])
def test_equals_the_loop_of_whole_runs(temperature):
    model, tokens = tiny(), random_tokens(1, 4)
    found = model.generate(tokens, max_new_tokens=8, temperature=temperature, seed=5)
    generator = torch.Generator().manual_seed(5)
    expected = tokens
    for _ in range(8):
        logits = model(expected)[0, -1]
        noise = -torch.empty(50, dtype=torch.float64).exponential_(generator=generator).log()
        following = (logits if temperature == 0 else logits / temperature + noise).argmax()
        expected = torch.cat([expected, following[None, None]], dim=1)
    assert torch.equal(found, expected)


@settings(max_examples=25, deadline=None)
@given(options=configs.filter(lambda options: options["causal"]))
def test_cache_on_equals_cache_off_in_any_architecture(options):
    model, tokens = build(**options), padded(5, 2, 7)
    arguments = {"max_new_tokens": 6, "temperature": 0.9, "seed": 3, "stop": []}
    assert torch.equal(model.generate(tokens, **arguments), model.generate(tokens, use_cache=False, **arguments))


def test_rows_of_a_batch_equal_their_single_runs():
    model, tokens = tiny(), padded(5, 2, 7)
    together = model.generate(tokens, max_new_tokens=6, seed=[4, 9, 4])
    for row, (length, seed) in enumerate(zip((5, 2, 7), (4, 9, 4), strict=True)):
        alone = model.generate(tokens[row : row + 1, :length], max_new_tokens=6, seed=seed)
        assert torch.equal(together[row, : length + 6], alone[0])
        assert (together[row, length + 6 :] == PAD).all()
    counted = model.generate(tokens, max_new_tokens=6, seed=4)
    assert torch.equal(counted[1:2, :8], model.generate(tokens[1:2, :2], max_new_tokens=6, seed=5))


def test_padding_on_the_left_is_the_same_prompt():
    model, row = tiny(), random_tokens(1, 4)
    left = torch.cat([torch.full((1, 3), PAD), row], dim=1)
    assert torch.equal(model.generate(left, max_new_tokens=5), model.generate(row, max_new_tokens=5))


def test_stop_tokens_end_a_row():
    model, tokens = tiny(), padded(5, 3)
    free = model.generate(tokens, max_new_tokens=8, seed=1)
    stop = int(free[0, 7])  # the third new token of row 0
    ended = model.generate(tokens, max_new_tokens=8, seed=1, stop=[stop])
    for row, length in enumerate((5, 3)):
        new = free[row, length : length + 8].tolist()
        kept = new[: new.index(stop) + 1] if stop in new else new
        assert ended[row, length : length + len(kept)].tolist() == kept
        assert (ended[row, length + len(kept) :] == PAD).all()
    steps = list(model.stream(tokens[:1], max_new_tokens=8, seed=1, stop=[stop]))
    assert len(steps) <= 3


def test_streaming_gives_the_same_tokens_one_by_one(smalltown):
    prompt = "Once upon a time,"
    whole = smalltown.generate(prompt, max_new_tokens=12, temperature=0.7, seed=2)
    streamed = torch.stack(list(smalltown.stream(prompt, max_new_tokens=12, temperature=0.7, seed=2)), dim=1)
    assert torch.equal(whole[:, -streamed.shape[1] :], streamed)


def test_smalltown_continues_ioi(smalltown):
    tokens = smalltown.generate(
        "When Mary and John went to the store, John gave a drink to", max_new_tokens=1, temperature=0.0
    )
    assert smalltown.to_string(tokens)[0].endswith(" to Mary")


@pytest.mark.parametrize(
    "site",
    [
        "blocks.1.hook_resid_pre",
        "blocks.0.hook_mlp_out",
        "blocks.2.attn.hook_z",
        "hook_embed",
        "ln_final.hook_normalized",
    ],
)
@pytest.mark.parametrize("position", [4, 8])
def test_interventions_at_absolute_positions_do_the_same_with_and_without_cache(site, position):
    model, tokens = tiny(), padded(5, 3)
    generator = torch.Generator().manual_seed(0)
    push = 30 * torch.randn(
        model.hook_points[site].axes.count("head") * 2 or 1, 16, dtype=torch.float64, generator=generator
    )

    def edit(value, hook):
        vector = push[..., : value.shape[-1]] if value.ndim == 4 else push[0]
        return value + (hook.positions == position).reshape(hook.positions.shape + (1,) * (value.ndim - 2)) * vector

    results = []
    arguments = {"max_new_tokens": 8, "temperature": 0.2, "seed": 7, "stop": []}
    for use_cache in (True, False):
        with model.hooks({site: edit}):
            results.append(model.generate(tokens, use_cache=use_cache, **arguments))
    assert torch.equal(*results)
    assert not torch.equal(results[0], model.generate(tokens, **arguments))  # the edit does change the text


def test_hooks_see_absolute_positions_once_each():
    model, seen = tiny(), []
    with model.hooks({"blocks.0.hook_resid_pre": lambda value, hook: seen.append(hook.positions.tolist())}):
        model.generate(random_tokens(1, 3), max_new_tokens=3)
    assert seen == [[[0, 1, 2]], [[3]], [[4]]]


@pytest.mark.parametrize("use_cache", [True, False])
def test_activations_captured_while_generating_equal_a_whole_run(use_cache):
    model, tokens = tiny(), padded(5, 3)
    whole, cache = model.generate_with_cache(tokens, max_new_tokens=6, seed=1, use_cache=use_cache)
    assert torch.equal(whole, model.generate(tokens, max_new_tokens=6, seed=1))
    for row, length in enumerate((5, 3)):
        read = length + 5  # the last token was never read
        _, expected = model.run_with_cache(whole[row : row + 1, :read])
        assert list(cache) == list(expected)
        for name, value in expected.items():
            found = cache[name][row : row + 1]
            if "key" in model.hook_points[name].axes:
                found, value = (x.tril() if "pattern" in name else x for x in (found[..., :read, :read], value))
                later = torch.ones(read, read).triu(1).bool()
                found, value = found.masked_fill(later, 0), value.masked_fill(later, 0)
            else:
                assert found[:, read:].isnan().all()
                found = found[:, :read]
            torch.testing.assert_close(found, value, atol=1e-10, rtol=0)


def test_each_activation_is_computed_once():
    model, rows = tiny(), []
    handle = model.blocks[0].mlp.register_forward_hook(lambda m, i, o: rows.append(o.shape[1]))
    model.generate_with_cache(random_tokens(1, 4), ["blocks.0.hook_mlp_out"], max_new_tokens=5)
    handle.remove()
    assert rows == [4, 1, 1, 1, 1]


def test_draws_follow_the_distribution():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.float64).expand(4000, 4)
    draw = next(Sampling(temperature=0.5, seeds=range(4000)).draws())
    counts = torch.bincount(draw(logits), minlength=4) / 4000
    p = (logits[0] / 0.5).softmax(-1)
    assert ((counts - p).abs() < 4 * (p * (1 - p) / 4000).sqrt()).all()


def test_top_k_and_top_p_by_hand():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64).log()
    left = lambda **options: Sampling(**options).kept(logits)[0].isfinite().tolist()  # noqa: E731
    assert left(top_k=2) == [True, True, False, False]
    assert left(top_k=9) == [True] * 4
    assert left(top_p=0.5) == [True, False, False, False]
    assert left(top_p=0.51) == [True, True, False, False]
    assert left(top_p=0.96) == [True] * 4
    assert left(top_p=1e-9) == [True, False, False, False]
    assert left(top_k=3, top_p=0.9) == [True, True, True, False]  # 0.95 of the four is all of the three


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 21}, r"4 tokens leaves room for 20 more in unnamed's context of 24, but 21"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"temperature": -1.0}, "temperature must be 0"),
        ({"temperature": float("nan")}, "temperature must be 0"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 1.5}, "top_p"),
        ({"seed": [1, 2]}, "2 seeds for 1 rows"),
    ],
)
def test_requests_that_cannot_be(change, message):
    with pytest.raises(TokenError, match=message):
        tiny().generate(random_tokens(1, 4), **change)


def test_the_context_can_be_filled_to_the_end():
    assert tiny().generate(random_tokens(1, 4), max_new_tokens=20, stop=[]).shape == (1, TINY.n_ctx)


def test_noise_is_the_generators_own_also_in_inference_mode():
    """Drawn in threads, each row from its generator, whatever mode is on."""
    plain = [
        torch.empty(50, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(i)) for i in range(5)
    ]
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with mode():
            found = gumbel([torch.Generator().manual_seed(i) for i in range(5)], 50)
            torch.testing.assert_close(found, -torch.stack(plain).log(), rtol=0, atol=0)
