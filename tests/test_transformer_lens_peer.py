"""`interp.transformer_lens` against the bridge of transformer-lens 4.3 in compatibility mode, on the same weights: every name, to 1e-4."""

import os

os.environ["TQDM_DISABLE"] = "1"  # read at import: the peer draws a bar for each grid

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast, PreTrainedTokenizerFast

from interp.transformer_lens import FactoredMatrix, HookedTransformer, patching, utils

peer = pytest.importorskip("transformer_lens", reason="transformer-lens is not installed")
TEXT, TEXTS = "They saw a naïve duck", ["Once upon a time", "Then she gave a"]


class Pair:
    """The same weights in the peer and here."""

    def __init__(self, folder, tokenizer, processed: bool) -> None:
        from transformer_lens.model_bridge import TransformerBridge

        torch.manual_seed(0)
        shape = GPT2Config(
            n_layer=3, n_embd=24, n_head=2, n_positions=32, initializer_range=0.3, vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        weights = GPT2LMHeadModel(shape).eval()
        with torch.no_grad():
            for name, weight in weights.named_parameters():
                if "ln" in name or name.endswith("bias"):
                    weight += 0.2 * torch.randn_like(weight)
        weights.save_pretrained(folder)
        loaded = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager")
        self.theirs = TransformerBridge.boot_transformers(str(folder), hf_model=loaded, tokenizer=tokenizer)
        self.theirs.enable_compatibility_mode(disable_warnings=True, no_processing=not processed)
        make = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
        self.ours = make("gpt2", hf_model=weights, tokenizer=tokenizer)


@pytest.fixture(scope="module", params=["processed", "as it comes"])
def pair(request, tmp_path_factory, smalltown) -> Pair:
    folder = tmp_path_factory.mktemp("gpt2")
    smalltown.tokenizer.save(folder)
    return Pair(folder, PreTrainedTokenizerFast.from_pretrained(folder), request.param == "processed")


@pytest.fixture(scope="module")
def caches(pair):
    tokens = pair.ours.to_tokens(TEXTS)
    return pair.ours.run_with_cache(tokens)[1], pair.theirs.run_with_cache(tokens)[1]


def same(ours, theirs, what="") -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4, msg=lambda said: f"{what}: {said}")


def test_text_and_ids_of_the_real_tokenizer(tmp_path, gpt2_tokenizer_directory):
    check_texts(Pair(tmp_path, GPT2TokenizerFast.from_pretrained(gpt2_tokenizer_directory), processed=False))


def test_text_and_ids(pair):
    check_texts(pair)


def check_texts(pair):
    ours, theirs = pair.ours, pair.theirs
    for given in (TEXT, TEXTS, ["They", "They saw a"], "<|endoftext|>They", ""):
        for options in ({}, {"prepend_bos": True}, {"padding_side": "left"}):
            assert torch.equal(ours.to_tokens(given, **options), theirs.to_tokens(given, **options)), (given, options)
    assert torch.equal(ours.to_tokens(TEXT, prepend_bos=False), theirs.to_tokens(TEXT, prepend_bos=False))
    assert (
        ours.to_tokens(" word" * 40).shape == theirs.to_tokens(" word" * 40).shape == (1, 32)
    )  # what is longer is cut
    row = torch.tensor([1, 2, 3])
    for given in (TEXT, ["They", "They saw"], row, row[None], "日 é"):
        assert ours.to_str_tokens(given) == theirs.to_str_tokens(given)
    assert ours.to_str_tokens(TEXT, prepend_bos=False) == theirs.to_str_tokens(TEXT, prepend_bos=False)
    for given in (row, torch.tensor([[1, 2], [3, 4]]), [1, 2], torch.tensor(5)):
        assert ours.to_string(given) == theirs.to_string(given)
    assert ours.to_single_token(" gave") == theirs.to_single_token(" gave")
    assert ours.to_single_str_token(995) == theirs.to_single_str_token(995)
    for mode in ("first", "last"):
        for given in ((" gave", "Then she gave and gave"), (5, torch.tensor([1, 5, 5]))):
            assert ours.get_token_position(*given, mode=mode) == theirs.get_token_position(*given, mode=mode)
    for token in (" gave", 5, torch.tensor(5), torch.tensor([5, 6]), torch.tensor([[5, 6], [7, 8]])):
        same(ours.tokens_to_residual_directions(token), theirs.tokens_to_residual_directions(token))


