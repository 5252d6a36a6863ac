"""Every sentence, caption and title that says what was found: each of its branches, from numbers set by hand."""

import json

import numpy as np
import pytest
import xarray as xr

from analyses import plots
from analyses.report.cascade_sentences import (
    BEFORE,
    before_training,
    commitment_read,
    control_sentence,
    external_sentence,
    gain_sentence,
    internal_sentence,
    picture_sentence,
    precision_read,
    rasters_read,
    regions_read,
    repair_read,
    verdict_read,
    wavefront_read,
)
from analyses.report.circuit import _beside_random
from analyses.report.heads import first_head
from analyses.report.sections import sections
from analyses.report.sentences import (
    agreement,
    attribution_sentence,
    course,
    detectors_sentence,
    gap_between,
    heads_sentence,
    lens_sentence,
    listed,
    patching_sentence,
    stream_sentence,
)
from interp.errors import ResultError

NAN = np.nan


def about(**parameters):
    return {"parameters": json.dumps(parameters), "model_config": json.dumps({"causal": True})}


def changed(result, **values):
    """A copy in which variables hold other values, or one value throughout."""
    found = result.copy(deep=True)
    for name, value in values.items():
        found[name] = (found[name].dims, np.broadcast_to(value, found[name].shape).copy(), found[name].attrs)
    return found


def lens(stands, probability=0.5):
    steps = [0, 0.5, 1, 1.5, 2]
    return xr.Dataset(
        {
            "top_token": (("prompt", "layer", "position", "top"), np.full((1, 5, 1, 1), " <Mary", dtype=object)),
            "top_probability": (("prompt", "layer", "position", "top"), np.full((1, 5, 1, 1), probability)),
            "stands_from": (("prompt", "position"), [[stands]]),
        },
        {"layer": steps},
    )


@pytest.mark.parametrize(
    ("stands", "said"),
    [
        (1.0, "it leads from the stream entering layer 1 on."),
        (0.5, "it leads from layer 0's attention on."),
        (2.0, "it leads only at the output."),
        (NAN, "from where up it leads is not known."),
    ],
)
def test_the_lens(stands, said):
    assert lens_sentence(lens(stands)) == f"The model's next token is “·<Mary” (probability 0.500); {said}"
    with pytest.raises(ResultError, match="no number"):
        lens_sentence(lens(stands, NAN))


def patched(effect, metric="logit_difference"):
    effect = np.array(effect, dtype=float)
    return xr.Dataset(
        {
            "effect": (("prompt", "layer", "position"), effect[None]),
            "clean_baseline": ("prompt", [3.0]),
            "corrupt_baseline": ("prompt", [-1.0]),
        },
        {"clean_token": (("prompt", "position"), np.array([list("abc")], dtype=object))},
        about(metric=metric),
    )


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        (
            [[0, 0.9, 0], [0, 0.1, 0.7]],
            "layer 0 at position 1 (“b”) restores 90% of it, and entering the last layer position 2 (“c”) restores most there, 70%.",
        ),
        (
            [[0, 0.9, 0], [0, 0.01, 0.02]],
            "restores 90% of it, and entering the last layer no single position restores more than 2%.",
        ),
        ([[0, 0.1, 0], [0, 0.1, 1.2]], "entering layer 1 at position 2 (“c”) restores 120% of it, most of all places."),
        ([[0, 0.9, 0], [NAN, NAN, NAN]], "restores 90% of it, most of all places."),
        (
            [[0, 0.01, 0], [0, 0, -2]],
            "the clean stream restores next to nothing of it at any single place (at most 1%).",
        ),
        ([[NAN] * 3] * 2, "the effect of no patch is a number."),
    ],
)
def test_patching(effect, said):
    sentence = patching_sentence(patched(effect))
    assert sentence.startswith("The logit difference is 3.00 in the clean run and -1.00 in the corrupt run; ")
    assert sentence.endswith(said)
    assert patching_sentence(patched(effect, "probability")).startswith("The probability is")


