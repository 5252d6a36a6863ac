"""What the live page knows, without a browser: states, changes and their effects, code."""

import numpy as np
import pytest
import torch
import xarray as xr

import analyses
import interp
from analyses.cascade import Replace, coupled
from analyses.explorer import parts
from analyses.explorer.address import from_address, to_address
from analyses.explorer.desk import Desk
from analyses.explorer.events import act, elsewhere, remark
from analyses.explorer.figures import most
from analyses.explorer.session import MOST_PAST, Session, called
from analyses.explorer.state import Change, State
from interp.errors import InterpError, TokenError
from interp.zoo import DEFAULT_PAIR

HOSTILE = "<script>alert(1)</script> & \"quotes\" 'and' \\ \n end"

CHANGES = (
    Change("patch", 1, 10),
    Change("patch", 0, 10, 1, site="z"),
    Change("ablate", 2, None, 1),
    Change("steer", 1, 3, amount=0.5, toward=" Mary", away=" John"),
    Change("inject", 0, 5, amount=0.2, seed=3),
    Change("steer", 2, None, amount=0.3, toward=" he", on=False),
)


@pytest.fixture(scope="module")
def desk(small_checkpoint) -> Desk:
    return Desk({str(small_checkpoint): interp.load(small_checkpoint)})


@pytest.fixture(scope="module")
def apart(desk, small_checkpoint) -> tuple[str, str]:
    """The answers that a random model tells the two texts apart by most."""
    with desk.models.use(str(small_checkpoint)) as model:
        clean, corrupt = (model(model.to_tokens(text))[0, -1] for text in (DEFAULT_PAIR.clean, DEFAULT_PAIR.corrupt))
        pieces = model.tokenizer.pieces((clean - corrupt).argsort().tolist())
    words = [piece for piece in pieces if piece.startswith(" ") and piece[1:].isalpha()]
    return words[-1], words[0]


@pytest.fixture
def state(small_checkpoint, apart) -> State:
    return State(str(small_checkpoint), DEFAULT_PAIR.clean, DEFAULT_PAIR.corrupt, *apart)


def known(do, session, number, **more):
    """An event about a change, as a tab sends it that shows this session."""
    return {"do": do, "number": number, "change": session.to_json()["state"]["changes"][number], **more}


# States, addresses, sessions


@pytest.mark.parametrize(
    "state",
    [
        State(),
        State("gpt2", HOSTILE, "x" + HOSTILE, " a", " b", "clean", 3, 4, 5, "z", "corrupt", "tuned", CHANGES, 0.3, 17),
        State(clean="When", temperature=0.0),
    ],
)
def test_an_address_gives_its_state_back(state):
    address = to_address(state)
    assert from_address(address) == state
    assert not set("<>\"' \n") & set(address)
    assert State.from_json(state.to_json()) == state


