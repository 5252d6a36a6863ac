"""Every edge's exact effect, against whole hooked runs with a split input, hand-set circuits, and figures of a peer's code."""

import json
import random
import sys
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import SHARED, random_tokens, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.progress import Progress
from test_inputs import split_hooks
from test_options import build, configs

import analyses
import interp
from analyses.circuits.edges import Destination, destinations, edges, sources
from analyses.circuits.patching import _in_order, _parts
from interp import PAD, ModelConfig
from interp.errors import ConfigError, HookError, InterpError, ResultError, TokenError
from interp.names import AXES
from interp.sweep import sweep
from interp.sweep.interventions import Add, Intervention, Patch, Row
from interp.sweep.readouts import Logits

REFERENCE = SHARED / "data" / "eap-ig"
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="the peer's figures are not here")

SMALL = {"d_model": 8, "d_head": 4, "d_mlp": 8, "n_ctx": 8, "d_vocab": 10}


@pytest.mark.parametrize(
    ("shape", "out_of", "into", "count"),
    [
        ({"n_layers": 12, "n_heads": 12}, 157, 445, 32_491),
        ({"n_layers": 6, "n_heads": 4}, 31, 79, 1_108),
        ({"n_layers": 30, "n_heads": 9, "n_kv_heads": 3}, 301, 481, 70_651),
    ],
)
def test_counts_of_known_models(shape, out_of, into, count):
    config = ModelConfig(**SMALL, **shape)
    assert len(sources(config)) == out_of
    assert len(destinations(config)) == into
    found = edges(config)
    assert len({edge.name for edge in found}) == len(found) == count
    if shape["n_layers"] == 12:
        kinds = [edge.destination.part for edge in found]
        assert [sum(kinds.count(part) for part in "qkv"), kinds.count("mlp"), kinds.count("logits")] == [
            31_320,
            1_014,
            157,
        ]


def test_names_order_and_who_reads_whom():
    config = ModelConfig(**SMALL, n_layers=2, n_heads=2, n_kv_heads=1)
    found = [edge.name for edge in edges(config)]
    first = ["a0.h0<q>", "a0.h0<k>", "a0.h0<v>", "a0.h1<q>", "m0", "a1.h0<q>"]
    assert found[:6] == [f"input->{one}" for one in first]
    assert "a0.h1->m0" in found
    assert "m0->a1.h0<k>" in found
    assert "m0->a1.h1<k>" not in found  # the two heads share it
    assert "a1.h0->a1.h1<q>" not in found
    assert found[-1] == "m1->logits"
    side = [edge.name for edge in edges(ModelConfig(**SMALL, n_layers=2, n_heads=2, parallel=True))]
    assert "a0.h1->m0" not in side
    assert "a0.h1->m1" in side
    assert "a0.h1->logits" in side
    only = [edge.name for edge in edges(ModelConfig(**SMALL, n_layers=1, n_heads=1, mlp="none"))]
    assert only == ["input->a0.h0<q>", "input->a0.h0<k>", "input->a0.h0<v>", "input->logits", "a0.h0->logits"]


@needs_reference
def test_names_and_order_are_those_of_the_peer():
    reference = json.loads((REFERENCE / "reference.json").read_text())
    config = ModelConfig(**SMALL, n_layers=6, n_heads=4)
    assert sorted(edge.name for edge in edges(config)) == sorted(reference["edges"])


def written(model, tokens, source) -> torch.Tensor:
    """What a source writes in a whole run: [position, d_model]."""
    return of_cache(model, model.run_with_cache(tokens)[1], source)


