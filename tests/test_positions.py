"""Answers that stand elsewhere than at the last token: read there, in every analysis, also of prompts of unequal length."""

import json

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny
from test_options import build
from typer.testing import CliRunner

import analyses
import interp
from analyses import cascade
from analyses.cli.app import app
from interp import PAD, Intervention, Row, Scale, sweep
from interp.errors import TokenError
from interp.sweep.readouts import LogitDifference, Logits, OfLogits, given_position, positions_of
from interp.zoo import DEFAULT_PAIR

PAIR = {"answer": 3, "wrong": 4}


def unequal(seed: int = 1) -> torch.Tensor:
    tokens = random_tokens(3, 6, seed=seed)
    tokens[1, 4:] = PAD
    return tokens


def gap(logits: torch.Tensor) -> float:
    return float(logits[3] - logits[4])


@pytest.mark.parametrize("max_bytes", [1, 2**29])
@pytest.mark.parametrize(("position", "places"), [(-2, [4, 2, 4]), (0, [0, 0, 0]), ([1, -1, 3], [1, 3, 3])])
def test_a_sweep_reads_where_it_is_told_in_whatever_parts_it_runs(max_bytes, position, places):
    model, tokens = tiny(), unequal()
    answers, wrongs = torch.tensor([3, 5, 7]), torch.tensor([4, 6, 8])
    change = Intervention("blocks.1.hook_mlp_out", Scale(2.0))
    rows = [Row([change], 2), Row([], 1), Row([change], 0), Row([change], 1)]
    swept = sweep(model, tokens, rows, LogitDifference(answers, wrongs, position=position), max_bytes=max_bytes)
    for number, row in enumerate(rows):
        prompt = tokens[row.prompt][tokens[row.prompt] != PAD][None]
        with model.hooks({"blocks.1.hook_mlp_out": lambda value, hook: value * 2}):
            changed = model(prompt)[0, places[row.prompt]]
        logits = changed if row.interventions else model(prompt)[0, places[row.prompt]]
        expected = logits[answers[row.prompt]] - logits[wrongs[row.prompt]]
        assert float(swept.values[number]) == pytest.approx(float(expected), abs=1e-10)
    numbers = sweep(model, tokens, rows, OfLogits(lambda logits, prompts: 1.0 * prompts), max_bytes=max_bytes)
    assert numbers.base.tolist() == [0, 1, 2]  # the prompts' numbers in the whole sweep
    assert numbers.values.tolist() == [2, 1, 0, 1]


def test_positions_as_users_give_them():
    for given in (2, np.int64(2), torch.tensor(2), np.array(2)):
        assert given_position(given, "it") == 2
    for given in ([0, -1], (0, -1), np.array([0, -1]), torch.tensor([0, -1])):
        assert positions_of(given, [4, 6], "it") == [0, 5]
    with pytest.raises(
        TokenError, match=r"it: position 4 is out of range: prompt 0 has 4 tokens, so positions 0 to 3, or -1 to -4"
    ):
        positions_of(4, [4, 6], "it")
    with pytest.raises(TokenError, match="prompt 1 has 2 tokens"):
        positions_of(-3, [4, 2], "it")
    with pytest.raises(TokenError, match="3 positions for 2 prompts"):
        positions_of([0, 1, 2], [4, 4], "it")
    for given in ("last", 1.0, None, [0.5]):
        with pytest.raises(TokenError, match="position must be a whole number"):
            given_position(given, "it")
    with pytest.raises(TokenError, match="2 positions, but there is a prompt 2"):
        sweep(tiny(), unequal(), [Row()], Logits(position=[0, 1]))


def at(tokens: torch.Tensor, position: int | list[int], number: int) -> int:
    given = position if isinstance(position, int) else position[number]
    return given % int((tokens[number] != PAD).sum())


@pytest.mark.parametrize("position", [0, -2, [3, 0, -1]])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("site", ["resid_pre", "z", "mlp_post"])
def test_patching_at_a_position_equals_whole_hooked_runs(position, causal, site):
    model, clean, corrupt = build(causal=causal), unequal(1), unequal(2)
    options = {"site": site, "position": position, "smallest_gap": 0.0, "by_position": False}
    result = analyses.activation_patching(model, clean, corrupt, **PAIR, **options)
    assert json.loads(result.attrs["parameters"])["position"] == position
    name = {"resid_pre": "hook_resid_pre", "z": "attn.hook_z", "mlp_post": "mlp.hook_post"}[site]
    for number in range(3):
        length = int((clean[number] != PAD).sum())
        read, base, source = (
            at(clean, position, number),
            corrupt[number : number + 1, :length],
            clean[number : number + 1, :length],
        )
        logits, cache = model.run_with_cache(source)
        assert result["clean_baseline"][number].item() == pytest.approx(gap(logits[0, read]), abs=1e-8)
        assert result["corrupt_baseline"][number].item() == pytest.approx(gap(model(base)[0, read]), abs=1e-8)
        inner = () if site == "resid_pre" else (1,)

        def put(value, hook, cache=cache, inner=inner):
            value[:, :, *inner] = cache[hook.name][:, :, *inner]

        with model.hooks({f"blocks.1.{name}": put}):
            expected = gap(model(base)[0, read])
        assert result["value"][number][1, *inner].item() == pytest.approx(expected, abs=1e-8)