def test_an_address_that_names_no_prompt_takes_another():
    assert from_address("?layer=2", State(clean="So", seed=4)) == State(clean="So", seed=4, layer=2)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("?clean=a&layer=x", "holds no state"),
        ("?clean=a&layer=x", "layer must be a whole number; got 'x'"),
        ("?clean=a&layr=1", "no 'layr'. Did you mean 'layer'"),
        (
            '?clean=a&changes=[{"kind":"inject","layer":0,"position":1,"amount":1' + "0" * 400 + "}]",
            "amount must be a number",
        ),
        (
            '?clean=a&changes=[{"kind":"steer","layer":0,"position":1,"toward":"\\ud800"}]',
            "toward holds half a character",
        ),
        ('?clean=a&changes=[{"kind":"patch","layer":0,"site":"\\ud800"}]', "what is patched cannot be"),
        ('?clean=a&changes=[{"kind":"patch","layer":0,"\\udfff":1}]', "a change has no"),
        ("?clean=a&layer=-1", "layer must be a whole number from 0"),
        ("?clean=a&temperature=nan", "temperature must be a number"),
        ("?clean=a&temperature=1e9", "between 0 and 100"),
        ("?clean=a&changes=[1]", "no change"),
        ("?clean=a&changes={}", "changes are a list"),
        ("?clean=a&changes=" + "[" * 5000, "holds no state"),
        ('?clean=a&changes=[{"kind":"patch"}]', "a change has a layer"),
        ('?clean=a&changes=[{"kind":"burn","layer":1}]', "a change cannot be 'burn'"),
        ('?clean=a&changes=[{"kind":"ablate","layer":1}]', "say which head"),
        ('?clean=a&changes=[{"kind":"inject","layer":1}]', "one position"),
        ('?clean=a&changes=[{"kind":"steer","layer":1}]', "name a token"),
        ('?clean=a&changes=[{"kind":"patch","layer":1,"path":"x"}]', "no 'path'"),
        ('?clean=a&changes=[{"kind":"patch","layer":true}]', "layer must be"),
        ("?clean=" + "a" * 9000, "9,000 characters"),
        ("?clean=" + "a" * 70_000, "address is too long"),
        ("?clean=a&site=/etc/passwd", "what is patched cannot be"),
        ("?clean=%ff", "holds no state"),
    ],
)
def test_an_address_that_is_none_is_named(address, said):
    with pytest.raises(InterpError, match=said.replace("(", r"\(")):
        from_address(address)


def test_a_selection_that_a_model_does_not_have_is_named(desk, state):
    assert elsewhere(desk, state.but(layer=2, head=1, position=14)) == ""
    said = elsewhere(desk, state.but(layer=99, position=40))
    assert "no layer 99, position 40 in" in said
    assert said.endswith("layer 2, position 14 is selected.")


def test_more_changes_than_may_be_are_refused():
    with pytest.raises(InterpError, match="at most 24"):
        State.from_json({"changes": [{"kind": "patch", "layer": 0}] * 100})


def test_undo_takes_back_what_was_run_and_stays_at_its_place():
    first = Session(State(clean="a"))
    patched = first.to(first.state.but(changes=CHANGES[:1]))
    moved = patched.to(patched.state.but(layer=2, position=1))
    assert len(moved.past) == 1
    assert moved.undone().state == State(clean="a", layer=2, position=1)
    with pytest.raises(InterpError, match="nothing to undo"):
        moved.undone().undone()
    other = moved.to(moved.state.but(clean="b"))
    assert other.back(0).state.clean == "a"
    assert len(other.back(0).past) == 3
    with pytest.raises(InterpError, match="run 7"):
        other.back(7)
    assert Session.from_json(other.to_json()) == other
    assert called(patched.state) == "smalltown: 'a', 1 change"


def test_runs_that_differ_have_names_that_do():
    one = State(clean="a", corrupt="b", answer=" c", changes=CHANGES[:1])
    others = [
        one.but(clean="x"),
        one.but(corrupt="x"),
        one.but(answer=" x"),
        one.but(wrong=" x"),
        one.but(changed="clean"),
        one.but(changes=()),
    ]
    assert len({called(each) for each in (one, *others)}) == 7
    assert called(one) == "smalltown: 'a' against 'b', 1 change, answer ' c'"


def test_a_session_forgets_what_is_long_past():
    session = Session(State())
    for number in range(100):
        session = session.to(session.state.but(clean=str(number)))
    assert len(session.past) == MOST_PAST
    for given in ({}, [], {"state": 1}, {"state": {"clean": 3}}, {"state": {}, "past": {}}):
        with pytest.raises(InterpError):
            Session.from_json(given)


# Changes and what they do