def of_cache(model, cache, source) -> torch.Tensor:
    if source.layer is None:
        return cache["blocks.0.hook_resid_pre"][0]
    if source.head is None:
        return cache[f"blocks.{source.layer}.hook_mlp_out"][0]
    result = cache[f"blocks.{source.layer}.attn.hook_result"][0, :, source.head]
    if model.config.norm == "none" or model.config.norm_placement not in ("both", "output"):
        return result
    whole = cache[f"blocks.{source.layer}.attn.hook_result"][0].sum(1) + model.state_dict().get(
        f"blocks.{source.layer}.attn.o.bias", 0.0
    )
    if model.config.norm == "layernorm":
        whole, result = whole - whole.mean(-1, keepdim=True), result - result.mean(-1, keepdim=True)
    scale = (whole.square().mean(-1, keepdim=True) + model.config.norm_eps).sqrt()
    return result / scale * model.state_dict()[f"blocks.{source.layer}.ln1_post.weight"]


def split_run(model, tokens, destination: Destination, moved: torch.Tensor, at: int, answer: int, wrong: int) -> float:
    """The logit difference of a whole run in which a destination reads a stream that is moved."""
    if destination.part == "logits":
        last = f"blocks.{model.config.n_layers - 1}.hook_resid_post"
        hooks = {last: lambda value, hook: value + moved}
    else:
        hooks = split_hooks(model, destination.layer, destination.part, lambda x: x + moved, destination.head)
    with model.hooks(hooks):
        logits = model(tokens)[0, at]
    return float(logits[answer] - logits[wrong])


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), options=configs)
def test_equals_a_whole_run_with_a_split_input_for_any_architecture(seed, options):
    model, rng = build(**options), random.Random(seed)
    for number, weight in enumerate(model.parameters()):
        weight.add_(
            0.05 * torch.randn(weight.shape, dtype=weight.dtype, generator=torch.Generator().manual_seed(seed + number))
        )
    pairs, length = rng.choice([1, 2]), rng.randint(1, 6)
    clean, corrupt = random_tokens(pairs, length, seed=seed), random_tokens(pairs, length, seed=seed + 1)
    asked = {"answer": [1, 2][:pairs], "wrong": [3, 4][:pairs], "smallest_gap": 0.0}
    if not model.config.is_sum:
        with pytest.raises(ConfigError, match="post-norm model"):
            analyses.edge_patching(model, clean, corrupt, **asked)
        return
    direction, by_position = rng.choice(["noising", "denoising"]), rng.choice([False, True])
    replacement, at = rng.choice(["resample", "zero", "mean", "mean_by_position"]), rng.randrange(-length, length)
    into = rng.sample([one.name for one in destinations(model.config)], 5)
    how = {"direction": direction, "replacement": replacement, "by_position": by_position, "position": at}
    bound = rng.choice([1, 100_000, 2**30])
    result = analyses.edge_patching(model, clean, corrupt, **asked, **how, destinations=into, max_bytes=bound)
    own, other = (clean, corrupt) if direction == "noising" else (corrupt, clean)
    found = edges(model.config, destinations=into)
    assert result.edge.values.tolist() == [edge.name for edge in found]
    for number in rng.sample(range(len(found)), min(8, len(found))):
        edge, pair = found[number], rng.randrange(pairs)
        before, donors = written(model, own[pair : pair + 1], edge.source), other[pair : pair + 1]
        if replacement == "resample":
            new = written(model, donors, edge.source)
        else:
            new = torch.stack([written(model, row[None], edge.source) for row in other]).mean(0)
            new = torch.zeros_like(new) if replacement == "zero" else new.mean(0) if replacement == "mean" else new
        moved = new - before
        place = ()
        if by_position:
            place = (rng.randrange(length),)
            only = torch.zeros(length, 1, dtype=moved.dtype)
            only[place] = 1
            moved = moved * only
        answer, wrong = asked["answer"][pair], asked["wrong"][pair]
        logits = model(own[pair : pair + 1])[0, at]
        expected = split_run(model, own[pair : pair + 1], edge.destination, moved, at, answer, wrong)
        expected -= float(logits[answer] - logits[wrong])
        assert float(result.change.values[(pair, number, *place)]) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    "options", [{}, {"n_kv_heads": 2, "positions": "rotary", "norm": "rmsnorm"}, {"parallel": True}]
)
def test_all_edges_of_a_destination_together_are_its_input(options):
    model = build(**options)
    clean, corrupt = random_tokens(1, 6, seed=1), random_tokens(1, 6, seed=2)
    config, (own, streams) = model.config, (model.run_with_cache(tokens)[1] for tokens in (clean, corrupt))
    every, rows = edges(config), []
    for destination in destinations(config):
        late = destination.part == "mlp" and not config.parallel
        stream = "hook_resid_mid" if late else "hook_resid_pre"
        layer = destination.layer
        other = streams["hook_resid_post", config.n_layers - 1] if layer is None else streams[stream, layer]
        name, heads = destination.input_name(config), destination.head
        source = other[0]
        if heads is not None:
            source = source[:, None].expand(-1, config.n_heads if destination.part == "q" else config.kv_heads, -1)
        rows.append(Row([Intervention(name, Patch(source), heads=heads)]))
        into = [edge.source for edge in every if edge.destination == destination]
        moved = [of_cache(model, streams, one) - of_cache(model, own, one) for one in into]
        rows.append(Row([Intervention(name, Add(one), heads=heads) for one in moved]))
    values = sweep(model, clean, rows, Logits()).values
    torch.testing.assert_close(values[0::2], values[1::2], atol=1e-10, rtol=0)
    assert not torch.allclose(values[0], model(clean)[0, -1], atol=1e-6)