def square(*pairs):
    """Rank correlations of three methods."""
    first, second, third = pairs
    return np.array([[1, first, second], [first, 1, third], [second, third, 1]])


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ((0.8, 0.9, 1.0), "3 methods of patching agree on their order (rank correlations from 0.80 to 1.00)"),
        ((0.5, 0.9, 1.0), "agree in part on their order (rank correlations from 0.50 to 1.00)"),
        ((0.14, 0.69, 0.3), "disagree on their order, some of them more than others (rank correlations from 0.14 to"),
        ((-0.2, 0.1, 0.3), "disagree on their order (rank correlations from -0.20 to 0.30)"),
        (
            (NAN, 0.1, 0.3),
            "disagree on their order (rank correlations from 0.10 to 0.30; 1 of 3 pairs cannot be compared)",
        ),
        ((NAN, NAN, 0.9), "agree on their order (rank correlation 0.90; 2 of 3 pairs cannot be compared)"),
        ((NAN, NAN, NAN), "the orders that 3 methods of patching put heads in cannot be compared"),
    ],
)
def test_methods_agree_only_where_they_do(pairs, said):
    assert said in agreement(square(*pairs))


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        ([[0.5, 0.1], [0.2, -1]], "Of single heads, 0.0 (50%), 1.0 (20%) and 0.1 (10%) restore most; "),
        ([[0.5, 0.1], [0.02, NAN]], "Of single heads, 0.0 (50%) and 0.1 (10%) restore most; "),
        ([[0.0, 0.1], [0.02, -1]], "Of single heads, 0.1 (10%) restores most; "),
        ([[-0.3, 0.01], [0.02, NAN]], "No single head restores much (at most 2%, 1.0); "),
        ([[NAN, NAN], [NAN, NAN]], "The effect of no single head is a number; "),
    ],
)
def test_heads(effect, said):
    heads = xr.Dataset({"effect": (("prompt", "layer", "head"), np.array([effect], dtype=float))})
    methods = xr.Dataset({"rank_correlation": (("variant", "other"), square(0.9, 0.9, 0.9))})
    assert heads_sentence(heads, methods).startswith(said)


def test_detectors():
    dims = ("layer", "head")
    table = xr.Dataset({"previous_token": (dims, [[0.1, 0.6]]), "induction": (dims, [[0.05, 0.04]])})
    assert detectors_sentence(table) == (
        "On repeated random tokens these heads attend most: to the token before 0.1 (60%), to what followed the token's earlier "
        "occurrence none much (at most 0.0 (5%))."
    )
    assert "earlier occurrence not known." in detectors_sentence(table.assign(induction=(dims, [[NAN, NAN]])))
    assert "to the token before 0.1 (60%)" in detectors_sentence(table.assign(previous_token=(dims, [[NAN, 0.6]])))
    assert first_head(table, "induction") == (0, 0)
    assert first_head(table.assign(induction=(dims, [[NAN, 0.04]])), "induction") == (0, 1)


@pytest.mark.parametrize(
    ("direct", "total", "said"),
    [
        (0.01, 6.59, "head 0.1 works through later parts (it costs +0.01 to take it from the sum alone, and +6.59 to"),
        (2.0, 6.0, "head 0.1 works through later parts"),
        (-2.0, -6.0, "head 0.1 works through later parts"),
        (0.01, -6.0, "head 0.1 works through later parts"),
        (6.0, 2.0, "later parts make up for head 0.1 (it costs +6.00 to take it from the sum alone, and +2.00 to"),
        (-6.0, -2.0, "later parts make up for head 0.1"),
        (6.0, 0.01, "later parts make up for head 0.1"),
        (6.0, -0.01, "later parts make up for head 0.1"),
        (6.0, -3.0, "later parts turn round what head 0.1 does"),
        (-3.0, 6.0, "later parts turn round what head 0.1 does"),
        (3.0, 3.1, "later parts neither make up for head 0.1 nor does it work through them"),
    ],
)
def test_a_gap_between_direct_and_total_effect_is_repair_only_where_less_is_lost(direct, total, said):
    assert gap_between("0.1", direct, total, 10.0).startswith(said)
    if "neither" not in said:
        repair = xr.Dataset({"direct": ("prompt", [direct]), "total": ("prompt", [total])}, attrs=about(head=[0, 1]))
        assert said.split(" (")[0] in repair_read(repair)


def attributed(effect, direct=((0.0, 0.0),), total=((0.0, 5.0),)):
    dims = ("prompt", "layer", "head")
    return xr.Dataset(
        {
            "component_effect": (("prompt", "component"), [effect]),
            "replaced_effect": (dims, [direct]),
            "total_effect": (dims, [total]),
            "metric": ("prompt", [4.0], {"units": "logits", "long_name": "logit difference"}),
        },
        {"component": ["0_attn", "0.mlp"]},
    )


