"""What is kept is kept under everything that shapes it: each argument of each kept analysis, and each part of the model."""

from dataclasses import replace
from importlib import import_module
from inspect import signature

import numpy as np
import pytest
import torch
from conftest import TINY, random_tokens, tiny

import analyses
import analyses.kept as kept_parts
from analyses import cascade
from analyses.cascade import Nudge, Replace, Swap
from analyses.kept import Kept
from analyses.report.inside import inside_shelf, inside_steps
from analyses.report.outside import outside_shelf, outside_steps
from interp.errors import CheckpointError, InterpError
from interp.files import make_folder

TOKENS = random_tokens(2, 6)
TEXTS = ["Mary and John went to the park", "Once upon a time"]
VECTOR = torch.arange(16.0)
FEW = {"seeds": 1, "steps": 4}
OTHER = {
    "seeds": 2,
    "steps": 5,
    "temperature": 0.7,
    "seed": 1,
    "use_cache": False,
}
SHAPES_NOTHING = {"model", "max_bytes", "progress", "folder", "bos"}
"""Of ids, `bos` shapes nothing; the memory bounds which rows run together, by which parts are named. Each temperature has a folder."""

CALLS = {
    "coupled": (cascade.coupled, FEW),
    "channels": (cascade.channels, FEW),
    "survival": (cascade.survival, FEW),
    "temperature_sweep": (
        cascade.temperature_sweep,
        {"temperatures": (0.5, 0.7, 1.0, 1.5, 2.0), "lengths": (4, 5, 6), "seeds": 1},
    ),
}
LENGTHS = {"lengths": (4, 5, 7)}


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_of_a_kept_analysis_is_in_its_key(name, tmp_path):
    call, arguments = CALLS[name]
    call(tiny(), TOKENS, Nudge(), folder=tmp_path, **arguments)
    call(tiny(), TOKENS, Nudge(), folder=tmp_path, **arguments, max_bytes=10**6)
    others = OTHER | LENGTHS
    for argument in set(signature(call).parameters) - SHAPES_NOTHING - {"prompts", "disturbance", "temperatures"}:
        with pytest.raises(InterpError, match="parts of another request"):
            call(tiny(), TOKENS, Nudge(), folder=tmp_path, **(arguments | {argument: others[argument]}))
    for prompts, disturbance in (
        (TOKENS + 1, Nudge()),
        (TOKENS, Swap(3)),
        (TOKENS, None),
        (TOKENS, Nudge(vector=VECTOR)),
    ):
        if (name, disturbance) in (("channels", None),):
            disturbance = Nudge(dose=0.4)
        with pytest.raises(InterpError, match="parts of another request"):
            call(tiny(), prompts, disturbance, folder=tmp_path, **arguments)


MODELS = {
    "weights": lambda **k: tiny(1, **k),
    "a configuration without weights of its own": lambda config=TINY, **k: tiny(
        config=replace(config, logit_cap=2.0), **k
    ),
    "precision": lambda **k: tiny(dtype=torch.float32, **k),
}


@pytest.mark.parametrize("what", MODELS)
def test_everything_of_the_model_is_in_every_key(what, tmp_path, smalltown):
    cascade.coupled(tiny(), TOKENS, Nudge(), folder=tmp_path, **FEW)
    with pytest.raises(InterpError, match="parts of another request"):
        cascade.coupled(MODELS[what](), TOKENS, Nudge(), folder=tmp_path, **FEW)
    reads = {"config": replace(TINY, d_vocab=smalltown.config.d_vocab), "tokenizer": smalltown.tokenizer}
    models = tiny(**reads), tiny(**reads), MODELS[what](**reads)
    assert len({inside_shelf(tmp_path, model, TEXTS, []).folder for model in models}) == 2


NUDGES = {
    "layer": 1,
    "dose": 0.2,
    "vector": VECTOR,
    "step": 1,
    "seed": 4,
}