PLANTED = {
    "previous-token": ([5, 6, 7], [5, 9, 7], 6, 9, {"input->a0.h0<v>": -16, "a0.h0->logits": -16}),
    "duplicate-token": ([5, 6, 6], [5, 6, 9], 6, 9, {"input->a0.h0<q>": -4, "a0.h0->logits": -16}),
    "copying": (
        [5, 6], [5, 9], 6, 9,
        {"input->a0.h0<v>": -16, "a0.h0->logits": -16, "input->a0.h1<v>": 8, "a0.h1->logits": 8},
    ),
    "induction": (
        [0, 9, 7, 3, 9], [0, 8, 7, 3, 9], 7, 9,
        {"input->a0.h0<v>": -16, "a0.h0->a1.h0<k>": -16, "a1.h0->logits": -16},
    ),
    "backup": (
        [0, 5, 6, 7], [0, 5, 9, 7], 6, 9,
        {f"{edge}": -8 for head in (0, 1) for edge in (f"input->a0.h{head}<v>", f"a0.h{head}->logits")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_edges_have_their_effects_and_all_others_none(name):
    clean, corrupt, answer, wrong, planted = PLANTED[name]
    model = interp.load(f"circuit:{name}")
    result = analyses.edge_patching(model, torch.tensor([clean]), torch.tensor([corrupt]), answer=answer, wrong=wrong)
    change = dict(zip(result.edge.values.tolist(), result.change.values[0].tolist(), strict=True))
    assert {edge: value for edge, value in change.items() if value} == planted


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
    result = analyses.edge_patching(model, clean, corrupt, **asked, layers=[1], by_position=True)
    assert set(result.dims) <= set(AXES)
    assert result.change.dims == result.effect.dims == ("prompt", "edge", "position")
    assert result.source.values[0] == "input"
    assert result.destination.values[0] == "a1.h0<q>"
    assert set(result.destination.values) == {f"a1.h{head}<{part}>" for head in (0, 1) for part in "qkv"} | {"m1"}
    gap = result.clean_baseline - result.corrupt_baseline
    np.testing.assert_allclose(result.effect, 1 + result.change / gap, atol=1e-12)
    np.testing.assert_allclose(result.effect_mean, result.effect.mean("prompt"), atol=1e-12)
    np.testing.assert_allclose(result.change_mean, result.change.mean("prompt"), atol=1e-12)
    assert result.change_interval.dims == ("bound", "edge", "position")
    parameters = json.loads(result.attrs["parameters"])
    assert parameters["direction"] == "noising"
    assert parameters["by_position"] is True
    analyses.save(result, tmp_path / "edges.nc")
    xr.testing.assert_identical(analyses.load(tmp_path / "edges.nc"), result)


def test_denoising_is_noising_with_the_prompts_swapped(pairs):
    model, clean, corrupt, asked = pairs
    there = analyses.edge_patching(model, clean, corrupt, **asked, destinations="a2.*")
    back = analyses.edge_patching(model, corrupt, clean, **asked, destinations="a2.*", direction="denoising")
    np.testing.assert_allclose(there.change, back.change, atol=1e-12)
    np.testing.assert_allclose(there.effect + back.effect, 1, atol=1e-10)


def test_prompts_of_unequal_length_each_equal_their_own_run(pairs):
    model, clean, corrupt, asked = pairs
    clean[0, 4:] = corrupt[0, 4:] = PAD
    both = analyses.edge_patching(model, clean, corrupt, **asked, layers=[1], by_position=True)
    alone = analyses.edge_patching(model, clean[:1, :4], corrupt[:1, :4], **asked, layers=[1], by_position=True)
    np.testing.assert_allclose(both.change[0, :, :4], alone.change[0], atol=1e-12)
    assert both.change[0, :, 4:].isnull().all()
    assert both.change_mean.dims == ("edge", "position_from_end")


def test_a_metric_that_compares_distributions(pairs):
    model, clean, corrupt, asked = pairs
    result = analyses.edge_patching(model, clean, corrupt, **asked, metric="kl", destinations="logits")
    stream = model.run_with_cache(clean)[1]["hook_resid_post", 2][1]
    moved = written(model, corrupt[1:], sources(model.config)[0]) - written(model, clean[1:], sources(model.config)[0])
    p, q = model(clean)[1, -1].log_softmax(-1), model.unembed((stream + moved)[None])[0, -1].log_softmax(-1)
    assert float(result.change[1, 0]) == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sources": "a9.h0"}, "there is no source 'a9.h0'"),
        ({"destinations": ["m0", "a0.h0<o>"]}, "there is no destination 'a0.h0<o>'"),
        ({"layers": [3]}, "layers \\[3\\]: the model has layers 0 to 2"),
        ({"sources": "m2", "destinations": "a2.*"}, "no edge runs from the chosen sources"),
        ({"direction": "up"}, "unknown direction 'up'"),
        ({"replacement": "add"}, "unknown replacement 'add'"),
        ({"metric": "logits"}, "unknown metric 'logits'"),
        (
            {"reference": torch.tensor([[1, 2]]), "replacement": "mean_by_position"},
            "has 2 tokens, so there is no mean at position 2",
        ),
    ],
)
def test_what_cannot_be_is_named(options, said, pairs):
    model, clean, corrupt, asked = pairs
    with pytest.raises(InterpError, match=said):
        analyses.edge_patching(model, clean, corrupt, **asked, **options)


def test_pairs_that_do_not_fit(pairs):
    model, clean, corrupt, asked = pairs
    with pytest.raises(TokenError, match="the clean prompt has 6 tokens and the corrupt one 5"):
        analyses.edge_patching(model, clean, corrupt[:, :5], **asked)
    with pytest.raises(ResultError, match="nearly the same"):
        analyses.edge_patching(model, clean, clean, answer=1, wrong=3, destinations="logits")


@needs_reference
@pytest.mark.parametrize("layer", [0, 5])
def test_a_peers_exact_scores(layer):
    reference, model = peers()
    result = analyses.edge_patching(model, **reference["asked"], layers=[layer])
    expected = dict(zip(reference["edges"], reference["scores"]["exact"], strict=True))
    found = dict(zip(result.edge.values.tolist(), (-result.change_mean).values.tolist(), strict=True))
    assert len(found) == {0: 17, 5: 342}[layer]
    for name, value in found.items():
        assert value == pytest.approx(expected[name], abs=1e-6, rel=1e-6), name


def peers():
    """The peer's figures, and the model and pairs that they are of."""
    reference = json.loads((REFERENCE / "reference.json").read_text())
    model = interp.load(REFERENCE / "smalltown-0.1").to(torch.float64)
    pairs = reference["pairs"]
    reference["asked"] = {role: [pair[role] for pair in pairs] for role in ("answer", "wrong")}
    for role in ("clean", "corrupt"):
        reference["asked"][role] = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(pair[role]) for pair in pairs], batch_first=True, padding_value=PAD
        )
    return reference, model