def test_attribution():
    begin = "Of the logit difference of 4.00 logits, "
    assert attribution_sentence(attributed([5.0, -1.0])).startswith(
        f"{begin}0 attn writes +5.00 and 0.mlp -1.00; head 0.1 works through later parts"
    )
    assert "0 attn writes +5.00, and no part against it; " in attribution_sentence(attributed([5.0, 1.0]))
    assert "no part writes towards it, and 0.mlp -5.00 against it; " in attribution_sentence(attributed([-1.0, -5.0]))
    assert attribution_sentence(attributed([5.0, NAN])) == f"{begin}what the parts write is not known."
    unknown = attributed([5.0, -1.0], total=((NAN, NAN),))
    assert attribution_sentence(unknown) == f"{begin}0 attn writes +5.00 and 0.mlp -1.00."


@pytest.mark.parametrize(
    ("norms", "massive", "said"),
    [
        ([1.0, 9.0], 0, "The norm of the stream grows from 1.0 to 9.0 (mean over tokens; the first has at most 9.0); no massive "
         "activations."),
        ([9.0, 1.0], 1, "shrinks from 9.0 to 1.0 (mean over tokens; the first has at most 9.0); 1 massive activation."),
        ([5.0, 5.05], 2, "goes from 5.0 to 5.0 (mean over tokens; the first has at most 5.0); 2 massive activations."),
        ([NAN, NAN], 0, "cannot be told from a single token"),
    ],
)  # fmt: skip
def test_the_stream(norms, massive, said):
    first = [5.0, 5.0] if np.isnan(norms[0]) else norms
    stream = xr.Dataset(
        {
            "mean_norm": (("prompt", "step"), [norms]),
            "first_norm": (("prompt", "step"), [first]),
            "massive": (("prompt", "step"), [[massive, 0]]),
            "set_apart": (("prompt", "position"), [[False, False]]),
        }
    )
    assert said in stream_sentence(stream)
    assert "1 set apart" in stream_sentence(stream.assign(set_apart=(("prompt", "position"), [[True, False]])))


def test_small_words():
    assert [course(ratio, "still") for ratio in (1.5, 0.5, 1.01, 0.99)] == ["grows", "shrinks", "still", "still"]
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def grown(absolute, relative, rounding=0.0):
    dims = ("prompt", "layer")
    logs = {
        name: (dims, [[0.0, np.log(one)] for one in values])
        for name, values in (("log_gain", absolute), ("log_relative_gain", relative))
    }
    return xr.Dataset({**logs, "rounding": (dims, [[0.0, rounding]] * len(absolute))}, {"layer": [0, 1]}, about())


@pytest.mark.parametrize(
    ("relative", "said"),
    [
        ([2.0], "it grows on site by a factor of 2.00 (typical Γ)."),
        ([0.5], "it shrinks on site by a factor of 0.50 (typical Γ)."),
        ([1.01], "it keeps its size on site, to 1.01 of it (typical Γ)."),
    ],
)
def test_gain(relative, said):
    assert gain_sentence(grown([3.0], relative)).endswith(said)
    assert "is 3.00 times as large" in gain_sentence(grown([3.0], relative))
    assert gain_sentence(grown([NAN], relative)).endswith("how large it is at the output is not known.")


def test_gain_of_several_prompts_is_the_typical_one():
    assert "is 4.00 times as large" in gain_sentence(grown([2.0, 8.0], [1.0, 4.0]))
    assert "grows on site by a factor of 2.00" in gain_sentence(grown([2.0, 8.0], [1.0, 4.0]))


def test_the_control_says_what_it_showed():
    assert control_sentence(grown([2.0], [1.0])) == (
        "The same run with a dose of zero moved nothing; no position before the injection was reached."
    )
    assert "differed by 1.0e-04 of the disturbance at most" in control_sentence(grown([2.0], [1.0], 1e-4))
    both_ways = grown([2.0], [1.0]).assign_attrs(model_config=json.dumps({"causal": False}))
    assert control_sentence(both_ways) == "The same run with a dose of zero moved nothing."


