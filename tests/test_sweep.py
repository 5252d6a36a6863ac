"""The sweep against its slow twin: one whole hooked run for each row."""

import random
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import TINY, random_tokens, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_options import build, configs
from torch.utils.flop_counter import FlopCounterMode

from interp import PAD, Transformer
from interp.errors import HookError, TokenError
from interp.hooks import attached_hooks
from interp.sweep import sweep
from interp.sweep.interventions import Add, Apply, Intervention, Patch, Row, Scale, Set
from interp.sweep.readouts import EachLayer, LogitDifference, Logits, OfLogits


def last_logits(model: Transformer, prompt: torch.Tensor) -> torch.Tensor:
    return model(prompt)[0, -1]


def streams_of(model: Transformer, prompt: torch.Tensor) -> torch.Tensor:
    """[layer, position, d_model]: what enters each block, and what leaves the last."""
    last = model.config.n_layers - 1
    names = [*(f"blocks.{layer}.hook_resid_pre" for layer in range(last + 1)), f"blocks.{last}.hook_resid_post"]
    with model.capture(names) as values:
        model(prompt)
    return torch.stack([values[name][0] for name in names])


def twin(model: Transformer, tokens: torch.Tensor, row: Row, read=last_logits) -> torch.Tensor:
    """What is read, by default the logits at the last position, of a whole run with hooks."""
    prompt = tokens[row.prompt]
    prompt = prompt[prompt != PAD][None]

    def hook_for(change: Intervention):
        def hook(value, point):
            one = value[0].transpose(0, 1) if "key" in point.axes else value[0]  # position first; a view
            positions = range(len(one)) if change.positions is None else change.positions
            positions = [positions] if isinstance(positions, int) else list(positions)
            inner = change.heads if change.neurons is None else change.neurons
            at = (positions,) if inner is None else (positions, inner)
            if isinstance(inner, list):
                at = (torch.tensor(positions)[:, None], inner)
            kind, what = type(change.change), change.change
            if kind is Patch:
                source = what.source.transpose(0, 1) if "key" in point.axes else what.source
                one[at] = source[at]
            elif kind is Set:
                one[at] = torch.as_tensor(what.values, dtype=one.dtype)
            elif kind is Add:
                one[at] = one[at] + what.values
            elif kind is Scale:
                one[at] = one[at] * what.values
            else:
                one[at] = what.function(one[at])

        return hook

    if not row.interventions:
        return read(model, prompt)
    with model.hooks([(change.name, hook_for(change)) for change in row.interventions]):
        return read(model, prompt)


def check(model, tokens, rows, atol=1e-10, **options):
    swept = sweep(model, tokens, rows, Logits(), **options)
    expected = torch.stack([twin(model, tokens, row) for row in rows])
    torch.testing.assert_close(swept.values, expected, atol=atol, rtol=0)
    return swept, expected


def reverse(value: torch.Tensor) -> torch.Tensor:
    """Mixes positions, so that it is wrong on a part of them."""
    return value.flip(0) * 0.5


def random_rows(model: Transformer, sources: list[dict[str, torch.Tensor]], rng: random.Random) -> list[Row]:
    """Rows of nought to three interventions anywhere; `sources` are the values of another run for each prompt."""
    rows = []
    for _ in range(rng.randint(1, 6)):
        prompt = rng.randrange(len(sources))
        length = len(sources[prompt]["hook_embed"])
        changes = []
        for name in rng.sample(list(model.hook_points), rng.randint(0, 3)):
            axes, value = model.hook_points[name].axes, sources[prompt][name]
            positions = rng.choice([None, rng.sample(range(length), rng.randint(1, length))])
            inner = {}
            if "head" in axes or "kv_head" in axes:
                size = value.shape[0] if "key" in axes else value.shape[1]
                inner["heads"] = rng.choice([None, rng.randrange(size), rng.sample(range(size), min(2, size))])
            elif axes[-1] == "d_mlp":
                inner["neurons"] = rng.choice([None, rng.randrange(32), [3, 5]])
            kinds = [Patch(value), Scale(1.3), Apply(reverse)]
            if not name.endswith("attn_scores"):
                kinds += [Set(0.1), Add(0.3)]
            changes.append(Intervention(name, rng.choice(kinds), positions, **inner))
        rows.append(Row(changes, prompt))
    return rows