def test_figures_show_the_largest_edges_by_name(pairs):
    model, clean, corrupt, asked = pairs
    result = analyses.edge_patching(model, clean, corrupt, **asked)
    figure = analyses.plot(result, top=3)
    order = np.argsort(-np.abs(result.change_mean.values))[:3][::-1]
    np.testing.assert_array_equal(figure.data[0].x, result.change_mean.values[order])
    assert [name.replace("&lt;", "<").replace("&gt;", ">") for name in figure.layout.yaxis.ticktext] == list(
        result.edge.values[order]
    )
    one = analyses.plot(result, top=3, prompt=1)
    assert np.abs(one.data[0].x).max() == np.abs(result.change[1]).max()
    by_position = analyses.plot(
        analyses.edge_patching(model, clean, corrupt, **asked, layers=[1], by_position=True), top=4
    )
    assert np.shape(by_position.data[0].z) == (4, 6)
    with pytest.raises(ResultError, match="top=0"):
        analyses.plot(result, top=0)


@pytest.mark.parametrize("given", [[], "m7", ["m0", "a3"], "M0"])
@pytest.mark.parametrize("side", ["sources", "destinations"])
def test_what_names_no_part_is_named(side, given):
    with pytest.raises(InterpError, match="edge_patching: "):
        analyses.edge_patching(
            tiny(), random_tokens(1, 4), random_tokens(1, 4, seed=1), answer=3, wrong=4, **{side: given}
        )