def verdict(slopes=(-0.1, -0.2), label="piano string", reason="", null=None, prompts=6):
    subjects = ["trained"] if null is None else ["trained", "twin", "difference"]
    values = np.array([slopes, (-0.05, 0.1), (-0.05, -0.3)])[: len(subjects), :, None]
    data = {
        "slope_mean": (("subject", "reach", "start"), values),
        "margin": 0.02,
        "prompts": prompts,
        "verdict": label,
        "reason": reason,
    }
    data |= {} if null is None else {"null_verdict": null[0], "null_reason": null[1], "difference": "pile"}
    return xr.Dataset(data, {"subject": subjects, "reach": ["on site", "all positions"], "start": ["one block above"]})


def test_the_internal_verdict():
    assert internal_sentence(verdict()) == (
        "Above the first block ln Γ changes by -0.100 on site and -0.200 over all positions per layer, of which ±0.020 counts as none, in "
        "6 prompts: piano string."
    )
    told = internal_sentence(verdict(null=("pile", ""), label="undetermined", reason="1 of 3", prompts=1))
    assert "(less the same before training, -0.050 on site and -0.300 over all positions)" in told
    assert told.endswith("in 1 prompt: undetermined (1 of 3).")
    assert internal_sentence(verdict((NAN, NAN), "undetermined", "a single block")) == (
        "Of the growth of ln Γ above the first block nothing can be said: undetermined (a single block)."
    )


def test_the_caption_of_the_verdict_says_of_the_twin_what_was_found_of_it():
    for label in ("piano string", "pile", "near-critical"):
        assert f"the same architecture before training ({label}): what training" in verdict_read(
            verdict(null=(label, ""))
        )
    assert "before training" not in verdict_read(verdict())


def test_what_stands_beside_says_whose_head_it_is():
    own, same, other = (xr.Dataset(attrs=about(head=head)) for head in ([4, 2], [4, 2], [5, 3]))
    assert before_training(own, same) == BEFORE
    assert before_training(own, other).startswith(
        "Before training, of another head: there 5.3 writes most for the answer, and not 4.2."
    )
    assert before_training(xr.Dataset(attrs=about()), xr.Dataset(attrs=about())) == BEFORE


@pytest.mark.parametrize(
    ("r", "bounds", "label", "reason", "prompts", "said"),
    [
        (1.5, (1.2, 1.8), "pile", "", 6, "each changed token changes 1.50 others (1.20 to 1.80) (6 prompts of 8 draws): pile."),
        (0.9, (0.7, 1.1), "undetermined", "the interval holds 1", 6, "0.90 others (0.70 to 1.10) (6 prompts of 8 draws): undetermined "
         "(the interval holds 1)."),
        (0.9, (NAN, NAN), "undetermined", "1 of 6", 1, "changes 0.90 others (1 prompt of 8 draws): undetermined (1 of 6)."),
        (NAN, (NAN, NAN), "piano string", "", 6, "a changed token changes is not known (6 prompts of 8 draws): piano string."),
    ],
)  # fmt: skip
def test_the_external_verdict(r, bounds, label, reason, prompts, said):
    found = xr.Dataset(
        {
            "survival_share_mean": 0.25,
            "r": r,
            "r_interval": ("bound", list(bounds)),
            "prompts": prompts,
            "verdict": label,
            "reason": reason,
        },
        attrs=about(seeds=8, steps=64, temperature=1.0),
    )
    sentence = external_sentence(found)
    assert "at temperature 1, 25% of the texts still differ at the end of 64 tokens, and " in sentence
    assert sentence.endswith(said)


@pytest.mark.parametrize(
    ("value", "at_random", "said"),
    [
        (0.9, [0.1, 0.2], ", where random circuits of as many edges keep 0.15 on the mean"),
        (0.1, [0.9, 1.0], ", where random circuits of as many edges keep 0.95 on the mean, which is no worse"),
        (3.0, [0.1, NAN], ", where random circuits of as many edges keep 0.10 on the mean, which is no worse"),
        (0.9, [], ""),
        (0.9, [NAN], ""),
        (NAN, [0.1], ""),
    ],
)
def test_a_circuit_beside_random_ones(value, at_random, said):
    assert _beside_random(value, np.array(at_random)) == said


def title(figure):
    return figure.layout.title.text


@pytest.mark.parametrize(
    ("inside", "outside", "agree", "said"),
    [
        ("pile", "pile", True, "they agree"),
        ("pile", "piano string", False, "they differ"),
        ("undetermined", "piano string", False, "not compared"),
        ("pile", "undetermined", False, "not compared"),
        ("undetermined", "undetermined", False, "not compared"),
    ],
)
def test_verdicts_differ_only_where_both_are_told(measured, inside, outside, agree, said):
    joined = changed(measured("joined_verdict"), agree=agree).assign(inside=inside, outside=outside)
    assert f": {said} · " in title(plots.plot(joined))