def unequal(model: Transformer, lengths: list[int], seed: int, width: int):
    """Prompts of those lengths, padded; and the values of another run for each."""
    tokens, sources = random_tokens(len(lengths), width, seed=seed), []
    for row, length in enumerate(lengths):
        tokens[row, length:] = PAD
        other = random_tokens(1, length, seed=seed + row + 1)
        sources.append({name: value[0] for name, value in model.run_with_cache(other)[1].items()})
    return tokens, sources


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), options=configs)
def test_equals_whole_hooked_runs_for_any_architecture_and_site(seed, options):
    model, rng = build(**options), random.Random(seed)
    lengths = [rng.randint(1, 7) for _ in range(rng.randint(1, 3))]
    tokens, sources = unequal(model, lengths, seed, width=max(lengths))
    check(model, tokens, random_rows(model, sources, rng), max_bytes=rng.choice([1, 50_000, 2**30]))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), options=configs)
def test_the_stream_at_each_layer_equals_that_of_whole_hooked_runs(seed, options):
    model, rng = build(**options), random.Random(seed)
    lengths = [rng.randint(1, 7) for _ in range(rng.randint(1, 3))]
    tokens, sources = unequal(model, lengths, seed, width=8)
    rows = [
        Row([change for change in row.interventions if not change.name.startswith("ln_final")], row.prompt, always)
        for row in random_rows(model, sources, rng)
        for always in (False, True)
    ]
    readout = EachLayer(lambda stream, base: torch.stack([stream, stream - base], dim=1))
    swept = sweep(model, tokens, rows, readout, max_bytes=rng.choice([1, 50_000, 2**30]))
    assert swept.values.shape == (len(rows), 4, 8, 2, TINY.d_model)
    for row, value in zip(rows, swept.values, strict=True):
        length = lengths[row.prompt]
        base, changed = swept.base[row.prompt, :, :length, 0], twin(model, tokens, row, streams_of)
        torch.testing.assert_close(base, streams_of(model, tokens[row.prompt, None, :length]), atol=1e-10, rtol=0)
        torch.testing.assert_close(value[:, :length, 0], changed, atol=1e-10, rtol=0)
        torch.testing.assert_close(value[:, :length, 1], changed - base, atol=1e-10, rtol=0)
        assert bool(value[:, length:].isnan().all())


def test_what_cannot_have_changed_is_the_base_run_bit_for_bit_at_each_layer():
    model, tokens = tiny(dtype=torch.float32), random_tokens(2, 8, seed=1)
    change = Intervention("blocks.1.attn.hook_z", Add(0.5), positions=4)
    idle = Intervention("blocks.1.hook_resid_pre", Add(0.0), positions=4)
    rows = [Row([change], 1), Row([idle], 1), Row([idle], 1, always=True), Row((), 1, always=True)]
    swept = sweep(model, tokens, rows, EachLayer(lambda stream, base: stream - base))
    delta, skipped, computed, empty = swept.values
    assert not swept.base.any()
    assert not delta[:2].any()  # layers up to the one changed
    assert not delta[:, :4].any()  # and positions before it
    assert delta[2:, 4:].all(2).any(1).all()  # the control moves
    assert not skipped.any()
    assert not empty.any()  # there is nothing to compute it from
    assert not computed[:, :4].any()
    assert float(computed.abs().max()) < 1e-5


def test_a_change_above_every_stream_that_is_read_is_an_error():
    row = Row([Intervention("ln_final.hook_normalized", Scale(2.0))])
    with pytest.raises(HookError, match="above every stream that is read"):
        sweep(tiny(), random_tokens(1, 5), [row], EachLayer(lambda stream, base: stream))


def test_in_single_precision_too():
    model, rng = tiny(dtype=torch.float32), random.Random(5)
    tokens = random_tokens(2, 8, seed=1)
    sources = [
        {name: value[0] for name, value in model.run_with_cache(random_tokens(1, 8, seed=seed))[1].items()}
        for seed in (2, 3)
    ]
    for _ in range(10):
        check(model, tokens, random_rows(model, sources, rng), atol=1e-5)


