"""Changes of what one reader of the stream reads, against a whole hooked run in which that reader's input is split off naively."""

import random
from dataclasses import replace

import pytest
import torch
from conftest import TINY, random_tokens, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_options import build, configs
from test_sweep import reverse, streams_of, unequal
from torch.utils.flop_counter import FlopCounterMode

from interp import PAD, ModelConfig, Transformer
from interp.errors import HookError
from interp.sweep import sweep
from interp.sweep.inputs import all_inputs
from interp.sweep.interventions import Add, Apply, Intervention, Patch, Row, Scale, Set
from interp.sweep.readouts import EachLayer, LogitDifference, Logits


def plain_norm(
    config: ModelConfig,
    weights: dict[str, torch.Tensor],
    name: str,
    x: torch.Tensor,
    scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """The norm from its definition, or at a given scale; x itself where the model has none before its readers."""
    if config.norm == "none" or config.norm_placement not in ("pre", "both"):
        return x
    x = x - x.mean(-1, keepdim=True) if config.norm == "layernorm" else x
    scale = (x.square().mean(-1, keepdim=True) + config.norm_eps).sqrt() if scale is None else scale
    return x / scale * weights[f"{name}.weight"] + weights.get(f"{name}.bias", 0.0)


def split_hooks(model: Transformer, layer: int, reader: str, change, head: int | None = None, scale=None) -> dict:
    """Hooks of a whole run in which one reader reads `change(stream)`, [position, d_model], and nobody else does; through its norm at a
    given scale [position, 1], or at its own."""
    config, weights, seen = model.config, model.state_dict(), {}
    block = f"blocks.{layer}"
    late = reader == "mlp"
    where = f"{block}.hook_resid_mid" if late and not config.parallel else f"{block}.hook_resid_pre"

    def keep(value, hook):
        name = f"{block}.{'ln2' if late else 'ln1'}"
        seen["read"] = plain_norm(config, weights, name, change(value[0].clone()), scale)

    def project(name, rows=slice(None)):
        bias = weights.get(f"{block}.{name}.bias")
        return seen["read"] @ weights[f"{block}.{name}.weight"][rows].T + (0 if bias is None else bias[rows])

    if late:
        gated = config.mlp == "gated"
        hooks = {where: keep, f"{block}.mlp.hook_pre": lambda v, h: project("mlp.gate" if gated else "mlp.input")[None]}
        return hooks | ({f"{block}.mlp.hook_pre_linear": lambda v, h: project("mlp.input")[None]} if gated else {})
    size, kv = config.d_head, config.kv_heads
    start = {"q": 0, "k": config.n_heads, "v": config.n_heads + kv}[reader] + head

    def put(value, hook):
        value[0, :, head] = project("attn.qkv", slice(start * size, (start + 1) * size))

    return {where: keep, f"{block}.attn.hook_{reader}": put}


def reader_of(name: str) -> tuple[int, str]:
    point = name.rpartition(".")[2]
    return int(name.split(".")[1]), "mlp" if point == "hook_mlp_in" else point[5]


def made(model: Transformer, name: str, changes: list[Intervention], head: int):
    """What the changes of one input make of the stream that one head reads; None where they leave that head alone."""
    _, reader = reader_of(name)
    every = range(heads_of(model, reader))

    def concerns(change):
        chosen = every if change.heads is None else change.heads
        return head in ([chosen] if isinstance(chosen, int) else chosen)

    def apply(x):
        for change in filter(concerns, changes):
            at, what = (slice(None) if change.positions is None else change.positions), change.change
            if isinstance(what, Patch):
                x[at] = (what.source if reader == "mlp" else what.source[:, head])[at]
            elif isinstance(what, Apply):
                x[at] = what.function(x[at])
            else:
                x[at] = {Add: x[at] + what.values, Scale: x[at] * what.values, Set: what.values + 0 * x[at]}[type(what)]
        return x

    return apply if any(map(concerns, changes)) else None


def heads_of(model: Transformer, reader: str) -> int:
    return {"q": model.config.n_heads, "mlp": 1}.get(reader, model.config.kv_heads)


def twin(model: Transformer, tokens: torch.Tensor, row: Row, read) -> torch.Tensor:
    """What is read of a whole run, every changed reader split off."""
    prompt = tokens[row.prompt]
    prompt = prompt[prompt != PAD][None]
    split, plain = [], []
    for name in dict.fromkeys(change.name for change in row.interventions):
        changes = [change for change in row.interventions if change.name == name]
        if name not in all_inputs(model):
            plain.append((name, lambda value, hook, added=changes[0].change.values: value + added))
            continue
        layer, reader = reader_of(name)
        for head in range(heads_of(model, reader)):
            if change := made(model, name, changes, head):
                split += split_hooks(model, layer, reader, change, head).items()
    below = [pair for pair in plain if "resid" in pair[0]]
    with model.hooks([*below, *split, *(pair for pair in plain if pair not in below)]):
        return read(model, prompt)


def input_rows(model: Transformer, lengths: list[int], rng: random.Random) -> list[Row]:
    """Rows that change one to three inputs, and now and then the stream below or beside them."""
    generator = torch.Generator().manual_seed(rng.randrange(10**6))
    rows = []
    for _ in range(rng.randint(1, 6)):
        prompt = rng.randrange(len(lengths))
        length, changes = lengths[prompt], []
        for name in rng.choices(list(all_inputs(model)), k=rng.choice([1, 1, 2, 3])):
            positions = rng.choice([None, rng.sample(range(length), rng.randint(1, length))])
            vector = torch.randn(model.config.d_model, dtype=torch.float64, generator=generator)
            kinds, inner, shape = [Add(0.3), Add(vector), Scale(1.3), Set(vector)], {}, (length, len(vector))
            if not name.endswith("mlp_in"):
                count = heads_of(model, reader_of(name)[1])
                inner = {"heads": rng.choice([None, rng.randrange(count), rng.sample(range(count), min(2, count))])}
                shape = (length, count, len(vector))
            if inner.get("heads") is None or isinstance(inner["heads"], int):
                kinds += [Patch(torch.randn(shape, dtype=torch.float64, generator=generator)), Apply(reverse)]
            changes.append(Intervention(name, rng.choice(kinds), positions, **inner))
        if rng.random() < 0.4:
            layer = rng.randrange(model.config.n_layers)
            hook = rng.choice(["hook_resid_pre", "hook_attn_out", "attn.hook_q", "attn.hook_z"])
            changes.insert(0, Intervention(f"blocks.{layer}.{hook}", Add(0.2)))
        rows.append(Row(changes, prompt, always=rng.random() < 0.1))
    return rows


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), options=configs)
def test_equals_whole_runs_with_split_inputs_for_any_architecture(seed, options):
    model, rng = build(**options), random.Random(seed)
    lengths = [rng.randint(1, 7) for _ in range(rng.randint(1, 3))]
    tokens, _ = unequal(model, lengths, seed, width=max(lengths))
    rows = input_rows(model, lengths, rng)
    bound = rng.choice([1, 50_000, 2**30])
    swept = sweep(model, tokens, rows, Logits(), max_bytes=bound)
    for row, value in zip(rows, swept.values, strict=True):
        expected = twin(model, tokens, row, lambda model, prompt: model(prompt)[0, -1])
        torch.testing.assert_close(value, expected, atol=1e-10, rtol=0)
    streams = sweep(model, tokens, rows, EachLayer(lambda stream, base: stream), max_bytes=bound)
    for row, value in zip(rows, streams.values, strict=True):
        expected = twin(model, tokens, row, streams_of)
        torch.testing.assert_close(value[:, : lengths[row.prompt]], expected, atol=1e-10, rtol=0)


