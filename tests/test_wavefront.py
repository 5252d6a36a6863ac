"""The cascade as one picture: distances from whole runs, a planted circuit, what cannot have come yet, and what is lit when."""

import json

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from conftest import random_tokens, tiny

import analyses
import interp
from analyses.cascade import Nudge, Replace, Swap, Unrelated, coupled, random_twin, wavefront
from analyses.plots.wavefront import reveals
from interp.errors import InterpError
from interp.geometry import seen
from interp.streams import streams


def test_the_induction_circuit_carries_it_to_one_place_and_into_the_text():
    """0 A B 5 9 A writes B, with C for B it writes C: the light stands where B does, and reaches the last token in the last layer."""
    model = interp.load("circuit:induction", dtype=torch.float64)
    clean, other = torch.tensor([[0, 3, 7, 5, 9, 3]]), torch.tensor([[0, 3, 11, 5, 9, 3]])
    result = wavefront(model, clean, Replace(other), steps=1, temperature=0.0, twin=False)
    lit = result["distance"].sel(weights="trained").to_numpy() > 1e-9
    assert lit[:, :2].sum() == 0
    assert lit[:, 2].all()
    assert lit[:, 5].tolist() == [False, False, True]
    assert result["token_id"][0].to_numpy().tolist() == [0, 3, 7, 5, 9, 3, 7]
    assert result["other_token_id"][0].to_numpy().tolist() == [0, 3, 11, 5, 9, 3, 11]
    assert result["h"][0, -1] == 1


@pytest.mark.parametrize("disturbance", [Swap(2, 9), Nudge(layer=1, dose=0.5), Nudge(layer=0, dose=0.5, step=2)])
def test_distances_are_those_of_whole_runs(disturbance):
    model, prompt = tiny(), random_tokens(1, 6)
    result = wavefront(model, prompt, disturbance, steps=5, seed=3)
    texts = coupled(model, prompt, disturbance, seeds=1, steps=5, seed=3)
    assert (result["token_id"][0, 6:].to_numpy() == texts["token_id"][0, 0].to_numpy()).all()
    np.testing.assert_allclose(result["h"][0, 6:], texts["h"][0, 0], atol=1e-12)
    clean, other = (torch.from_numpy(result[name][0].to_numpy())[None] for name in ("token_id", "other_token_id"))
    one = streams(model, clean)
    row = torch.zeros(1, dtype=torch.long)
    with disturbance.attached(model, row, row, row + 6):
        two = streams(model, other)
    for layer, (a, b) in enumerate(zip(one, two, strict=True)):
        a, b = seen(model.config, a[0]), seen(model.config, b[0])
        expected = (b - a).norm(dim=-1) / ((a.norm(dim=-1) ** 2 + b.norm(dim=-1) ** 2) / 2).sqrt()
        np.testing.assert_allclose(result["distance"][0, layer], expected, atol=1e-9)
    assert float(result["distance"].max()) <= 2


def test_before_it_there_is_nothing():
    model = tiny()
    distance = wavefront(model, random_tokens(1, 6), Nudge(layer=2, dose=0.3), steps=4)["distance"][0].to_numpy()
    assert distance[:, :5].max() == 0
    assert distance[:2, 5].max() == 0
    assert distance[2, 5] > 0.1


def test_streams_at_right_angles_are_root_two_apart_and_opposite_ones_two():
    from analyses.cascade.wavefront import apart

    x = torch.tensor([[3.0, 0.0], [3.0, 0.0], [0.0, 0.0], [1.0, 2.0]])
    y = torch.tensor([[0.0, 3.0], [-3.0, 0.0], [0.0, 0.0], [1.0, 2.0]])
    np.testing.assert_allclose(apart(x, y), [2**0.5, 2, 0, 0], rtol=1e-6)


def test_the_twin_beside_it_is_that_of_a_call_of_its_own():
    model, prompt = tiny(), random_tokens(1, 6)
    both = wavefront(model, prompt, Swap(3, 9), steps=4)
    assert both["weights"].to_numpy().tolist() == ["trained", "random"]
    alone = wavefront(random_twin(model), prompt, Swap(3, 9), steps=4, twin=False)
    np.testing.assert_allclose(both["distance"][1], alone["distance"][0], atol=1e-12)
    assert both["generated"].to_numpy().tolist() == [0] * 6 + [1] * 4
    assert json.loads(both.attrs["parameters"])["twin"] is True


def test_what_it_is_not_for_is_named():
    model = tiny()
    with pytest.raises(InterpError, match="one picture shows one prompt, got 2"):
        wavefront(model, random_tokens(2, 6))
    with pytest.raises(InterpError, match="the prompt has 6 tokens and the disturbed one 5"):
        wavefront(model, random_tokens(1, 6), Replace(random_tokens(1, 5)))
    with pytest.raises(InterpError, match="two prompts"):
        wavefront(model, random_tokens(1, 6), Unrelated())


def test_the_light_goes_up_the_prompt_and_on_through_the_text():
    lit = list(reveals(3, 6, 4))
    assert len(lit) == 3 + 2
    assert lit[0].tolist() == [[True] * 4 + [False] * 2, [False] * 6, [False] * 6]
    assert lit[2][:, :4].all()
    assert not lit[2][:, 4:].any()
    assert lit[-1].all()


def test_the_picture_says_which_tokens_differ_and_moves():
    result = wavefront(tiny(), random_tokens(1, 6), Swap(3, 9), steps=4)
    still, moving = analyses.plot(result), analyses.plot(result, animated=True)
    assert isinstance(still, go.Figure)
    assert not still.frames
    distance = result["distance"].to_numpy()
    for row, trace in enumerate(still.data):
        np.testing.assert_allclose(trace.z, distance[row])
    bold = [text.startswith("<b>") for text in still.layout.xaxis.ticktext]
    assert bold == (result["token_id"][0] != result["other_token_id"][0]).to_numpy().tolist()
    assert len(moving.frames) == 4 + 4
    for row in (0, 1):
        np.testing.assert_allclose(moving.frames[-1].data[row].z, distance[row])
        assert not np.asarray(moving.frames[0].data[row].z)[1:].any()