def test_every_field_of_a_disturbance_is_in_its_key():
    assert set(NUDGES) == set(signature(Nudge).parameters)
    told = [
        Nudge().about(),
        *(Nudge(**{name: value}).about() for name, value in NUDGES.items()),
        Nudge(vector=VECTOR + 1).about(),
    ]
    told += [Swap(at, token).about() for at in (1, 2) for token in (None, 3, 4)] + [Replace(TOKENS).about()]
    assert len({str(about) for about in told}) == len(told)
    assert Nudge(vector=VECTOR.double()).about() == Nudge(vector=VECTOR).about()


def test_another_vector_gets_its_own_numbers(tmp_path):
    model = tiny()
    one, other = (
        cascade.coupled(model, TOKENS, Nudge(dose=2.0, vector=vector), folder=tmp_path / str(number), **FEW)
        for number, vector in enumerate((VECTOR, VECTOR.flip(0).square()))
    )
    assert not np.allclose(one["h"], other["h"])
    with pytest.raises(InterpError, match="parts of another request"):
        cascade.coupled(model, TOKENS, Nudge(dose=2.0, vector=VECTOR.flip(0).square()), folder=tmp_path / "0", **FEW)


@pytest.mark.parametrize("vector", [torch.zeros(16), torch.full((16,), torch.nan), torch.ones(3)])
def test_a_vector_that_is_no_direction(vector):
    with pytest.raises(InterpError, match="vector"):
        cascade.coupled(tiny(), TOKENS, Nudge(vector=vector), **FEW)


def test_every_argument_of_a_report_is_in_its_key(tmp_path, smalltown):
    model, vector = smalltown, torch.arange(smalltown.config.d_model) + 1.0
    inside = {"answers": {"answer": 3}, "dose": 0.02, "layer": 1, "n_directions": 3, "seed": 1}
    assert set(inside) == set(signature(inside_steps).parameters) - {
        "model", "texts", "others", "results", "shelf", "clusters", "leave",
    }  # fmt: skip
    default = {name: p.default for name, p in signature(inside_steps).parameters.items() if name in inside}
    requests = [default, *(default | {name: value} for name, value in inside.items())]
    requests.append(default | {"answers": {"answer": 3, "position": torch.tensor(2)}})
    folders = {inside_shelf(tmp_path, model, TEXTS, TEXTS, **request).folder for request in requests}
    folders |= {inside_shelf(tmp_path, model, TEXTS[::-1], TEXTS, **default).folder}
    folders |= {inside_shelf(tmp_path, model, TEXTS, TEXTS[::-1], **default).folder}
    assert len(folders) == len(requests) + 2
    outside = {"seeds": 2, "steps": 17, "temperature": np.float32(0.5), "clusters": ["a", None], "seed": 1}
    assert set(outside) == set(signature(outside_steps).parameters) - {
        "model",
        "texts",
        "disturbance",
        "results",
        "folder",
    }
    default = {"seeds": 1, "steps": 16, "temperature": 1.0, "clusters": None, "seed": 0}
    asked = [(Nudge(), default), *((Nudge(), default | {name: value}) for name, value in outside.items())]
    asked += [(Nudge(vector=vector), default), (Nudge(vector=vector + 1), default), (Swap(), default)]
    folders = {outside_shelf(tmp_path, model, TEXTS, disturbance, **request).folder for disturbance, request in asked}
    assert len(folders) == len(asked)


def test_every_argument_of_collect_is_in_its_key(smalltown, tmp_path, monkeypatch):
    said, collecting = [], import_module("analyses.report.collect")

    def noted(folder, model, about):
        said.append(str(about))
        raise InterruptedError

    monkeypatch.setattr(collecting, "parts_shelf", noted)
    clean, corrupt = (
        "Then, Mary and John went to the park. John gave a ball to",
        "Then, Mary and John went to the park. Mary gave a ball to",
    )
    request = {
        "clean": clean,
        "corrupt": corrupt,
        "answer": " Mary",
        "wrong": " John",
        "outside": None,
        "clusters": None,
        "circuit": False,
        "seed": 0,
    }
    others = {"clean": clean.replace("Then", "Once"), "corrupt": None, "answer": " John", "wrong": " park", "seed": 1}
    others |= {"outside": ([clean, corrupt], Swap()), "clusters": ["a", None], "circuit": True}
    assert set(request) == set(signature(collecting.collect).parameters) - {"model", "folder", "progress"}
    requests = [request, *(request | {name: value} for name, value in others.items())]
    requests[3]["wrong"] = " park"
    for one in requests:
        with pytest.raises(InterruptedError):
            collecting.collect(smalltown, **one, folder=tmp_path)
    assert len(set(said)) == len(requests)


