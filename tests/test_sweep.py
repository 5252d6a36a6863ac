"""The sweep against its slow twin: one whole hooked run for each row."""

import random

import torch
from conftest import random_tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from test_options import build, configs

from interp import PAD, Transformer
from interp.interventions import Add, Apply, Intervention, Patch, Row, Scale, Set
from interp.readouts import Logits
from interp.sweep import sweep


def twin(model: Transformer, tokens: torch.Tensor, row: Row) -> torch.Tensor:
    """The logits at the last position of a whole run with hooks."""
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
        return model(prompt)[0, -1]
    with model.hooks([(change.name, hook_for(change)) for change in row.interventions]):
        return model(prompt)[0, -1]


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
            kinds = [Patch(value), Scale(0.5), Apply(reverse)]
            if not name.endswith("attn_scores"):
                kinds += [Set(0.25), Add(0.5)]
            changes.append(Intervention(name, rng.choice(kinds), positions, **inner))
        rows.append(Row(changes, prompt))
    return rows


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), options=configs)
def test_equals_whole_hooked_runs_for_any_architecture_and_site(seed, options):
    model, rng = build(**options), random.Random(seed)
    lengths = [rng.randint(1, 7) for _ in range(rng.randint(1, 3))]
    tokens = random_tokens(len(lengths), max(lengths), seed=seed)
    sources = []
    for row, length in enumerate(lengths):
        tokens[row, length:] = PAD
        other = random_tokens(1, length, seed=seed + row + 1)
        sources.append({name: value[0] for name, value in model.run_with_cache(other)[1].items()})
    check(model, tokens, random_rows(model, sources, rng), max_bytes=rng.choice([1, 50_000, 2**30]))