def test_effects_equal_runs_with_hooks(desk, state):
    """Each change by itself and those that are on together, against plain forward passes."""
    state = state.but(changes=CHANGES)
    found, asked = desk.effects(state), desk.asked(state)
    with desk.models.use(state.model) as model:
        clean, corrupt = (model.to_tokens(text) for text in (state.clean, state.corrupt))
        cache, own = model.run_with_cache(clean)[1], model.run_with_cache(corrupt)[1]

        def patch(name, at, head=None):
            def hook(value, hook):
                where = (0, at) if head is None else (0, at, head)
                value[where] = cache[name][where]
                return value

            return {name: hook}

        def add(name, vector, size, at):
            vector = vector - vector.mean()
            stream = own[name][0] - own[name][0].mean(-1, keepdim=True)
            added = size * stream.norm(dim=-1, keepdim=True) * vector / vector.norm()

            def hook(value, hook):
                value[0, at] += added[at]
                return value

            return {name: hook}

        def ablate(value, hook):
            value[:, :, 1] = 0
            return value

        mary, john, he = (model.W_U[:, model.to_single_token(one)] for one in (" Mary", " John", " he"))
        random = torch.randn(1, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)[0].float()
        hooks = [
            patch("blocks.1.hook_resid_pre", 10),
            patch("blocks.0.attn.hook_z", 10, 1),
            {"blocks.2.attn.hook_z": ablate},
            add("blocks.1.hook_resid_pre", mary - john, 0.5, [3]),
            add("blocks.0.hook_resid_pre", random, 0.2, [5]),
            add("blocks.2.hook_resid_pre", he, 0.3, slice(None)),
        ]

        def difference(*chosen):
            with torch.no_grad():
                contexts = [model.hooks(one) for one in chosen]
                for context in contexts:
                    context.__enter__()
                logits = model(corrupt)[0, -1]
                for context in reversed(contexts):
                    context.__exit__(None, None, None)
            return float(logits[asked.answer] - logits[asked.wrong])

        expected = [difference(one) for one in hooks]
        together = difference(*hooks[:5])
    assert [one.metric for one in found.alone] == pytest.approx(expected, abs=2e-5)
    assert found.together.metric == pytest.approx(together, abs=2e-5)
    base = found.runs["corrupt"].metric
    assert [one.moved for one in found.alone] == pytest.approx([value - base for value in expected], abs=4e-5)
    assert len({round(value, 4) for value in expected}) == 6


def test_a_patch_of_the_whole_stream_gives_the_other_run(desk, state):
    found = desk.effects(state.but(changes=(Change("patch", 0),)))
    assert found.together.share == pytest.approx(1.0, abs=1e-5)
    assert found.runs["changed"].tokens[0][0] == found.runs["clean"].tokens[0][0]
    back = desk.effects(state.but(changed="clean", changes=(Change("patch", 0),)))
    assert back.runs["changed"].metric == pytest.approx(found.runs["corrupt"].metric, abs=1e-5)


def test_predictions_without_changes_are_the_models(desk, state):
    found = desk.effects(state)
    assert (found.alone, found.together, set(found.runs)) == ((), None, {"clean", "corrupt"})
    with desk.models.use(state.model) as model:
        p = model(model.to_tokens(state.corrupt))[0, -1].softmax(-1)
    assert [value for _, value in found.runs["corrupt"].tokens] == pytest.approx(p.topk(8).values.tolist(), rel=1e-5)


def test_one_text_alone_has_views_too(desk, state):
    alone = state.but(corrupt="", wrong="", changes=(Change("ablate", 0, None, 0),))
    found = desk.effects(alone)
    assert set(found.runs) == {"clean", "changed"}
    assert found.together.share is None
    assert desk.result("lens", alone)["token"].shape == (1, 15)
    for name, said in (
        ("patching", "write a corrupt one"),
        ("lens_corrupt", "no corrupt text"),
        ("cone", "No disturbance"),
    ):
        with pytest.raises(InterpError, match=said):
            desk.result(name, alone)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Change("patch", 7, 0), "layers 0 to 2"),
        (Change("ablate", 0, None, 9), "heads 0 to 1"),
        (Change("patch", 0, 40), "positions 0 to 14"),
        (Change("steer", 0, 0, toward=" several tokens"), "several tokens"),
    ],
)
def test_a_change_that_cannot_be_made_is_named(desk, state, change, said):
    with pytest.raises(InterpError, match=said):
        desk.effects(state.but(changes=(change,)))