def test_a_row_that_changes_nothing_is_the_base_run_bit_for_bit():
    model, tokens = tiny(dtype=torch.float32), random_tokens(2, 8, seed=1)
    own = model.run_with_cache(tokens, "blocks.1.hook_resid_pre")[1]["blocks.1.hook_resid_pre"][1]
    other = model.run_with_cache(random_tokens(1, 8, seed=4))[1]["blocks.0.hook_mlp_out"][0]
    idle = [
        Row(),
        Row([Intervention("blocks.1.hook_resid_pre", Patch(own))], 1),
        Row([Intervention("blocks.2.attn.hook_pattern", Scale(1.0), heads=0)], 1),
        Row([Intervention("blocks.0.mlp.hook_post", Add(0.0), positions=[3])], 1),
        Row([Intervention("hook_embed", Apply(lambda value: value))], 1),
    ]
    busy = Row([Intervention("blocks.0.hook_mlp_out", Patch(other))], 1)
    swept = sweep(model, tokens, [*idle, busy], Logits())
    for row, value in zip(idle, swept.values, strict=False):
        assert torch.equal(value, swept.base[row.prompt])
    assert not torch.equal(swept.values[-1], swept.base[1])  # the control moves
    torch.testing.assert_close(swept.base, model(tokens)[:, -1], atol=1e-6, rtol=0)


def test_positions_before_the_first_change_and_layers_below_it_cost_nothing():
    model, tokens = tiny(), random_tokens(1, 20, seed=1)

    def flops(rows):
        with FlopCounterMode(display=False) as counter:
            sweep(model, tokens, rows, LogitDifference(torch.tensor([3]), torch.tensor([4])))
        return counter.get_total_flops()

    def rows(layer, position):
        return [Row([Intervention(f"blocks.{layer}.hook_resid_pre", Add(float(n)), position)]) for n in range(1, 41)]

    base = flops([Row()])
    with FlopCounterMode(display=False) as counter:
        model(tokens)
    whole = counter.get_total_flops()
    assert flops(rows(2, 19)) - base < 40 * whole / 50
    assert flops(rows(0, 0)) - base > 40 * whole * 0.5
    assert flops(rows(0, 19)) - base < 40 * whole / 10


@pytest.mark.parametrize("stream", [0, 1])
def test_from_a_given_stream(stream):
    model, tokens = tiny(), random_tokens(2, 6, seed=1)
    residual = model.embed(tokens) + stream * torch.randn(2, 6, 16, dtype=torch.float64)
    change = Intervention("blocks.1.attn.hook_z", Set(0.5), [2, 4], heads=1)
    swept = sweep(model, tokens, [Row([change], 1), Row([], 0)], Logits(), residual=residual)

    def put(value, hook):
        value[:, [2, 4], 1] = 0.5

    torch.testing.assert_close(swept.base, model.unembed(model.run_blocks(residual))[:, -1], atol=1e-10, rtol=0)
    with model.hooks({"blocks.1.attn.hook_z": put}):
        expected = model.unembed(model.run_blocks(residual))[1, -1]
    torch.testing.assert_close(swept.values[0], expected, atol=1e-10, rtol=0)
    with pytest.raises(HookError, match="hook_embed cannot be changed where the stream"):
        sweep(model, tokens, [Row([Intervention("hook_embed", Set(0.0))])], Logits(), residual=residual)


def test_patching_a_whole_stream_gives_the_other_run():
    model, here, there = tiny(), random_tokens(1, 7, seed=1), random_tokens(1, 7, seed=2)
    logits, cache = model.run_with_cache(there)
    for name in (
        "hook_embed",
        *(f"blocks.{layer}.hook_resid_{at}" for layer in range(3) for at in ("pre", "mid", "post")),
    ):
        change = [Intervention(name, Patch(cache[name][0]))]
        torch.testing.assert_close(
            sweep(model, here, [Row(change)], Logits()).values[0], logits[0, -1], atol=1e-12, rtol=0
        )