def test_a_head_that_reads_nothing_of_what_was_added_is_the_base_run_bit_for_bit():
    model, tokens = tiny(dtype=torch.float32, config=replace(TINY, norm="none")), random_tokens(1, 8, seed=1)
    model.get_submodule("blocks.1.attn").W_K[1, 3] = 0
    added = torch.zeros(16)
    added[3] = 5.0
    rows = [Row([Intervention("blocks.1.hook_k_input", Add(added), heads=head)]) for head in (0, 1)]
    swept = sweep(model, tokens, rows, Logits())
    assert not torch.equal(swept.values[0], swept.base[0])  # the control moves
    assert torch.equal(swept.values[1], swept.base[0])


def test_one_heads_input_costs_less_than_the_whole_first_half():
    model, tokens = tiny(), random_tokens(1, 20, seed=1)
    readout = LogitDifference(torch.tensor([3]), torch.tensor([4]))

    def flops(changes):
        with FlopCounterMode(display=False) as counter:
            sweep(model, tokens, [Row([change]) for change in changes], readout)
        return counter.get_total_flops()

    alone = flops([Intervention("blocks.2.hook_q_input", Add(float(n)), heads=0) for n in range(1, 41)])
    whole = flops([Intervention("blocks.2.hook_resid_pre", Add(float(n))) for n in range(1, 41)])
    assert alone < 0.5 * whole


def test_an_input_and_the_norm_behind_it_cannot_be_changed_together():
    model, tokens = tiny(), random_tokens(1, 5)
    for name, norm in (("hook_q_input", "ln1.hook_out"), ("hook_mlp_in", "ln2.hook_scale")):
        row = Row([Intervention(f"blocks.1.{norm}", Scale(2.0)), Intervention(f"blocks.1.{name}", Add(1.0))])
        with pytest.raises(HookError, match=rf"row 1 changes blocks.1.{name} and also blocks.1.{norm}"):
            sweep(model, tokens, [Row(), row], Logits())


@pytest.mark.parametrize("name", ["blocks.3.hook_q_input", "blocks.0.hook_o_input", "hook_mlp_in"])
def test_an_input_that_the_model_does_not_have_is_named(name):
    with pytest.raises(HookError, match="there is no hook point"):
        sweep(tiny(), random_tokens(1, 5), [Row([Intervention(name, Add(1.0))])], Logits())