def test_a_change_that_cannot_be_made_is_left_out_and_stays_in_the_list(desk, state):
    """In another model or text, or of an address: the rest is shown, and it can be switched off and removed."""
    lost = (Change("patch", 99, 1), Change("steer", 0, 0, toward=" several tokens"), Change("patch", 0, 40))
    mixed = state.but(changes=(lost[0], CHANGES[0], *lost[1:]))
    whys = desk.obstacles(mixed)
    assert [bool(why) for why in whys] == [True, False, True, True]
    assert "layers 0 to 2" in whys[0]
    assert desk.possible(mixed) == state.but(changes=CHANGES[:1])
    told = parts.effects(desk.effects(desk.possible(mixed)), mixed, whys)
    assert [one["problem"] for one in told["changes"]] == list(whys)
    alone = desk.effects(state.but(changes=CHANGES[:1])).alone[0]
    assert told["changes"][1]["numbers"][0] == f"{alone.moved:+.4f}"
    assert {one["run"] for one in told["runs"]} == {"clean", "corrupt", "changed"}
    assert desk.python(mixed) == desk.python(state.but(changes=CHANGES[:1]))
    session = Session(mixed)
    assert not act(desk, session, known("switch", session, 0)).state.changes[0].on
    assert act(desk, session, known("remove", session, 0)).state.changes == (CHANGES[0], *lost[1:])
    longer = act(desk, session, {"do": "set", "name": "corrupt", "value": "Paris is"}).state
    assert all(desk.obstacles(longer))


def test_undo_goes_back_to_a_position_that_is_there(desk, state):
    longer = act(desk, Session(state), {"do": "set", "name": "corrupt", "value": state.corrupt + " the" * 8})
    last = act(desk, longer, {"do": "select", "position": 22})
    assert last.state.position == 22
    assert act(desk, last, {"do": "undo"}).state.position == 14
    assert act(desk, last, {"do": "back", "number": 0}).state.position == 14


def test_each_amount_is_dosed_and_undone_by_itself(desk, state):
    session = Session(state.but(changes=(Change("inject", 0, 5), Change("steer", 1, 3, toward=" he"))))
    for number, amount in ((0, 0.2), (0, 0.3), (1, 0.5), (1, 0.6)):
        session = act(desk, session, known("dose", session, number, amount=amount))
    seen = [[one.amount for one in session.state.changes]]
    while session.past:
        session = act(desk, session, {"do": "undo"})
        seen.append([one.amount for one in session.state.changes])
    assert seen == [[0.3, 0.6], [0.3, 0.1], [0.1, 0.1]]
    for name, value in (("changed", "clean"), ("answer", ""), ("wrong", "")):
        between = act(desk, session, known("dose", session, 0, amount=0.2))
        between = act(desk, between, {"do": "set", "name": name, "value": value})
        back = act(desk, act(desk, between, known("dose", session, 0, amount=0.4)), {"do": "undo"})
        assert back.state == between.state, name
    ablated = Session(state.but(changes=(Change("ablate", 0, None, 0),)))
    with pytest.raises(InterpError, match="no dose"):
        act(desk, ablated, known("dose", ablated, 0, amount=1.0))


def test_a_change_is_the_one_that_was_meant_wherever_it_has_gone(desk, state):
    """An event is about the list that the tab showed; by the time that it is answered others may have gone, or its dose."""
    session = Session(state.but(changes=CHANGES))
    fewer = act(desk, session, known("remove", session, 0))
    with pytest.raises(InterpError, match="that change is no longer there"):
        act(desk, fewer, known("remove", session, 0))
    assert act(desk, fewer, known("remove", session, 1)).state.changes == CHANGES[2:]
    switched = act(desk, fewer, known("switch", session, 4)).state.changes
    assert [one.on for one in switched] == [True, True, True, False, False]
    assert act(desk, fewer, known("dose", session, 4, amount=0.7)).state.changes[3].amount == 0.7
    dosed = act(desk, session, known("dose", session, 4, amount=0.7))
    assert act(desk, dosed, known("remove", session, 4)).state.changes == (*CHANGES[:4], CHANGES[5])
    twice = Session(state.but(changes=(CHANGES[4], CHANGES[3], CHANGES[4])))
    assert act(desk, twice, known("remove", twice, 2)).state.changes == (CHANGES[4], CHANGES[3])


