"""What heads do: against heads whose weights are set by hand, against plain loops, and on smalltown."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny
from test_options import build

import analyses
import interp
from analyses.attention import circuit_slice, composition, copying_scores, ov_circuit, qk_circuit, singular_tokens
from analyses.attention.patterns import repeated
from interp import PAD
from interp.errors import InterpError, ResultError
from interp.zoo import task
from interp.zoo.evaluation import known_heads

KINDS = ("previous_token", "duplicate_token", "induction", "current_token", "first_token")


def circuit(name):
    return interp.load(f"circuit:{name}", dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("previous-token", (0, 0), "previous_token"),
        ("duplicate-token", (0, 0), "duplicate_token"),
        ("induction", (0, 0), "previous_token"),
        ("induction", (1, 0), "induction"),
        ("copying", (0, 0), "current_token"),
        ("copying", (0, 1), "current_token"),
        ("backup", (0, 1), "previous_token"),
    ],
)
def test_detectors_give_one_on_heads_that_do_it_and_none_elsewhere(name, head, kind):
    """Random tokens twice over. At the first token every head can only look there, and a token without an earlier one rests."""
    result = analyses.detect_heads(circuit(name), count=3)
    assert result.sizes["prompt"] == 3
    found = {one: result[one].to_numpy()[:, head[0], head[1]] for one in KINDS}
    np.testing.assert_allclose(found[kind], 1, atol=1e-12)
    for other in set(KINDS) - {kind, "current_token"}:
        np.testing.assert_allclose(found[other], 0, atol=1 / 61)
    if kind in ("previous_token", "current_token"):
        assert (found["duplicate_token"] < 1e-12).all()
        assert (found["induction"] < 1e-12).all()


def test_scores_equal_plain_loops_on_text(smalltown):
    text = "Mary and John and Mary and Rose went and went"
    result = analyses.detect_heads(smalltown, text)
    tokens = smalltown.to_tokens(text)[0].tolist()
    _, cache = smalltown.run_with_cache(smalltown.to_tokens(text), "blocks.*.attn.hook_pattern")
    pattern = cache["pattern", 2][0, 1]
    keys = {
        "previous_token": lambda i, j: j == i - 1,
        "duplicate_token": lambda i, j: j < i and tokens[j] == tokens[i],
        "induction": lambda i, j: 1 <= j <= i and tokens[j - 1] == tokens[i],
        "current_token": lambda i, j: i == j,
        "first_token": lambda i, j: j == 0 < i,
    }
    for name, counts in keys.items():
        shares = []
        for i in range(len(tokens)):
            chosen = [j for j in range(len(tokens)) if counts(i, j)]
            if chosen:
                shares.append(float(pattern[i, chosen].sum()))
        assert float(result[name][0, 2, 1]) == pytest.approx(np.mean(shares), abs=1e-5), name


def test_a_pattern_of_ones_own_and_intervals(smalltown):
    text = "Mary went to the store and"
    length = smalltown.to_tokens(text).shape[1]
    mask = torch.zeros(length, length, dtype=torch.bool)
    mask[-1, 1] = True
    result = analyses.detect_heads(smalltown, text, masks={"to Mary": mask})
    pattern = analyses.attention_patterns(smalltown, text)["pattern"]
    np.testing.assert_allclose(result["to Mary"][0], pattern[0, :, :, -1, 1], atol=1e-6)
    with pytest.raises(InterpError, match="expected .7, 7."):
        analyses.detect_heads(smalltown, text, masks={"to Mary": mask[:3]})
    several = analyses.detect_heads(smalltown, count=6, length=20)
    low, high = several["induction_interval"].to_numpy()
    assert (low <= several["induction_mean"]).all()
    assert (several["induction_mean"] <= high).all()
    assert high[4, 2] - low[4, 2] < 0.2
    with pytest.raises(InterpError, match="takes lengths 2 to 127"):
        analyses.detect_heads(smalltown, length=200)


def test_text_without_repeats_has_no_induction_score(smalltown):
    assert analyses.detect_heads(smalltown, "Mary went")["induction"].isnull().all()


def test_repeated_sequences(smalltown):
    tokens = repeated(smalltown, 20, 3, seed=0)
    assert tokens.shape == (3, 41)
    assert (tokens[:, 0] == smalltown.tokenizer.bos).all()
    assert torch.equal(tokens[:, 1:21], tokens[:, 21:])
    assert all(len(set(row[1:21].tolist())) == 20 for row in tokens)
    assert not torch.equal(tokens[0], tokens[1])


def test_pattern_summaries_and_weights_equal_plain_sums():
    model, tokens = tiny(), random_tokens(2, 7)
    tokens[1, 5:] = PAD
    result = analyses.attention_patterns(model, tokens)
    _, cache = model.run_with_cache(tokens[1:, :5])
    pattern, scores, values = (cache[name, 1][0] for name in ("pattern", "attn_scores", "v"))
    one = result.isel(prompt=1, layer=1)
    head = one.isel(head=1, query=slice(5), key=slice(5))
    np.testing.assert_allclose(head["score"].to_numpy()[np.tril_indices(5)], scores[1][*torch.tril_indices(5, 5)])
    assert head["score"].to_numpy()[0, 3] != head["score"].to_numpy()[0, 3]  # not a number: it cannot be attended to
    moved = (values[:, 1] @ model.blocks[1].attn.W_O[1]).norm(dim=-1)
    np.testing.assert_allclose(head["value_weighted"], pattern[1] * moved, atol=1e-12)
    p = pattern[1].numpy()
    entropy = np.mean([-sum(x * np.log(x) for x in row[: i + 1]) for i, row in enumerate(p)])
    distance = np.mean([sum(row[j] * (i - j) for j in range(i + 1)) for i, row in enumerate(p)])
    for name, expected in (
        ("entropy", entropy),
        ("distance", distance),
        ("on_first", p[:, 0].mean()),
        ("on_itself", np.diag(p).mean()),
    ):
        assert float(one[name][1]) == pytest.approx(expected), name


def test_circuits_of_grouped_heads_are_those_of_the_weights():
    model = build(n_kv_heads=2)
    attention = model.blocks[1].attn
    for head in range(4):
        v, k = attention.W_V[head // 2], attention.W_K[head // 2]
        torch.testing.assert_close(ov_circuit(model, 1).product()[head], v @ attention.W_O[head])
        torch.testing.assert_close(qk_circuit(model, 1).product()[head], attention.W_Q[head] @ k.T)


def test_slices_of_the_full_circuits():
    model = tiny()
    ov, qk = ov_circuit(model, 1).product()[0], qk_circuit(model, 1).product()[0]
    found = circuit_slice(model, 1, 0, circuit="ov", rows=[3, 4], columns=[7], embedding="raw")
    torch.testing.assert_close(found, model.W_E[[3, 4]] @ ov @ model.W_U[:, [7]])
    found = circuit_slice(model, 1, 0, circuit="qk", rows=[3], columns=[7, 8], embedding="raw")
    torch.testing.assert_close(found, model.W_E[[3]] @ qk @ model.W_E[[7, 8]].T)
    with pytest.raises(InterpError, match="unknown circuit 'vo'"):
        circuit_slice(model, 1, 0, circuit="vo", rows=[3], columns=[7])
    with pytest.raises(InterpError, match="head 2 is out of range"):
        circuit_slice(model, 1, 2, circuit="ov", rows=[3], columns=[7])


def test_copying_scores_of_heads_that_copy_and_take_away():
    torch.testing.assert_close(copying_scores(circuit("copying")), torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    model = tiny()
    block, (raw, effective) = model.blocks[0], (copying_scores(model, embedding=name) for name in ("raw", "effective"))
    with_bias = model.W_E + block.attn.o.bias  # the heads read nothing; their bias is written all the same
    read = {0: model.W_E, 2: with_bias + block.mlp(block.ln2(with_bias[None]))[0]}
    for layer, embedding in read.items():
        for found, given in ((raw, model.W_E), (effective, embedding)):
            whole = torch.linalg.eigvals(given @ ov_circuit(model, layer).product()[1] @ model.W_U)
            torch.testing.assert_close(found[layer, 1], whole.real.sum() / whole.abs().sum())
    torch.testing.assert_close(copying_scores(model), effective)
    assert not torch.allclose(raw[2], effective[2])
    with pytest.raises(InterpError, match="unknown embedding 'row'. Did you mean 'raw'"):
        copying_scores(model, embedding="row")


def test_slices_and_singular_tokens_read_what_heads_read(smalltown):
    """Head 4.2 copies: attending to a name raises that name, which the raw embedding, below the first MLP, would not tell."""
    names = [smalltown.to_single_token(name) for name in (" Mary", " John", " Tom", " Anna")]
    ov, raw = (
        circuit_slice(smalltown, 4, 2, circuit="ov", rows=names, columns=np.array(names), embedding=embedding)
        for embedding in ("effective", "raw")
    )
    assert (ov.diagonal() > 0).all()
    assert (raw.diagonal() < 0).all()
    block, read = smalltown.blocks[0], smalltown.W_E[names][None]
    stream = block.finish(read, read.new_zeros(1, 4, 4, 32))[0]
    attention = smalltown.blocks[4].attn
    by_hand = stream @ attention.W_V[2] @ attention.W_O[2] @ smalltown.W_U[:, names]
    torch.testing.assert_close(ov, by_hand, atol=1e-4, rtol=1e-4)
    qk = circuit_slice(smalltown, 4, 2, circuit="qk", rows=names, columns=names)
    torch.testing.assert_close(qk, stream @ attention.W_Q[2] @ attention.W_K[2].T @ stream.T, atol=1e-3, rtol=1e-4)
    found = {name: singular_tokens(smalltown, 4, 2, embedding=name) for name in ("effective", "raw")}
    assert (found["effective"]["left_id"] != found["raw"]["left_id"]).any()
    u = torch.linalg.svd(attention.W_V[2] @ attention.W_O[2]).U
    every = smalltown.W_E[None]
    read = block.finish(every, every.new_zeros(1, len(every[0]), 4, 32))[0] @ u[:, 0]
    np.testing.assert_allclose(np.abs(found["effective"]["left_dot"][0, 0]), read.abs().max(), rtol=1e-3)
    assert int(found["effective"]["left_id"][0, 0]) == int(read.abs().argmax())
    with pytest.raises(InterpError, match="unknown embedding 'effectiv'"):
        circuit_slice(smalltown, 4, 2, circuit="ov", rows=names, columns=names, embedding="effectiv")


def test_a_token_without_numbers_lies_along_no_direction():
    model = tiny()
    model.W_E.data[7] = torch.nan
    found = singular_tokens(model, 1, 0)
    assert not (found["left_id"] == 7).any()
    assert np.isfinite(found["left_dot"]).all()


def test_copying_says_what_heads_do(smalltown):
    """On repeated random tokens, what each head writes into the logit of the token that it attends to most goes with the score."""
    tokens = repeated(smalltown, 60, 4, seed=0)
    _, cache = smalltown.run_with_cache(tokens)
    raised, norm, second = np.zeros((6, 4)), smalltown.ln_final, slice(61, 121)
    for layer in range(6):
        for head in range(4):
            parts = cache["result", layer][:, second, head]
            written = (parts - parts.mean(-1, keepdim=True)) / cache["ln_final.hook_scale"][:, second] * norm.weight
            logits = written @ smalltown.W_U
            attended = tokens.gather(1, cache["pattern", layer][:, head, second].argmax(-1))
            own = logits.gather(-1, attended[..., None])[..., 0] - logits.mean(-1)
            raised[layer, head] = own.mean()
    copiers = [(4, 2), (5, 3)]
    assert [raised[at] for at in copiers] == pytest.approx([5.6, 2.2], abs=0.1)
    effective, raw = (copying_scores(smalltown, embedding=name).numpy() for name in ("effective", "raw"))
    for at in copiers:
        assert effective[at] > 0.95
        assert raw[at] < -0.9  # what the first MLP makes of a token points the other way
    assert (np.sign(effective[1:]) == np.sign(raised[1:])).mean() >= 0.85
    assert (np.sign(raw[1:]) == np.sign(raised[1:])).mean() <= 0.3
    table = analyses.head_table(smalltown, count=1, length=10)
    np.testing.assert_allclose(table["copying"], effective, atol=1e-6)
    np.testing.assert_allclose(table["copying_raw"], raw, atol=1e-6)


def test_copying_needs_no_first_mlp_and_says_nothing_of_a_broken_head():
    model = circuit("induction")  # what head 0.0 writes is never unembedded, so it neither copies nor suppresses
    torch.testing.assert_close(copying_scores(model), copying_scores(model, embedding="raw"), equal_nan=True)
    assert copying_scores(model)[:, 0].isnan().tolist() == [True, False]
    for options in (
        {"norm": "rmsnorm"},
        {"norm_placement": "post"},
        {"mlp": "gated"},
        {"mlp": "none"},
        {"n_kv_heads": 2},
    ):
        assert torch.isfinite(copying_scores(build(**options))).all(), options
    model = tiny()
    model.blocks[1].attn.qkv.weight[33] = torch.nan  # of the first head's values
    found = copying_scores(model)
    assert found[1, 0].isnan()
    assert torch.isfinite(found).sum() == 5
    with pytest.raises(ResultError, match=r"of head 1\.0: .* is not finite, .* mend its weights"):
        singular_tokens(model, 1, 0)
    reads = analyses.head_table(model, count=1, length=5)["reads_by_V"]
    assert reads[2].isnull().all()  # the largest of what they read is not known
    assert reads[1, 1].notnull()


def test_singular_directions_as_tokens():
    model = tiny()
    result = singular_tokens(model, 1, 1, circuit="ov", vectors=2, top_k=3, embedding="raw")
    u, s, vh = torch.linalg.svd(ov_circuit(model, 1).product()[1])
    np.testing.assert_allclose(result["value"], s[:2])
    left, right = model.W_E @ u[:, 0], model.W_U.T @ vh[0]
    sign = left[left.abs().argmax()].sign()
    np.testing.assert_allclose(result["left_dot"][0], (sign * left).topk(3).values)
    np.testing.assert_array_equal(result["right_id"][0], (sign * right).topk(3).indices)
    copied = singular_tokens(circuit("copying"), 0, 0, vectors=3, top_k=1)
    np.testing.assert_array_equal(copied["left_id"], copied["right_id"])


@pytest.mark.parametrize("options", [{}, {"n_kv_heads": 2}, {"bias": False}])
def test_composition_equals_norms_of_whole_products(options):
    model = build(**options)
    result = composition(model)["composition"]
    for way in ("Q", "K", "V"):
        for writer in (0, 1):
            a = ov_circuit(model, 0).product()[writer]
            for layer, reader in ((1, 0), (2, 1)):
                qk, ov = qk_circuit(model, layer).product()[reader], ov_circuit(model, layer).product()[reader]
                b = {"Q": qk, "K": qk.T, "V": ov}[way]
                expected = float((a @ b).norm() / a.norm() / b.norm())
                found = float(result.sel(way=way, writer_layer=0, writer_head=writer, layer=layer, head=reader))
                assert found == pytest.approx(expected, rel=1e-8)
    assert result.sel(writer_layer=1, layer=1).isnull().all()
    assert result.sel(writer_layer=2, layer=0).isnull().all()


def test_composition_picks_exactly_the_planted_pair():
    found = composition(circuit("induction"))["composition"].sel(writer_layer=0, writer_head=0, layer=1, head=0)
    assert float(found.sel(way="K")) > 0.05
    assert (found.sel(way=["Q", "V"]) == 0).all()


def test_random_heads_compose_as_the_baseline_says():
    model = interp.Transformer(
        interp.ModelConfig(n_layers=3, d_model=64, n_heads=4, d_head=16, d_mlp=64, n_ctx=8, d_vocab=20)
    ).requires_grad_(False)
    result = composition(model, draws=40)
    assert float(abs(result["excess"].mean())) < float(3 * result["baseline_deviation"][0] / np.sqrt(100))


def test_importance_of_two_heads_with_a_backup():
    """Without one of the redundant heads half is lost; the backup alone matters nothing; see `circuit:backup`."""
    model = circuit("backup")
    clean, corrupt = torch.tensor([[0, 5, 3, 9]]), torch.tensor([[0, 5, 7, 9]])
    result = analyses.head_importance(model, clean, corrupt, answer=3, wrong=7)
    lost = result["importance"].sel(replacement="zero")[0]
    np.testing.assert_allclose(lost[0], [0.5 * 8 / 16, 0.5 * 8 / 16], atol=1e-9)  # 8 to 4 of a gap from 8 to -8
    np.testing.assert_allclose(lost[1], [0, 0], atol=1e-9)
    resampled = result["importance"].sel(replacement="resample")[0]
    np.testing.assert_allclose(resampled[0], [0.5, 0.5], atol=1e-9)  # to 4 - 4 = 0


def test_on_smalltown_score_composition_and_ablation_find_the_same_induction_head(smalltown):
    pairs = task("induction").sample(20, seed=1)
    table = analyses.head_table(
        smalltown,
        **{name: [getattr(pair, name) for pair in pairs] for name in ("clean", "corrupt", "answer", "wrong")},
    )
    by_score = table["induction"].to_series().idxmax()
    assert by_score == table["importance_resample"].to_series().idxmax()
    assert by_score == table["importance_mean"].to_series().idxmax()
    previous = table["previous_token"].to_series().nlargest(5).index.tolist()
    excess = composition(smalltown)["excess"].sel(way="K")
    for layer, head in previous:
        reads = excess.sel(writer_layer=layer, writer_head=head).to_series().dropna()
        above = reads[[at for at in reads.index if at[0] >= 4]]
        assert above.idxmax() == by_score
    assert (
        tuple(
            int(part)
            for part in str(table["reads_by_K_from"].sel(layer=by_score[0], head=by_score[1]).item()).split(".")
        )
        in previous
    )


def test_the_model_card_names_the_heads_that_the_detectors_find(smalltown):
    found = known_heads(smalltown)
    detected = analyses.detect_heads(smalltown)
    for kind, name in (("previous token", "previous_token"), ("induction", "induction")):
        scores = detected[f"{name}_mean"].to_series()
        assert next(iter(found[kind])) == "{}.{}".format(*scores.idxmax())
    card = (Path(interp.__file__).parent / "zoo" / "smalltown" / "CARD.md").read_text()
    assert f"- to what followed the token's first occurrence: {next(iter(found['induction']))} (" in card


def test_the_table_sorts_and_holds_every_score(smalltown):
    table = analyses.head_table(smalltown, count=6)
    frame = table.drop_dims("bound").to_dataframe().sort_values("induction", ascending=False)
    assert frame.index[0] == (4, 2)
    assert set(KINDS) | {"entropy", "distance", "copying", "reads_by_Q", "reads_by_K_from"} <= set(frame.columns)
    detected = analyses.detect_heads(smalltown, count=6)
    np.testing.assert_allclose(table["induction"], detected["induction"].mean("prompt"))
    assert (table["induction_interval"][0] <= table["induction"]).all()
    figure = analyses.plot(table, scores=["induction", "copying"])
    induction, copying = figure.data
    assert (induction.zmin, copying.zmin) == (0, -copying.zmax)
    np.testing.assert_allclose(copying.z, table["copying"])
    with pytest.raises(ResultError, match="no score"):
        analyses.plot(table, scores=["inductoin"])
    with pytest.raises(InterpError, match="give `corrupt` and `answer` too"):
        analyses.head_table(smalltown, clean="Mary", length=10, count=1)


def test_composition_figure(smalltown):
    result = composition(smalltown)
    figure = analyses.plot(result, strongest=5, way="K")
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert len(lines) == 5
    best = result["excess"].sel(way="K").to_series().idxmax()
    assert (lines[0].y[0], lines[0].x[0], lines[0].y[2], lines[0].x[2]) == best
    with pytest.raises(ResultError, match="expected one of Q, K, V"):
        analyses.plot(result, way="X")