def counted(monkeypatch, stop_at=None) -> list[int]:
    """How many rows each sweep of edges has from now on; before number `stop_at` begins, it is as if the user had stopped it."""
    module, calls = sys.modules["analyses.circuits.patching"], []
    original = module.sweep

    def stopping(model, tokens, rows, *others, **options):
        calls.append(len(rows))
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return original(model, tokens, rows, *others, **options)

    monkeypatch.setattr(module, "sweep", stopping)
    return calls


@pytest.mark.parametrize("by_position", [False, True])
def test_parts_are_kept_and_a_stopped_run_goes_on(by_position, pairs, tmp_path, monkeypatch):
    model, clean, corrupt, asked = pairs
    clean[0, 4:] = corrupt[0, 4:] = PAD  # by position some numbers are NaN
    monkeypatch.setattr(sys.modules["analyses.circuits.patching"], "LARGEST_PART", 2**18 if by_position else 2**16)
    how = {**asked, "by_position": by_position, "max_bytes": 100_000, "destinations": ["a2.h0<q>", "m2"]}
    with monkeypatch.context() as watched:
        every = counted(watched)
        expected = analyses.edge_patching(model, clean, corrupt, **how)
    assert len(every) > 6
    folder = tmp_path / "parts"
    with monkeypatch.context() as watched:
        counted(watched, stop_at=5)
        with pytest.raises(KeyboardInterrupt):
            analyses.edge_patching(model, clean, corrupt, **how, keep=folder)
    there = {path.name: path.stat().st_mtime_ns for path in folder.glob("edges-*.safetensors")}
    assert len(there) == 4
    with monkeypatch.context() as watched:
        calls = counted(watched)
        found = analyses.edge_patching(model, clean, corrupt, **how, keep=str(folder))
    assert calls == every[4:]
    xr.testing.assert_identical(found.assign_attrs(created=""), expected.assign_attrs(created=""))
    assert all((folder / name).stat().st_mtime_ns == time for name, time in there.items())
    with monkeypatch.context() as watched:
        again = counted(watched)
        analyses.edge_patching(model, clean, corrupt, **how, keep=folder)
    assert again == []