def test_forward(pair):
    ours, theirs = pair.ours, pair.theirs
    for given in (TEXT, TEXTS, ["They", "They saw a"], theirs.to_tokens(TEXTS)):
        same(ours(given), theirs(given))
        same(ours(given, return_type="loss"), theirs(given, return_type="loss"))
        for mine, other in zip(ours(given, return_type="both"), theirs(given, return_type="both"), strict=True):
            same(mine, other)
        mine, other = (one(given, return_type="loss", loss_per_token=True) for one in (ours, theirs))
        same(mine, other)
    same(ours(TEXT, prepend_bos=False), theirs(TEXT, prepend_bos=False))
    assert ours(TEXT, return_type=None) is theirs(TEXT, return_type=None) is None
    short, long = "They", "They saw a"
    mine, other = (one([short, long], padding_side="left") for one in (ours, theirs))
    same(mine[0, -1], other[0, -1])
    same(mine[0, -1], ours(short)[0, -1])
    same(mine[1], other[1])
    for stop in (0, 1, 2, -1):
        same(ours(TEXT, stop_at_layer=stop), theirs(TEXT, stop_at_layer=stop))
    stream = ours(TEXT, stop_at_layer=1)
    same(ours(stream, start_at_layer=1), theirs(stream, start_at_layer=1))
    same(ours(stream, start_at_layer=1), ours(TEXT))
    assert ours(TEXT).requires_grad == theirs(TEXT).requires_grad is True
    assert ours.training == theirs.training is False


def test_weights(pair):
    ours, theirs = pair.ours, pair.theirs
    for name in "W_E W_pos W_E_pos W_U b_U W_Q W_K W_V W_O b_Q b_K b_V b_O W_in b_in W_out b_out".split():
        same(getattr(ours, name), getattr(theirs, name), name)
    for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"):
        same(getattr(ours.blocks[1].attn, name), getattr(theirs.blocks[1].attn, name), name)
    for name in ("QK", "OV"):
        same(getattr(ours, name).AB, getattr(theirs, name).AB, name)
    for options in ({}, {"mlp_input": True}, {"include_mlp_biases": False}):
        same(ours.accumulated_bias(1, **options), theirs.accumulated_bias(1, **options))
    labels = theirs.all_head_labels
    assert ours.all_head_labels() == (labels() if callable(labels) else labels)
    for mode in "QKV":
        same(ours.all_composition_scores(mode), theirs.all_composition_scores(mode).scores, mode)


def test_every_shared_entry_of_the_cache(pair, caches):
    ours, theirs = caches
    shared = [name for name in ours if name in theirs.cache_dict]
    assert len(shared) >= 45
    seen = torch.ones(5, 5).tril().bool()
    for name in shared:
        mine, other = ours[name], theirs[name]
        if name.endswith("attn_scores"):  # above the diagonal each library has its own stand-in for minus infinity
            mine, other = mine[..., seen], other[..., seen]
        same(mine, other, name)
        assert mine.requires_grad == other.requires_grad is False
    for key in (
        ("pattern", 0, "attn"),
        ("pattern", -1),
        ("k", 1),
        ("resid_pre", 2),
        ("embed",),
        ("scale", 1, "ln1"),
        ("scale",),
    ):
        same(ours[key], theirs[key], key)


def test_run_with_cache(pair):
    ours, theirs = pair.ours, pair.theirs
    for chosen in ("blocks.1.attn.hook_z", ["hook_embed", "blocks.0.hook_mlp_out"], lambda name: "pattern" in name):
        (loss, mine), (other_loss, other) = (
            one.run_with_cache(TEXT, names_filter=chosen, return_type="loss") for one in (ours, theirs)
        )
        same(loss, other_loss)
        assert set(mine) <= set(other.keys())  # the peer adds names of its own modules for the same values
        for name in mine:
            same(mine[name], other[name], name)
    (stream, mine), (other_stream, other) = (one.run_with_cache(TEXT, stop_at_layer=2) for one in (ours, theirs))
    same(stream, other_stream)
    assert not [name for name in mine if name.startswith(("blocks.2", "ln_final"))]
    (_, mine), (_, other) = (one.run_with_cache(TEXT, remove_batch_dim=True) for one in (ours, theirs))
    for point in ("z", "pattern", "resid_mid"):
        same(mine[point, 1], other[point, 1])
    (_, mine), (_, other) = (
        one.run_with_cache(TEXT, names_filter=lambda name: name.endswith("hook_z"), return_cache_object=False)
        for one in (ours, theirs)
    )
    assert isinstance(mine, dict)
    assert mine.keys() <= other.keys()
    (_, mine), (_, other) = (
        one.run_with_cache(TEXT, names_filter="blocks.1.hook_resid_post", incl_bwd=True, return_type="loss")
        for one in (ours, theirs)
    )
    same(mine["blocks.1.hook_resid_post_grad"], other.cache_dict["blocks.1.hook_resid_post_grad"])
    for one in (ours, theirs):
        one.zero_grad()