def test_readouts():
    config = replace(TINY, tied=False, unembed_bias=True)
    model, tokens = tiny(config=config), random_tokens(2, 5, seed=1)
    model.b_U.copy_(torch.randn(50, dtype=torch.float64))
    tokens[1, 3:] = PAD
    rows = [Row([Intervention("blocks.1.hook_mlp_out", Scale(2.0))], prompt) for prompt in (1, 0, 1)]
    whole = sweep(model, tokens, rows, Logits()).values
    columns = torch.tensor([[1, 2], [3, 4]])
    some = sweep(model, tokens, rows, Logits(columns)).values
    torch.testing.assert_close(some, torch.stack([whole[0, [3, 4]], whole[1, [1, 2]], whole[2, [3, 4]]]))
    difference = sweep(model, tokens, rows, LogitDifference(columns[:, 0], columns[:, 1])).values
    torch.testing.assert_close(difference, some[:, 0] - some[:, 1])
    found = sweep(model, tokens, rows, OfLogits(lambda logits, prompts: logits[:, 0] + 100 * prompts)).values
    torch.testing.assert_close(found, whole[:, 0] + torch.tensor([100.0, 0.0, 100.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Intervention("blocks.1.hook_resid_pe", Set(0.0)), "no hook point.*Did you mean 'blocks.1.hook_resid_pre'"),
        (Intervention("blocks.3.hook_resid_pre", Set(0.0)), "no hook point"),
        (Intervention("hook_embed", Set(0.0), 5), "position 5 at hook_embed: the prompt has 5 positions, 0 to 4"),
        (Intervention("hook_embed", Set(0.0), [1, -4]), "name one position twice"),
        (Intervention("hook_embed", Set(0.0), heads=0), "heads cannot be chosen there"),
        (Intervention("blocks.0.attn.hook_z", Set(0.0), heads=2), "heads 2 at blocks.0.attn.hook_z is out of range: 0 to 1"),
        (Intervention("blocks.0.attn.hook_z", Set(0.0), neurons=1), "neurons cannot be chosen there"),
        (Intervention("blocks.0.mlp.hook_post", Set(0.0), neurons=[32]), "out of range: 0 to 31"),
        (Intervention("hook_embed", Add(torch.zeros(15))), r"shape \(15,\) at hook_embed do not broadcast to the selected \(5, 16\)"),
        (Intervention("hook_embed", Patch(torch.zeros(4, 16))), r"shape \(4, 16\); expected \(5, 16\)"),
        (Intervention("hook_embed", Apply(lambda value: value[0])), r"returned \(16,\).*expected \(5, 16\)"),
        (Intervention("hook_embed", Apply(lambda value: None)), "returned NoneType"),
    ],
)  # fmt: skip
def test_a_change_that_cannot_be_made(change, message):
    model = tiny()
    with pytest.raises(HookError, match=message):
        sweep(model, random_tokens(1, 5), [Row([change])], Logits())
    assert not attached_hooks(model)


def test_requests_that_cannot_be():
    model, tokens = tiny(), random_tokens(1, 5)
    with pytest.raises(HookError, match="no rows"):
        sweep(model, tokens, [], Logits())
    with pytest.raises(HookError, match="row 0 asks for prompt 1; there are 1"):
        sweep(model, tokens, [Row([], 1)], Logits())
    with pytest.raises(TokenError, match="out of range"):
        sweep(model, tokens + 50, [Row()], Logits())
    with model.hooks({"hook_embed": lambda value, hook: value}):
        with pytest.raises(HookError, match="hooks attached"):
            sweep(model, tokens, [Row()], Logits())
        model(tokens)


def test_ctrl_c_leaves_the_model_as_it_was(capfd):
    model, tokens = tiny(), random_tokens(1, 5)
    before = model(tokens)

    def interrupt(value):
        raise KeyboardInterrupt

    rows = [
        Row([Intervention("blocks.0.hook_resid_pre", Add(1.0))]),
        Row([Intervention("blocks.1.hook_resid_mid", Apply(interrupt))]),
    ]
    with pytest.raises(KeyboardInterrupt):
        sweep(model, tokens, rows, Logits(), progress="patching")
    assert not attached_hooks(model)
    assert torch.equal(model(tokens), before)
    assert "patching" in capfd.readouterr().err


PEAK = """
import torch
from pathlib import Path
from interp import Add, Intervention, ModelConfig, Row, Transformer, sweep
from interp.sweep.readouts import Logits

def high_water():
    return next(int(x.split()[1]) for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")) / 1024

torch.set_num_threads(1)
model = Transformer(ModelConfig(n_layers=4, d_model=256, n_heads=8, d_head=32, d_mlp=1024, n_ctx=128, d_vocab=64))
tokens = torch.arange(96)[None] % 64
rows = [Row([Intervention(f"blocks.{layer}.{point}", Add(1.0), position)])
        for layer in range(4) for position in range(0, 96, 4) for point in ("hook_resid_pre", "hook_mlp_out", "attn.hook_pattern")]
sweep(model, tokens, rows[-8:], Logits(), max_bytes=2**20)
before = high_water()
sweep(model, tokens, rows, Logits(), max_bytes={bound})
print(high_water() - before)
"""


@pytest.mark.parametrize("megabytes", [24, 96])
def test_peak_memory_stays_within_the_bound(megabytes):
    code = PEAK.replace("{bound}", str(megabytes * 2**20))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) <= megabytes