def test_every_analysis_explains_the_logit_that_it_is_asked_about():
    """A bidirectional classifier that answers at position 0; its prompts are of unequal length."""
    model, clean, corrupt = build(causal=False), unequal(1), unequal(2)
    expected = [gap(model(row[row != PAD][None])[0, 0]) for row in clean]
    lasts = [gap(model(row[row != PAD][None])[0, -1]) for row in clean]
    assert min(abs(a - b) for a, b in zip(expected, lasts, strict=True)) > 1e-3
    options = {"position": 0, **PAIR}
    direct = analyses.direct_logit_attribution(model, clean, **options)
    np.testing.assert_allclose(direct["metric"], expected, atol=1e-8)
    np.testing.assert_allclose(direct["component_effect"].sum("component"), expected, atol=1e-6)
    ablated = analyses.ablate_heads(model, clean, **options, heads=[(1, 0)], controls=0)
    np.testing.assert_allclose(ablated["logit_difference"].sel(condition="intact"), expected, atol=1e-8)
    zero = analyses.ablate_heads(model, clean, **options, heads=[(1, 0)], controls=0, replacement="zero")
    total = ablated["logit_difference"].sel(condition="intact") - zero["logit_difference"].sel(condition="ablated")
    np.testing.assert_allclose(direct["total_effect"].sel(layer=1, head=0), total, atol=1e-8)
    repair = cascade.self_repair(model, clean, (1, 0), **options)
    np.testing.assert_allclose(repair["total"], total, atol=1e-6)
    np.testing.assert_allclose(repair["direct"], direct["head_effect"].sel(layer=1, head=0), atol=1e-6)
    pair = {"smallest_gap": 0.0, **options}
    patched = analyses.activation_patching(model, clean, corrupt, site="z", **pair)
    for result in (
        patched,
        analyses.compare_patching(model, clean, corrupt, **pair).isel(variant=0),
        analyses.attribution_patching(model, clean, corrupt, verify=3, **pair),
    ):
        np.testing.assert_allclose(result["clean_baseline"], expected, atol=1e-8)
    screened = analyses.attribution_patching(model, clean, corrupt, verify=24, **pair)
    there = screened["effect"].notnull().to_numpy()
    np.testing.assert_allclose(screened["effect"].to_numpy()[there], patched["effect"].to_numpy()[there], atol=1e-8)
    importance = analyses.head_importance(model, clean, corrupt, **pair)
    lost = 1 - analyses.activation_patching(model, clean, corrupt, site="z", direction="noising", **pair)["effect"]
    np.testing.assert_allclose(importance["importance"].sel(replacement="resample"), lost, atol=1e-8)
    traced = analyses.causal_tracing(
        model, clean, subject=[1], metric="logit", draws=2, answer=3, position=0, smallest_gap=0.0
    )
    logits = [float(model(row[row != PAD][None])[0, 0, 3]) for row in clean]
    np.testing.assert_allclose(traced["clean_baseline"], logits, atol=1e-8)
    followed = analyses.causal_tracing(model, clean, subject=[1], metric="logit", draws=1, position=0, smallest_gap=0.0)
    assert followed["answer_id"].to_numpy().tolist() == [
        int(model(row[row != PAD][None])[0, 0].argmax()) for row in clean
    ]
    for result in (direct, ablated, repair, patched, screened, importance, traced):
        assert json.loads(result.attrs["parameters"])["position"] == 0
        assert "at position 0" in analyses.plot(result).layout.title.text


def test_a_slope_is_that_of_the_logit_there():
    """Where the model is nearly linear between the two runs an estimate equals the effect."""
    model, vector = build(causal=False), 1e-6 * torch.randn(16, generator=torch.Generator().manual_seed(0)).double()
    near = analyses.attribution_patching(
        model, unequal(1), unequal(2), **PAIR, site="resid_mid", replacement="add", vector=vector, position=[0, 1, -2], verify=6,
        smallest_gap=0.0,
    )  # fmt: skip
    there = near["effect"].notnull().to_numpy()
    change, exact = (near[name].to_numpy()[there] - 1 for name in ("estimate", "effect"))
    np.testing.assert_allclose(change, exact, rtol=1e-3, atol=1e-12)
    assert (np.abs(exact) > 1e-9).any()