STACKS = [
    ("accumulated_resid", [{}, {"layer": 1}, {"layer": -1}, {"incl_mid": True}, {"layer": 1, "mlp_input": True}, {"layer": 0},
                           {"apply_ln": True}, {"layer": 2, "apply_ln": True, "pos_slice": -1}, {"pos_slice": (1, 3), "apply_ln": True},
                           {"layer": 1, "mlp_input": True, "apply_ln": True}]),
    ("decompose_resid", [{}, {"layer": 1}, {"layer": 1, "mlp_input": True}, {"mode": "attn"}, {"mode": "mlp", "incl_embeds": False},
                         {"layer": 0}, {"pos_slice": -1, "apply_ln": True}, {"layer": 1, "mlp_input": True, "apply_ln": True}]),
    ("stack_head_results", [{}, {"layer": 1}, {"layer": 0}, {"layer": 3}, {"incl_remainder": True},
                            {"layer": 1, "incl_remainder": True, "pos_slice": -1, "apply_ln": True}, {"pos_slice": [0, 2]}]),
    ("stack_neuron_results", [{"layer": -1}, {"layer": 1, "incl_remainder": True, "neuron_slice": (0, 5)},
                              {"layer": 2, "pos_slice": -1, "neuron_slice": [1, 3]}, {"layer": 2, "apply_ln": True}]),
    ("get_full_resid_decomposition", [{}, {"layer": 1}, {"expand_neurons": False}, {"layer": 1, "mlp_input": True, "expand_neurons": False},
                                      {"apply_ln": True, "pos_slice": -1}]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), [(name, one) for name, some in STACKS for one in some], ids=str)
def test_sums_made_of_a_cache(caches, name, options):
    (mine, labels), (other, other_labels) = (getattr(one, name)(return_labels=True, **options) for one in caches)
    assert labels == other_labels
    same(mine, other)
    same(getattr(caches[0], name)(**options), mine)


def test_logit_attributions(caches):
    ours, theirs = caches
    parts = ours.decompose_resid()
    for tokens in (" gave", 5, torch.tensor(5), torch.tensor([5, 6]), torch.tensor([[5, 6, 7, 8, 9], [1, 2, 3, 4, 5]])):
        same(ours.logit_attrs(parts, tokens), theirs.logit_attrs(parts, tokens))
    last = parts[..., -1, :]
    answers, wrong = torch.tensor([5, 6]), torch.tensor([7, 8])
    mine, other = (one.logit_attrs(last, answers, pos_slice=-1, incorrect_tokens=wrong) for one in caches)
    same(mine, other)
    for options in ({"batch_slice": (0, 1)}, {"batch_slice": 0, "has_batch_dim": False}):
        some = parts[:, 0:1] if "has_batch_dim" not in options else parts[:, 0]
        mine, other = (one.logit_attrs(some, 5, **options) for one in caches)
        same(mine, other, options)
    for options in ({}, {"layer": 1}, {"layer": 1, "mlp_input": True}):
        mine, other = (one.apply_ln_to_stack(parts, **options) for one in caches)
        same(mine, other, options)
    for name, options in (("z", {}), ("k", {"layer": 2}), ("scale", {"sublayer_type": "ln1"})):
        mine, other = (one.stack_activation(name, **options) for one in caches)
        same(mine, other, name)