def test_only_a_token_can_be_dropped_and_elsewhere_it_says_where_it_goes(desk, state):
    event = {"do": "drop", "position": 10, "onto": 4}
    assert act(desk, Session(state), event).state.changes == (Change("patch", 0, 10),)
    assert "at position 10" in remark(event)
    assert remark(event | {"onto": 10}) == remark({"do": "drop", "position": 10}) == ""
    with pytest.raises(InterpError, match="token that is dropped must be"):
        act(desk, Session(state), {"do": "drop"})


def test_texts_of_unequal_length_can_be_read_and_not_patched(desk, state):
    longer = state.but(corrupt=state.corrupt + " the")
    assert set(desk.effects(longer).runs) == {"clean", "corrupt"}
    assert desk.asked(longer).differing() == [10, 15]
    with pytest.raises(InterpError, match="15 tokens and the corrupt one 16"):
        desk.effects(longer.but(changes=(Change("patch", 0, 0),)))
    for ask in (lambda: desk.result("patching", longer), lambda: desk.start_circuit(longer)):
        with pytest.raises(InterpError, match=r"corrupt one 16; they must match token by token\.$"):
            ask()


def test_what_cannot_be_read_is_said(desk, state):
    with pytest.raises(InterpError, match="501 tokens; small takes at most 256"):
        desk.asked(state.but(clean=" the" * 500))
    with pytest.raises(InterpError, match="clean text is empty"):
        desk.asked(State(state.model))
    with pytest.raises(TokenError):
        desk.asked(state.but(answer=" several tokens here"))
    with pytest.raises(InterpError, match="no model '/etc/passwd' here"):
        desk.asked(state.but(model="/etc/passwd"))
    with pytest.raises(InterpError, match="no view 'secrets'"):
        desk.result("secrets", state)
    same = state.but(answer=" Mary", wrong=" Mary")
    with pytest.raises(InterpError, match="both ' Mary'"):
        desk.result("patching", same)


# Views and code


def test_copied_code_gives_the_numbers_of_the_page(desk, state):
    state = state.but(changes=CHANGES, layer=1, head=1)
    space: dict[str, object] = {}
    exec(desk.python(state, steps=6), space)
    found = desk.effects(state)
    values = [one.metric for one in (*found.alone, found.together)]
    np.testing.assert_allclose(space["metric"].numpy(), values, rtol=1e-6)
    np.testing.assert_allclose(
        space["kl"].numpy(), [one.kl for one in (*found.alone, found.together)], rtol=1e-3, atol=1e-9
    )
    for name in ("lens", "lens_corrupt", "attention", "attention_corrupt", "patching", "attribution", "cone", "gain"):
        xr.testing.assert_identical(space[name].drop_attrs(), desk.result(name, state).drop_attrs())
    np.testing.assert_array_equal(space["pattern"], desk.result("attention", state)["pattern"][0, 1, 1])
    live = desk.lives.to(state, 6, 60.0)
    assert space["texts"]["token"][0, 0].to_numpy().tolist() == live.tokens[0]
    np.testing.assert_allclose(space["texts"]["kl"][0, 0], live.kl, rtol=1e-9)


def test_hostile_text_stays_text_in_copied_code(desk, state):
    state = state.but(
        clean=HOSTILE, corrupt=HOSTILE + " a", changes=(Change("ablate", 0, None, 0),), answer="", wrong=""
    )
    space: dict[str, object] = {}
    exec(desk.python(state), space)
    assert (space["clean"], space["corrupt"]) == (state.clean, state.corrupt)