@pytest.mark.parametrize(
    ("growth", "bounds", "peaks", "said"),
    [
        (0.9, (0.5, 1.2), 1.0, "the peak of χ grows with length to the power 0.90 (0.50 to 1.20)"),
        (-0.9, (-1.2, -0.5), 1.0, "the peak of χ falls with length to the power -0.90"),
        (0.1, (-0.5, 0.6), 1.0, "the peak of χ does not surely grow with length: to the power 0.10"),
        (
            0.9,
            (0.5, 1.2),
            NAN,
            "the largest χ, at an end of the range and no peak, grows with length to the power 0.90",
        ),
        (
            NAN,
            (NAN, NAN),
            NAN,
            "whether the largest χ, at an end of the range and no peak, grows with length is not told",
        ),
    ],
)
def test_a_peak_is_spoken_of_only_where_there_is_one(measured, growth, bounds, peaks, said):
    swept = changed(
        measured("cascade_temperature"), peak_growth=growth, peak_growth_interval=bounds, peak_temperature=peaks
    )
    assert said in title(plots.plot(swept))


def test_a_test_is_named_only_where_there_is_a_p(measured):
    directions = measured("cascade_directions")
    for p, told in ((0.2, True), (NAN, False)):
        assert ("p by t-test" in title(plots.plot(changed(directions, p_holm=p)))) is told


def test_no_figure_calls_an_indirect_effect_repair(measured):
    for kind in ("direct_logit_attribution", "self_repair"):
        figure = plots.plot(measured(kind))
        said = " ".join([title(figure), *(note.text for note in figure.layout.annotations)])
        assert "self-repair" not in said
        assert "Who makes up" not in said


def test_the_head_that_is_shown_says_why(measured):
    attention = measured("attention_patterns")
    read = {one.name: one.read for part in sections({"attention": attention}) for one in part.figures}["pattern"]
    assert "chosen because its last position attends most to one earlier token" in read
    head = {one.name: one.read for part in sections({"attention": attention}, (0, 0)) for one in part.figures}[
        "pattern"
    ]
    assert head.startswith(
        "Head 0.0. A row shows how one token shares its attention, which sums to 1, over itself and the"
    )


@pytest.mark.parametrize(
    ("lost", "signal", "said"),
    [
        (0.0, [1, 1, 1], "not even half are lost at the smallest dose, and at every dose half or more are the signal's."),
        (1e-6, [0, 0, 0.5], "half or more are lost up to a dose of 1e-06, and from a dose of 1e-02 on half or more are the signal's."),
        (1e-6, [1, 0, 1], "and from a dose of 1e-02 on half or more are the signal's."),
        (1e-2, [0, 1, 0], "and at the largest dose less than half are the signal's."),
    ],
)  # fmt: skip
def test_what_rounding_loses(lost, signal, said):
    found = xr.Dataset(
        {
            "regime_share": (("regime", "precision", "dose", "prompt"), np.array(signal, dtype=float)[None, None, :, None]),
            "lost_median": ("precision", [lost]),
        },
        {"regime": ["signal-dominated"], "precision": ["bfloat16"], "dose": [1e-6, 1e-4, 1e-2]},
    )  # fmt: skip
    assert precision_read(found).endswith(said)
    assert " Here in bfloat16 " in precision_read(found)


@pytest.mark.parametrize(
    ("slope", "inverse", "bounds", "said"),
    [
        ([NAN, NAN], [0.5, 0.5], None, "Here both prompts have the same stream there, so that there is no way to go."),
        ([NAN, 1.04], [0.5, 0.5], None, "nearly even at every layer that was looked at: its largest slope is 1.04; 1/p is 0.50."),
        ([3.0, 1.5], [0.2, 0.5], None, "steepest entering layer 2, with slope 3.00; 1/p is 0.20 to 0.50."),
        ([3.0, 1.5], [NAN, NAN], (2.5, 3.5), "with slope 3.00 (2.50 to 3.50, of the layer picked as steepest); 1/p is not known."),
        ([3.0, NAN], [0.5, 0.5], (2.5, 3.5), "with slope 3.00 (2.50 to 3.50); 1/p is 0.50."),
        ([3.0, 1.5], [NAN, 0.1], (NAN, NAN), "with slope 3.00; 1/p is 0.10."),
    ],
)  # fmt: skip
def test_stable_regions(slope, inverse, bounds, said):
    found = xr.Dataset(
        {"slope": (("prompt", "layer"), [slope]), "inverse_exponent": (("prompt", "layer"), [inverse])},
        {"layer": [2, 5]},
    )
    if bounds is not None:
        found["slope_interval"] = (("bound", "layer"), np.array([bounds, bounds]).T)
    assert regions_read(found).endswith(said)


