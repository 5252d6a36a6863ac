"""Path patching against two whole hooked runs, edge patching, and a hand-set circuit."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import TINY, random_tokens, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_edge_patching import written
from test_inputs import split_hooks
from test_options import build, configs

import analyses
import interp
from analyses.circuits.edges import destinations, sources
from interp import PAD
from interp.errors import ConfigError, InterpError, ResultError, TokenError
from interp.names import AXES


def held_run(model, tokens, sender, moved, through_mlps, freeze):
    """Streams of a whole run in which a sender writes differently, every head is held, and MLPs are computed anew or held."""
    base, layers = model.run_with_cache(tokens)[1], range(model.config.n_layers)
    keep = lambda value, hook: base[hook.name]  # noqa: E731
    names = [f"blocks.{layer}.attn.hook_z" for layer in layers]
    names += [] if through_mlps else [f"blocks.{layer}.hook_mlp_out" for layer in layers]
    names += [f"blocks.{layer}.{norm}.hook_scale" for layer in layers for norm in ("ln2", "ln2_post") if freeze]
    hooks = [(name, keep) for name in names if name in model.hook_points]
    point = "hook_resid_pre" if sender.layer is None else "hook_mlp_out" if sender.head is None else "hook_attn_out"
    hooks.append((f"blocks.{sender.layer or 0}.{point}", lambda value, hook: value + moved))
    with model.hooks(hooks):
        return model.run_with_cache(tokens)[1]


def twin(model, tokens, sender, moved, receivers, through_mlps, freeze, at, answer, wrong) -> float:
    """The logit difference of a second whole run, in which the receivers read what they would have in the first."""
    config, base = model.config, model.run_with_cache(tokens)[1]
    streams = held_run(model, tokens, sender, moved, through_mlps, freeze)
    hooks = []
    for receiver in receivers:
        layer, late = receiver.layer, receiver.part == "mlp"
        if receiver.part == "logits":
            last = f"blocks.{config.n_layers - 1}.hook_resid_post"
            hooks.append((last, lambda value, hook, read=streams[last]: read))
            if freeze and "ln_final.hook_scale" in model.hook_points:
                hooks.append(("ln_final.hook_scale", lambda value, hook: base[hook.name]))
            continue
        read = streams[f"blocks.{layer}.{'hook_resid_mid' if late and not config.parallel else 'hook_resid_pre'}"][0]
        scale = f"blocks.{layer}.{'ln2' if late else 'ln1'}.hook_scale"
        held = base[scale][0] if freeze and scale in model.hook_points else None
        hooks += split_hooks(model, layer, receiver.part, lambda x, read=read: read, receiver.head, held).items()
    with model.hooks(hooks):
        logits = model(tokens)[0, at]
    return float(logits[answer] - logits[wrong])


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10**6), options=configs, norm=st.sampled_from(["recompute", "freeze"]), through=st.booleans()
)
def test_equals_two_whole_hooked_runs_for_any_architecture(seed, options, norm, through):
    model, rng = build(**options), random.Random(seed)
    for number, weight in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(seed + number)
        weight.add_(0.05 * torch.randn(weight.shape, dtype=weight.dtype, generator=generator))
    pairs, length = rng.choice([1, 2]), rng.randint(1, 6)
    clean, corrupt = random_tokens(pairs, length, seed=seed), random_tokens(pairs, length, seed=seed + 1)
    asked = {"answer": [1, 2][:pairs], "wrong": [3, 4][:pairs], "smallest_gap": 0.0}
    if not model.config.is_sum:
        with pytest.raises(ConfigError, match="path_patching: a post-norm model"):
            analyses.path_patching(model, clean, corrupt, **asked)
        return
    into = rng.sample(destinations(model.config), rng.choice([1, 1, 2, 4, 8]))
    positions = rng.choice([None, rng.sample(range(-length, length), rng.randint(1, length))])
    how = {
        "direction": rng.choice(["noising", "denoising"]), "replacement": rng.choice(["resample", "zero", "mean", "mean_by_position"]),
        "position": rng.randrange(-length, length), "max_bytes": rng.choice([1, 100_000, 2**30, 2**30]),
        "receivers": [one.name for one in into], "through_mlps": through, "norm": norm, "positions": positions,
    }  # fmt: skip
    result = analyses.path_patching(model, clean, corrupt, **asked, **how)
    own, other = (clean, corrupt) if how["direction"] == "noising" else (corrupt, clean)
    senders = [one for one in sources(model.config) if any(one.written < receiver.read for receiver in into)]
    assert result.source.values.tolist() == [sender.name for sender in senders]
    for number in rng.sample(range(len(senders)), min(5, len(senders))):
        sender, pair = senders[number], rng.randrange(pairs)
        tokens = own[pair : pair + 1]
        if how["replacement"] == "resample":
            new = written(model, other[pair : pair + 1], sender)
        else:
            new = torch.stack([written(model, row[None], sender) for row in other]).mean(0)
            new = {"zero": torch.zeros_like(new), "mean": new.mean(0)}.get(how["replacement"], new)
        at = torch.zeros(length, 1, dtype=new.dtype)
        at[slice(None) if positions is None else positions] = 1
        moved = (new - written(model, tokens, sender)) * at
        answers = asked["answer"][pair], asked["wrong"][pair]
        before = model(tokens)[0, how["position"]]
        expected = twin(model, tokens, sender, moved, into, through, norm == "freeze", how["position"], *answers)
        expected -= float(before[answers[0]] - before[answers[1]])
        assert float(result.change[pair, number]) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    "options", [{}, {"parallel": True, "n_kv_heads": 2}, {"norm_placement": "both", "norm": "rmsnorm"}]
)
def test_the_direct_path_to_one_receiver_is_the_edge(options):
    model = build(**options)
    clean, corrupt = random_tokens(2, 6, seed=1), random_tokens(2, 6, seed=2)
    asked = {"answer": 1, "wrong": 3, "smallest_gap": 0.0}
    every = analyses.edge_patching(model, clean, corrupt, **asked)
    for receiver in ("a0.h0<v>", "a1.h1<k>", "m1", "a2.h3<q>", "logits"):
        paths = analyses.path_patching(model, clean, corrupt, **asked, receivers=receiver, through_mlps=False)
        edge = every.isel(edge=(every.destination == receiver).values)
        assert paths.source.values.tolist() == edge.source.values.tolist()
        for name in ("change", "effect", "change_mean", "effect_standard_error"):
            np.testing.assert_allclose(paths[name], edge[name], atol=1e-10)


def test_mlps_and_norms_between_are_seen_or_not():
    model, clean, corrupt = tiny(), random_tokens(1, 6, seed=1), random_tokens(1, 6, seed=2)
    asked = {"answer": 1, "wrong": 3, "smallest_gap": 0.0}
    found = {
        (through, norm): analyses.path_patching(model, clean, corrupt, **asked, through_mlps=through, norm=norm)
        .change[0]
        .values
        for through in (True, False)
        for norm in ("recompute", "freeze")
    }
    sides = list(found.values())
    assert all(np.abs(one - other).max() > 1e-3 for n, one in enumerate(sides) for other in sides[:n])
    for norm in ("recompute", "freeze"):  # after the last MLP there is no other
        assert found[True, norm][-1] == found[False, norm][-1] != 0


@pytest.mark.parametrize("through_mlps", [True, False])
@pytest.mark.parametrize("norm", ["recompute", "freeze"])
def test_a_planted_path_has_its_effect_and_all_others_none(norm, through_mlps):
    model = interp.load("circuit:induction")
    clean, corrupt = torch.tensor([[0, 9, 7, 3, 9]]), torch.tensor([[0, 8, 7, 3, 9]])
    asked = {"answer": 7, "wrong": 9, "norm": norm, "through_mlps": through_mlps}

    def changes(**options):
        result = analyses.path_patching(model, clean, corrupt, **asked, **options)
        return dict(zip(result.source.values.tolist(), result.change.values[0].tolist(), strict=True))

    assert changes(receivers="a1.h0<k>") == {"input": 0, "a0.h0": -16}
    assert changes(receivers="a1.h0<k>", positions=2) == {"input": 0, "a0.h0": -16}  # which follows the swapped token
    assert changes(receivers="a1.h0<k>", positions=[1, -1]) == {"input": 0, "a0.h0": 0}
    assert changes(receivers=["a1.h0<q>", "a1.h0<v>"]) == {"input": 0, "a0.h0": 0}
    assert changes() == {"input": 0, "a0.h0": 0, "a1.h0": -16}


@pytest.fixture
def pairs():
    return (
        tiny(),
        random_tokens(2, 6, seed=1),
        random_tokens(2, 6, seed=2),
        {"answer": 1, "wrong": 3, "smallest_gap": 0.0},
    )


def test_what_a_result_says(pairs, tmp_path):
    model, clean, corrupt, asked = pairs
    options = {"senders": ["a*", "m0"], "receivers": "a2.*<k>", "positions": np.array([0, -2]), "norm": "freeze"}
    result = analyses.path_patching(model, clean, corrupt, **asked, **options)
    assert set(result.dims) <= set(AXES)
    assert result.change.dims == result.effect.dims == ("prompt", "source")
    assert result.source.values.tolist() == ["a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1"]
    assert result.source_layer.values.tolist() == [0, 0, 0, 1, 1]
    assert result.source_head.values.tolist() == [0, 1, -1, 0, 1]
    gap = result.clean_baseline - result.corrupt_baseline
    np.testing.assert_allclose(result.effect, 1 + result.change / gap, atol=1e-12)
    np.testing.assert_allclose(result.change_mean, result.change.mean("prompt"), atol=1e-12)
    assert result.change_interval.dims == ("bound", "source")
    parameters = json.loads(result.attrs["parameters"])
    said = {
        "norm": "freeze",
        "through_mlps": True,
        "receivers": "a2.*<k>",
        "positions": [0, -2],
        "direction": "noising",
    }
    assert {name: parameters[name] for name in said} == said
    analyses.save(result, tmp_path / "paths.nc")
    xr.testing.assert_identical(analyses.load(tmp_path / "paths.nc"), result)


def test_denoising_is_noising_with_the_prompts_swapped(pairs):
    model, clean, corrupt, asked = pairs
    there = analyses.path_patching(model, clean, corrupt, **asked, receivers=["a1.*", "m2"])
    back = analyses.path_patching(model, corrupt, clean, **asked, receivers=["a1.*", "m2"], direction="denoising")
    np.testing.assert_allclose(there.change, back.change, atol=1e-12)
    np.testing.assert_allclose(there.effect + back.effect, 1, atol=1e-10)


def test_prompts_of_unequal_length_each_equal_their_own_run(pairs):
    model, clean, corrupt, asked = pairs
    clean[0, 4:] = corrupt[0, 4:] = PAD
    options = {"receivers": ["a1.*<k>", "a2.h0<v>", "m2"], "positions": [0, -1]}
    both = analyses.path_patching(model, clean, corrupt, **asked, **options)
    for number, length in ((0, 4), (1, 6)):
        one = slice(number, number + 1)
        alone = analyses.path_patching(model, clean[one, :length], corrupt[one, :length], **asked, **options)
        np.testing.assert_allclose(both.change[number], alone.change[0], atol=1e-12)
    assert np.isfinite(both.change_mean).all()
    with pytest.raises(TokenError, match="positions: position 4 is out of range: prompt 0 has 4 tokens"):
        analyses.path_patching(model, clean, corrupt, **asked, positions=4)


def test_what_has_not_moved_changes_nothing_bit_for_bit():
    model, clean = tiny(dtype=torch.float32), random_tokens(1, 6, seed=1)
    corrupt = clean.clone()
    corrupt[0, 4] = (clean[0, 4] + 1) % 50
    options = {"answer": 1, "wrong": 3, "smallest_gap": 0.0, "receivers": ["a1.*<v>", "m1", "a2.*"]}
    for norm in ("recompute", "freeze"):
        early = analyses.path_patching(model, clean, corrupt, **options, positions=range(4), norm=norm)
        assert (early.change == 0).all()  # a causal model says nothing else before the token that differs
        assert (analyses.path_patching(model, clean, corrupt, **options, positions=4, norm=norm).change != 0).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"senders": "a9.h0"}, "path_patching: there is no sender 'a9.h0'"),
        ({"receivers": ["m0", "a0.h0<o>"]}, "there is no receiver 'a0.h0<o>'"),
        ({"senders": "m2", "receivers": "a2.*"}, "no edge runs from the chosen senders to the chosen receivers"),
        ({"norm": "cached"}, "unknown norm 'cached'"),
        ({"positions": []}, "positions is empty"),
        ({"positions": [0, 6]}, "positions: position 6 is out of range: prompt 0 has 6 tokens"),
        ({"positions": 0.5}, "path_patching: positions must be a whole number"),
        ({"direction": "up"}, "unknown direction 'up'"),
        ({"replacement": "add"}, "unknown replacement 'add'"),
        ({"metric": "logits"}, "unknown metric 'logits'"),
    ],
)
def test_what_cannot_be_is_named(options, said, pairs):
    model, clean, corrupt, asked = pairs
    with pytest.raises(InterpError, match=said):
        analyses.path_patching(model, clean, corrupt, **asked, **options)


def test_pairs_that_do_not_fit(pairs):
    model, clean, corrupt, asked = pairs
    with pytest.raises(TokenError, match="the clean prompt has 6 tokens and the corrupt one 5"):
        analyses.path_patching(model, clean, corrupt[:, :5], **asked)
    with pytest.raises(ResultError, match="path_patching: pair 0: .* nearly the same"):
        analyses.path_patching(model, clean, clean, answer=1, wrong=3)


def test_the_figure_has_heads_in_a_grid_mlps_beside_and_the_input_in_words():
    model, clean, corrupt = tiny(), random_tokens(6, 5, seed=1), random_tokens(6, 5, seed=2)
    asked = {"answer": 1, "wrong": 3, "smallest_gap": 0.0}
    model.name = "<b>tiny</b>"
    result = analyses.path_patching(model, clean, corrupt, **asked, receivers=["a2.*<q>", "m1"], positions=[0, -1])
    change = dict(zip(result.source.values.tolist(), result.change_mean.values.tolist(), strict=True))
    figure = analyses.plot(result)
    heads, dots, mlps, mlp_dots = figure.data
    for (layer, head), value in np.ndenumerate(heads.z):
        assert value == change.get(f"a{layer}.h{head}", pytest.approx(np.nan, nan_ok=True))
    assert mlps.z[:2, 0].tolist() == [change["m0"], change["m1"]]
    assert np.isnan(mlps.z[2, 0])
    low, high = result.change_interval.values
    beyond = {str(name) for name in result.source.values[(low > 0) | (high < 0)]} - {"input"}
    assert {f"a{y}.h{x}" for x, y in zip(dots.x, dots.y, strict=True)} | {f"m{y}" for y in mlp_dots.y} == beyond
    title = figure.layout.title.text
    assert title.startswith("Paths to a2.*&lt;q&gt;, m1 · &lt;b&gt;tiny&lt;/b&gt;")
    assert f"input {change['input']:+.3f} logits; mean over 6 pairs" in title
    assert "positions 0, -1" in title
    scale = figure.layout.coloraxis
    assert scale.cmid == 0
    assert scale.cmax == -scale.cmin == max(abs(value) for name, value in change.items() if name != "input")
    one = analyses.plot(result, prompt=1)
    assert one.data[0].z[0, 0] == result.change.sel(source="a0.h0")[1]
    attention_only = analyses.path_patching(tiny(config=replace(TINY, mlp="none")), clean, corrupt, **asked)
    assert len(analyses.plot(attention_only).data) == 2