def test_a_training_is_kept_under_its_model_and_settings_and_damage_is_named(tmp_path, monkeypatch):
    texts = random_tokens(24, 8)
    out = tmp_path / "lens.safetensors"
    settings = {"steps": 3, "rows": 2, "validate_every": 1, "learning_rate": 0.01}
    state = tmp_path / "lens.safetensors.training"
    tuning = import_module("analyses.lenses.tuning")
    first = analyses.train_tuned_lens(tiny(), texts, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "save_lens", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            analyses.train_tuned_lens(tiny(), texts, out=out, **settings)
    kept = state.read_bytes()
    again = analyses.train_tuned_lens(tiny(), texts, out=out, **settings)
    assert torch.equal(first.weight, again.weight)
    assert not state.exists()
    state.write_bytes(kept)
    for model, changed in (
        (tiny(config=replace(TINY, logit_cap=2.0)), {}),
        (tiny(1), {}),
        *((tiny(), {name: value}) for name, value in {"steps": 4, "rows": 1, "learning_rate": 0.02, "seed": 1}.items()),
        (tiny(), {"validate_every": 2}),
        (tiny(), {"patience": 2}),
    ):
        with pytest.raises(CheckpointError, match="another training"):
            analyses.train_tuned_lens(model, texts, out=out, overwrite=True, **(settings | changed))
    for damaged in (
        b"",
        b"\xff\xfe no text",
        kept[: len(kept) // 2],
        kept.replace(b"waited", b"wasted"),
        b"{}" * 40,
    ):
        state.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="no state of a training, or is damaged"):
            analyses.train_tuned_lens(tiny(), texts, out=out, overwrite=True, **settings)


def test_a_part_whose_numbers_changed_on_the_disk_is_made_anew(tmp_path):
    kept, numbers = Kept(tmp_path, {"what": "numbers"}), np.arange(6.0)
    kept.part("one", lambda: {"values": numbers})
    path = tmp_path / "one.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found = kept.part("one", lambda: {"values": -numbers})
    assert np.array_equal(found["values"], -numbers)
    again = kept.part("one", lambda: pytest.fail("it is there"))
    assert np.array_equal(again["values"], -numbers)


def test_of_two_that_begin_one_folder_the_second_takes_nothing_of_the_first(tmp_path):
    """Both have looked before either has written."""
    one, other, same = (Kept(tmp_path / "parts", {"seed": seed}) for seed in (0, 1, 0))
    one.part("first", lambda: {"x": np.arange(3)})
    for name in ("first", "second"):
        with pytest.raises(InterpError, match="parts of another request"):
            other.part(name, lambda: {"x": np.arange(4)})
    assert same.part("first", lambda: pytest.fail("it is there"))["x"].tolist() == [0, 1, 2]


def test_a_folder_is_claimed_by_one_of_two_at_once(tmp_path, monkeypatch):
    """The other writes its request between the look and the claim."""
    one, other = (Kept(tmp_path / "parts", {"seed": seed}) for seed in (0, 1))

    def meanwhile(place):
        make_folder(place)
        monkeypatch.setattr(kept_parts, "make_folder", make_folder)
        other.part("second", lambda: {"x": np.arange(4)})

    monkeypatch.setattr(kept_parts, "make_folder", meanwhile)
    with pytest.raises(InterpError, match="parts of another request"):
        one.part("first", lambda: {"x": np.arange(3)})
    assert not (tmp_path / "parts" / "first.safetensors").exists()