def test_the_light_cone_at_one_place_is_that_of_all(desk, state):
    with desk.models.use(state.model) as model:
        direction = torch.randn(1, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        whole = analyses.cascade.light_cone(model, state.corrupt, dose=0.2, directions=direction, n_directions=1)
        one = analyses.cascade.light_cone(
            model, state.corrupt, dose=0.2, directions=direction, n_directions=1, positions=[-10]
        )
    shown = desk.result("cone", state.but(changes=CHANGES))
    xr.testing.assert_allclose(one["share"].sel(injection=5), whole["share"].sel(injection=5))
    xr.testing.assert_identical(one.drop_attrs(), shown.drop_attrs())
    assert one["injection"].to_numpy()[0] == 5
    assert bool(one["share"].sel(injection=6).isnull().all())
    with (
        desk.models.use(state.model) as model,
        pytest.raises(InterpError, match="list of positions is empty"),
    ):
        analyses.cascade.gain(model, state.corrupt, positions=[])


def test_results_are_kept_by_what_they_depend_on(desk, state):
    assert desk.result("lens", state) is desk.result("lens", state.but(layer=2, corrupt="Other", changes=()))
    assert desk.result("patching", state) is not desk.result("patching", state.but(site="z"))
    cone = desk.result("cone", state.but(changes=CHANGES))
    assert cone is desk.result("cone", state.but(changes=CHANGES[4:]))


# Texts side by side


def test_texts_are_those_of_coupled_however_they_are_asked_for(desk, state):
    state = state.but(temperature=0.8, seed=5)
    for steps in (1, 4, 9):
        live = desk.lives.to(state, steps, 60.0)
    with desk.models.use(state.model) as model:
        whole = coupled(model, state.clean, Replace([state.corrupt]), seeds=1, steps=9, temperature=0.8, seed=5)
    assert [whole[name][0, 0].to_numpy().tolist() for name in ("token", "other_token")] == list(live.tokens)
    for name in ("kl", "h"):
        np.testing.assert_allclose(whole[name][0, 0], getattr(live, name), rtol=1e-9)
    assert desk.lives.to(state.but(seed=6), 9, 60.0).tokens != live.tokens
    assert len(desk.lives.to(state.but(seed=7), 9, 0.0).kl) == 1


def test_texts_end_with_the_context(desk, state):
    live = desk.lives.to(state, 10_000, 60.0)
    assert len(live.kl) == live.most
    with pytest.raises(InterpError, match="as long as they can be"):
        live.step()
    with pytest.raises(InterpError, match="corrupt one too"):
        desk.lives.to(state.but(corrupt=""), 1, 1.0)


# Circuits and examples


def test_a_circuit_is_there_when_its_work_is_done(desk, state):
    assert desk.circuit(state) is None
    desk.jobs.get(desk.start_circuit(state)).wait(60.0)
    with desk.models.use(state.model) as model:
        whole = analyses.edge_patching(model, state.clean, state.corrupt, answer=state.answer, wrong=state.wrong)
    xr.testing.assert_identical(desk.circuit(state).drop_attrs(), whole.drop_attrs())


@pytest.mark.parametrize("named", [True, False])
def test_copied_code_gives_the_circuit_that_is_shown(small_checkpoint, state, named):
    desk = Desk({str(small_checkpoint): interp.load(small_checkpoint)})
    state = state if named else state.but(wrong="")
    assert "edge_patching" not in desk.python(state)
    desk.jobs.get(desk.start_circuit(state)).wait(60.0)
    space: dict[str, object] = {}
    exec(desk.python(state.but(layer=1, changes=CHANGES)), space)
    xr.testing.assert_identical(space["edges"].drop_attrs(), desk.circuit(state).drop_attrs())
    assert space["circuit"].edges == most(desk.circuit(state)).edges
    assert len(space["circuit"].edges) > 1
    assert "edge_patching" not in desk.python(state.but(clean="Other words", corrupt=""))


def test_examples_are_pairs_of_tasks(desk, state):
    shown = desk.example(state, "ioi", 3)
    assert shown.clean != shown.corrupt
    assert desk.asked(shown).aligned
    with pytest.raises(InterpError, match="unknown task"):
        desk.example(state, "<b>", 0)