@pytest.mark.parametrize(
    ("values", "bounds", "said"),
    [
        ([0.2, 0.3], (0.1, 0.4), "from layer to layer it is +0.250 (+0.100 to +0.400), more than chance."),
        ([-0.2, -0.3], (-0.4, -0.1), "it is -0.250 (-0.400 to -0.100), less than chance."),
        ([0.2, NAN], (-0.1, 0.4), "it is +0.200 (-0.100 to +0.400), not told from chance."),
        ([3e-17, 3e-17], (3e-17, 3e-17), "it is +0.000 (+0.000 to +0.000), not told from chance."),
        ([0.2, 0.3], (NAN, NAN), "it is +0.250, without an interval."),
        ([0.2], None, "it is +0.200, without an interval."),
        ([NAN], None, "it is not known, since nothing is disturbed or everything is."),
    ],
)
def test_rasters_are_told_from_chance_only_where_the_interval_is(values, bounds, said):
    dims = ("null", "raster", "prompt")
    found = xr.Dataset({"difference": (dims, [[values]])}, {"null": ["permuted"], "raster": ["depth"]}, about(rate=0.2))
    if bounds is not None:
        found["difference_interval"] = (("bound", "null", "raster"), np.array(bounds)[:, None, None])
    sentence = rasters_read(found)
    assert sentence.endswith(said)
    assert sentence.startswith("Left, the 20% of places")
    both = xr.concat([found, found], "raster").assign_coords(raster=["depth", "text"])
    assert "; from step to step of the text it is" in rasters_read(both)


@pytest.mark.parametrize("layers", [1, 3])
def test_where_the_branch_commits(layers):
    restored = np.zeros((1, 2, layers, 4))
    restored[0, :, 0, 0], restored[0, :, -1, 3], restored[0, :, :, 2], restored[0, 1] = 1.0, 0.9, NAN, NAN
    restored[0, :, :, 1] = -0.001
    found = xr.Dataset(
        {
            "restored": (("measure", "prompt", "layer", "role"), restored),
            "random": (("measure", "prompt", "layer"), np.full((1, 2, layers), 0.25)),
        },
        {
            "measure": ["margin"],
            "layer": np.arange(layers),
            "role": ["changed", "rest of the prompt", "generated", "last"],
        },
    )
    sentence = commitment_read(found)
    last = "90%" if layers == 1 else "0%"
    begin = f"Of that, entering layer 0 changed tokens 100%, the rest of the prompt 0%, the last token {last} and a random place 25%"
    assert begin in sentence
    assert ("entering layer 2 changed tokens 0%" in sentence) == (layers == 3)
    assert sentence.endswith("random place 25% restore.")
    assert "generated" not in sentence  # no branch has such places


@pytest.mark.parametrize("rows", [1, 2])
def test_the_picture(rows):
    ids = np.array([[1, 2, 3, 4], [1, 2, 3, 4]])[:rows]
    other = np.array([[1, 9, 3, 5], [1, 9, 6, 7]])[:rows]
    found = xr.Dataset(
        {
            "distance": (("weights", "layer", "position"), np.array([[[0, 1, 0.5, 0.7]], [[0, 1, 1.2, 1.4]]])[:rows]),
            "token_id": (("weights", "position"), ids),
            "other_token_id": (("weights", "position"), other),
        },
        {"generated": ("position", [0, 0, 1, 1])},
    )
    sentence = picture_sentence(found)
    assert sentence.startswith(
        "One disturbance changes 1 of 2 tokens that the model goes on to write, where the streams"
    )
    assert "0.60 apart on average" in sentence
    assert sentence.endswith("ones (before training 2; 1.30)." if rows == 2 else "for unrelated ones.")
    assert ("before training" in wavefront_read(found)) == (rows == 2)