def test_pairs_of_unequal_length_are_read_at_matched_positions():
    model = tiny()
    clean, corrupt = torch.tensor([[1, 2, 3, 4, 5, 6]]), torch.tensor([[1, 2, 7, 8, 9, 4, 6]])
    for position, there in ((-1, (5, 6)), (-3, (3, 4)), (3, (3, 5)), (1, (1, 1))):
        result = analyses.activation_patching(
            model, clean, corrupt, **PAIR, align=True, position=position, smallest_gap=0.0
        )
        assert result["clean_baseline"].item() == pytest.approx(gap(model(clean)[0, there[0]]), abs=1e-10)
        assert result["corrupt_baseline"].item() == pytest.approx(gap(model(corrupt)[0, there[1]]), abs=1e-10)
    with pytest.raises(TokenError, match="position 2 of the clean prompt is matched with none of the corrupt prompt"):
        analyses.activation_patching(model, clean, corrupt, **PAIR, align=True, position=2, smallest_gap=0.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, tokens, position: analyses.activation_patching(
            model, tokens, tokens.flip(0), **PAIR, position=position
        ),
        lambda model, tokens, position: analyses.ablate_heads(model, tokens, **PAIR, heads=[(0, 0)], position=position),
        lambda model, tokens, position: analyses.direct_logit_attribution(model, tokens, **PAIR, position=position),
        lambda model, tokens, position: analyses.causal_tracing(
            model, tokens, subject=[0], position=np.array(position)
        ),
        lambda model, tokens, position: analyses.head_importance(
            model, tokens, tokens.flip(0), **PAIR, position=position
        ),
        lambda model, tokens, position: analyses.compare_patching(
            model, tokens, tokens.flip(0), **PAIR, position=position
        ),
        lambda model, tokens, position: analyses.attribution_patching(
            model, tokens, tokens.flip(0), **PAIR, position=position
        ),
        lambda model, tokens, position: cascade.self_repair(model, tokens, (0, 0), **PAIR, position=position),
    ],
)
def test_positions_that_cannot_be(call):
    with pytest.raises(TokenError, match=r"[a-z_.]+: position 6 is out of range: prompt 0 has 6 tokens"):
        call(tiny(), random_tokens(2, 6), 6)
    with pytest.raises(TokenError, match="3 positions for 2 prompts"):
        call(tiny(), random_tokens(2, 6), [0, 1, 2])


def test_dose_response_reads_its_target():
    model, tokens = build(causal=False), random_tokens(1, 5)
    options = {"doses": [0.01, 0.1, 0.3], "position": 3, "n_directions": 1}
    first = cascade.dose_response(model, tokens, **options, target=0)
    last = cascade.dose_response(model, tokens, **options)
    assert not np.allclose(first["kl"], last["kl"], equal_nan=True)
    np.testing.assert_allclose(first["size"], last["size"])  # of all positions, whatever is read
    slope = np.log(first["kl"][0, 0, 0, 1] / first["quadratic_kl"][0, 0, 0, 1])
    assert abs(float(slope)) < 0.5
    with pytest.raises(interp.errors.InterpError, match="nothing at position 0 depends on position 3"):
        cascade.dose_response(tiny(), tokens, **options, target=0)
    with pytest.raises(TokenError, match="position 5 is out of range"):
        cascade.dose_response(model, tokens, **options, target=5)


def test_figures_name_the_prompt_s_own_position():
    model, clean, corrupt = tiny(), unequal(1), unequal(2)
    result = analyses.activation_patching(
        model, clean, corrupt, **PAIR, site="z", position=[0, -2, 1], smallest_gap=0.0
    )
    assert "at a position of its own in each prompt" in analyses.plot(result).layout.title.text
    assert "at position -2 (from the end)" in analyses.plot(result, prompt=1).layout.title.text
    plain = analyses.activation_patching(model, clean, corrupt, **PAIR, site="z", smallest_gap=0.0)
    assert "position" not in analyses.plot(plain).layout.title.text


def test_the_command_line_reads_there(tmp_path):
    run = CliRunner()
    prompts = [DEFAULT_PAIR.clean, "--corrupt", DEFAULT_PAIR.corrupt, "--answer", " Mary", "--wrong", " John"]
    done = run.invoke(
        app,
        [
            "patch",
            *prompts,
            "--site",
            "z",
            "--position",
            "-2",
            "--out",
            str(tmp_path / "p.html"),
            "--save",
            str(tmp_path / "p.nc"),
        ],
    )
    assert done.exit_code == 0, done.output
    saved = analyses.load(tmp_path / "p.nc")
    assert json.loads(saved.attrs["parameters"])["position"] == -2
    asked = [
        "attribution",
        DEFAULT_PAIR.clean,
        "--position",
        "3",
        "--out",
        str(tmp_path / "a.html"),
        "--save",
        str(tmp_path / "a.nc"),
    ]
    done = run.invoke(app, asked)
    assert done.exit_code == 0, done.output
    model = interp.load()
    logits = model(model.to_tokens(DEFAULT_PAIR.clean))[0, 3]
    saved = analyses.load(tmp_path / "a.nc")
    assert saved["answer_id"].item() == int(logits.argmax())  # the top prediction there
    assert saved["metric"].item() == pytest.approx(float(logits.max()), abs=1e-3)
    done = run.invoke(app, ["attribution", DEFAULT_PAIR.clean, "--position", "99", "--out", str(tmp_path / "b.html")])
    assert isinstance(done.exception, TokenError)