def test_the_points_that_are_switched_on(pair):
    tokens = pair.ours.to_tokens(TEXTS)
    points = ("attn.hook_result", "hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in")
    names = [f"blocks.1.{point}" for point in points]

    def push(value, hook):
        value = value.clone()  # in place the peer would change what others read too
        value[(slice(None), 1, 1)[: value.ndim - 1]] += torch.linspace(-2, 2, 24)
        return value

    found = []
    for model in (pair.ours, pair.theirs):
        for switch in (model.set_use_attn_result, model.set_use_split_qkv_input, model.set_use_hook_mlp_in):
            switch(True)
        _, cache = model.run_with_cache(tokens)
        runs = [model.run_with_hooks(tokens, fwd_hooks=[(name, push)]) for name in names]
        for name in names:
            with model.hooks(bwd_hooks=[(name, lambda slope, hook, to=runs: to.append(slope.clone()))]):
                model(tokens, return_type="loss").backward()
        model.zero_grad()
        found.append(([cache[name] for name in names], runs))
        for switch in (model.set_use_attn_result, model.set_use_split_qkv_input, model.set_use_hook_mlp_in):
            switch(False)
    for mine, other in zip(*found, strict=True):
        for name, one, two in zip(names * (len(mine) // len(names)), mine, other, strict=True):
            same(one, two, name)


def test_hooks(pair):
    def halve(value, hook):
        return value * 0.5

    def seen_gradient(store):
        def keep(gradient, hook):
            store.append(gradient.clone())

        return keep

    found = []
    for model in (pair.ours, pair.theirs):
        one = model.run_with_hooks(
            TEXT, fwd_hooks=[("blocks.1.attn.hook_pattern", halve), (lambda n: "mlp_out" in n, halve)]
        )
        with model.hooks(fwd_hooks=[("blocks.0.hook_attn_out", halve)]):
            two = model(TEXT)
        model.add_hook("blocks.2.attn.hook_z", halve)
        three = model(TEXT)
        model.reset_hooks()
        slopes = []
        with model.hooks(bwd_hooks=[("blocks.1.hook_resid_post", seen_gradient(slopes))]):
            model(TEXT, return_type="loss").backward()
        model.zero_grad()
        found.append([one, two, three, model(TEXT), *slopes])
    for mine, other in zip(*found, strict=True):
        same(mine, other)


def test_greedy_generation(pair):
    options = {"max_new_tokens": 4, "do_sample": False, "verbose": False}
    tokens = pair.ours.to_tokens(TEXT)
    for given in (TEXT, tokens, ["They saw", "Then"], "They<|endoftext|> saw"):
        mine, other = (one.generate(given, **options) for one in (pair.ours, pair.theirs))
        assert torch.equal(mine, other) if isinstance(mine, torch.Tensor) else mine == other, given
    for given in (TEXT, ["They saw", "Then"]):
        mine, other = (one.generate(given, return_type="tokens", **options) for one in (pair.ours, pair.theirs))
        assert torch.equal(mine, other)


def answer_minus_wrong(logits):
    return (logits[:, -1, 11] - logits[:, -1, 12]).mean()


GRIDS = [
    *(f"get_act_patch_{name}" for name in ("resid_pre", "attn_out", "mlp_out", "block_every")),
    *(f"get_act_patch_attn_head_{name}_by_pos" for name in ("out", "q", "k", "v", "pattern")),
    *(f"get_act_patch_attn_head_{name}_all_pos" for name in ("out", "q", "k", "v", "pattern")),
    "get_act_patch_attn_head_all_pos_every",
    "get_act_patch_attn_head_by_pos_every",
    "get_act_patch_attn_head_pattern_dest_src_pos",
]


@pytest.mark.parametrize("name", GRIDS)
def test_patching_grids(pair, name):
    clean = torch.tensor([[0, 5, 9], [0, 17, 33]])
    mine, other = (
        getattr(where, name)(model, clean.flip(0).roll(1, dims=1), model.run_with_cache(clean)[1], answer_minus_wrong)
        for where, model in ((patching, pair.ours), (peer.patching, pair.theirs))
    )
    same(mine, torch.as_tensor(other))


def test_between_attention_and_mlp_the_whole_stream_is_patched(pair, caches):
    """As in HookedTransformer. What a hook at the bridge's `hook_resid_mid` returns is read by the MLP alone."""
    corrupt = pair.ours.to_tokens(TEXTS).flip(0).roll(1, dims=1)
    grid = patching.get_act_patch_resid_mid(pair.ours, corrupt, caches[0], answer_minus_wrong)
    with torch.no_grad():
        streams = pair.theirs.run_with_cache(corrupt)[1]["resid_mid", 1]
        block = pair.theirs.blocks[1]
        for position in range(5):
            mid = streams.clone()
            mid[:, position] = caches[1]["resid_mid", 1][:, position]
            leaves = mid + block.mlp(block.ln2(mid))
            logits = pair.theirs.run_with_hooks(
                corrupt, fwd_hooks=[("blocks.1.hook_resid_post", lambda value, hook, leaves=leaves: leaves)]
            )
            same(grid[1, position], answer_minus_wrong(logits))


def test_utilities(pair, capsys):
    theirs = peer.utilities
    logits, tokens = pair.ours(TEXTS).detach(), pair.ours.to_tokens(TEXTS)
    for per_token in (False, True):
        same(
            utils.lm_cross_entropy_loss(logits, tokens, per_token=per_token),
            theirs.lm_cross_entropy_loss(logits, tokens, per_token=per_token),
        )
        same(utils.lm_accuracy(logits, tokens, per_token), theirs.lm_accuracy(logits, tokens, per_token))
    for given in (("k", 6, "a"), ("pattern", 2), ("embed",), ("scale", 4, "ln1"), ("scale", None), ("normalized", 2, "ln2"),
                  ("resid_pre", 3), ("q_input", 1), ("post", 2), ("mlp_in", 1), ("result", 1), ("attn", 1), ("attn_scores", 1),
                  ("mlp_post", 1), ("mlp_pre", 1), ("rot_k", 1), ("k1",), ("hook_scale",), ("pos_embed",), ("pre3mlp",), ("scale4ln1",),
                  ("key", 2), ("attn_logits", 2), ("attn_out", 2), ("normalized",), ("mid", 1), ("blocks.1.hook_mlp_out",)):  # fmt: skip
        assert utils.get_act_name(*given) == theirs.get_act_name(*given), given
    assert utils.get_device() == theirs.get_device()
    assert (utils.to_numpy(torch.ones(2, requires_grad=True)) == theirs.to_numpy(torch.ones(2))).all()
    said = []
    for test_prompt, model in ((utils.test_prompt, pair.ours), (theirs.test_prompt, pair.theirs)):
        test_prompt("They saw a", " duck", model)
        said.append(capsys.readouterr().out.splitlines())
    assert said[0][:2] == said[1][:2]
    ranks = [lines[-1].split("(")[-1].split(")")[0] for lines in said]
    assert ranks[0] == ranks[1]


def test_factored_matrices():
    generator = torch.Generator().manual_seed(0)
    a, b, square = (torch.randn(2, *shape, generator=generator) for shape in ((5, 3), (3, 4), (3, 5)))
    ours, theirs = FactoredMatrix(a, b), peer.FactoredMatrix(a, b)
    for name in ("AB", "S", "shape", "ndim", "ldim", "mdim", "rdim"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert torch.allclose(mine, other, atol=1e-5) if isinstance(mine, torch.Tensor) else mine == other, name
    same(ours.norm(), theirs.norm())
    same(ours.T.AB, theirs.T.AB)
    u, s, v = ours.svd()
    same(u @ torch.diag_embed(s) @ v.mT, ours.AB)
    assert [x.shape for x in (u, s, v)] == [x.shape for x in theirs.svd()]
    for index in (0, (slice(None), 1), (0, 1), (0, 1, 2), (..., 1)):
        same(ours[index].AB, theirs[index].AB, index)
    vector, left, right = torch.randn(4), torch.randn(5), torch.randn(4, 7)
    same(ours @ vector, theirs @ vector)
    same(left @ ours, left @ theirs)
    same((ours @ right).AB, (theirs @ right).AB)
    same((ours @ FactoredMatrix(right, right.T)).AB, (theirs @ peer.FactoredMatrix(right, right.T)).AB)
    same((2 * ours).AB, (2 * theirs).AB)
    same(ours.get_corner(2), theirs.get_corner(2))
    same(ours.unsqueeze(0).AB, theirs.unsqueeze(0).AB)
    same(ours.make_even().AB, ours.AB)
    for name in ("collapse_l", "collapse_r"):
        same(getattr(ours, name)().abs(), getattr(theirs, name)().abs(), name)
    mine, other = FactoredMatrix(a, square), peer.FactoredMatrix(a, square)
    same(mine.BA, other.BA)
    assert torch.allclose(mine.eigenvalues.abs().sort().values, other.eigenvalues.abs().sort().values, atol=1e-4)