def test_parts_of_another_request_are_refused(pairs, tmp_path):
    model, clean, corrupt, asked = pairs
    first = {**asked, "destinations": "logits", "keep": tmp_path / "parts"}
    analyses.edge_patching(model, clean, corrupt, **first)
    others = [
        {"answer": 2}, {"wrong": 4}, {"direction": "denoising"}, {"replacement": "zero"}, {"metric": "logit"}, {"position": 3},
        {"by_position": True}, {"sources": "input"}, {"destinations": "m2"},
    ]  # fmt: skip
    for other in others:
        with pytest.raises(InterpError, match="parts of another request"):
            analyses.edge_patching(model, clean, corrupt, **(first | other))
    for runs in ((tiny(seed=5), clean, corrupt), (model, corrupt, clean), (model, clean[:1], corrupt[:1])):
        with pytest.raises(InterpError, match="parts of another request"):
            analyses.edge_patching(*runs, **first)
    mean = {**first, "replacement": "mean", "keep": tmp_path / "means"}
    analyses.edge_patching(model, clean, corrupt, **mean)
    with pytest.raises(InterpError, match="parts of another request"):
        analyses.edge_patching(model, clean, corrupt, **mean, reference=clean)


def test_what_cannot_be_kept_is_named(pairs, tmp_path):
    model, clean, corrupt, asked = pairs
    run = partial(analyses.edge_patching, model, clean, corrupt, **asked, destinations="logits")
    with pytest.raises(InterpError, match="which function the metric is"):
        run(keep=tmp_path / "parts", metric=lambda logits, prompts: logits[:, 0])
    hooks = {"blocks.0.hook_resid_pre": lambda value, hook: value}
    with pytest.raises(HookError, match="hooks attached"), model.hooks(hooks):
        run(keep=tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(InterpError, match="cannot keep parts"):
            run(keep=name)
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(InterpError, match="no folder of kept parts"):
        run(keep=tmp_path)


def test_parts_are_of_about_a_minute_and_have_every_edge_once():
    config = ModelConfig(n_layers=12, d_model=768, n_heads=12, d_head=64, d_mlp=3072, n_ctx=1024, d_vocab=50257)
    found = edges(config)
    ordered = [found[number] for number in _in_order(found)]
    reads = [edge.destination.read for edge in ordered]
    assert reads == sorted(reads)
    assert len(set(ordered)) == len(found)
    parts = list(_parts(config, 16, 1, ordered))
    assert [number for part in parts for number in part] == list(range(len(found)))
    assert 5 < len(parts) < 50
    assert [len(part) for part in _parts(config, 1024, 10_000, ordered[:3])] == [1, 1, 1]
    assert list(_parts(config, 16, 1, [])) == []


def test_kept_parts_count_as_done(pairs, tmp_path, monkeypatch):
    model, clean, corrupt, asked = pairs
    monkeypatch.setattr(sys.modules["analyses.circuits.patching"], "LARGEST_PART", 1)
    told, update = [], Progress.update

    def telling(self, task, **values):
        update(self, task, **values)
        if "completed" in values:
            told.append((self.tasks[0].completed, self.tasks[0].total))

    monkeypatch.setattr(Progress, "update", telling)
    run = partial(
        analyses.edge_patching, model, clean, corrupt, **asked, destinations="logits", keep=tmp_path / "parts"
    )
    run()
    first, told[:] = list(told), []
    run()
    assert told == first == [(2 * n, 20) for n in range(1, 11)]  # an edge of two pairs at a time
