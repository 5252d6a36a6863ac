"""Other families than GPT-2 through `interp.transformer_lens`, against the bridge of transformer-lens 4.3 on the same weights, to 1e-4."""

import os

os.environ["TQDM_DISABLE"] = "1"  # read at import: the peer draws a bar for each grid

import families
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from interp.transformer_lens import HookedTransformer, patching

peer = pytest.importorskip("transformer_lens", reason="transformer-lens is not installed")
KINDS = ("gpt_neox", "llama", "llama untied, with biases", "qwen2", "qwen3", "mistral without a window", "gemma2")
TOKENS = torch.tensor([[1, 5, 9, 4], [1, 17, 33, 2]])


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    from transformer_lens.model_bridge import TransformerBridge

    weights, folder = families.theirs(request.param), tmp_path_factory.mktemp("model")
    weights.save_pretrained(folder)
    named = tmp_path_factory.mktemp("tokenizer")  # apart: beside a configuration transformers makes it the family's own
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(50)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w1", eos_token="w2").save_pretrained(named)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(named)  # the peer asks where it came from
    loaded = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    theirs = TransformerBridge.boot_transformers(str(folder), hf_model=loaded, tokenizer=tokenizer)
    theirs.enable_compatibility_mode(disable_warnings=True, no_processing=True)
    name = f"{weights.config.model_type}-small"
    return HookedTransformer.from_pretrained_no_processing(name, hf_model=weights, tokenizer=tokenizer), theirs


def same(ours, theirs, what="") -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4, msg=lambda said: f"{what}: {said}")


def test_logits_and_losses(pair):
    ours, theirs = pair
    same(ours(TOKENS), theirs(TOKENS))
    for per_token in (False, True):
        mine, other = (one(TOKENS, return_type="loss", loss_per_token=per_token) for one in pair)
        same(mine, other)
    for options in ({}, {"prepend_bos": True}, {"prepend_bos": False}):
        mine, other = (one.to_tokens("w5 w9", **options) for one in pair)
        assert torch.equal(mine, other), options


def test_every_shared_entry_of_the_cache(pair):
    (_, mine), (_, other) = (one.run_with_cache(TOKENS) for one in pair)
    shared = [name for name in mine if name in other.cache_dict]
    assert len(shared) >= 40, sorted(set(mine) ^ set(other.cache_dict))
    seen = torch.ones(4, 4).tril().bool()
    for name in shared:
        one, two = mine[name], other[name]
        if name.endswith("attn_scores"):  # beyond the diagonal each library has its own stand-in for minus infinity
            one, two = one[..., seen], two[..., seen]
        if ".q_norm." in name or ".k_norm." in name:  # the peer has heads before positions there
            two = two.transpose(1, 2)
        same(one, two, name)


def answer_minus_wrong(logits):
    return (logits[:, -1, 11] - logits[:, -1, 12]).mean()


@pytest.mark.parametrize("name", ["resid_pre", "attn_head_out_all_pos"])
def test_patching_grids(pair, name):
    mine, other = (
        getattr(where, f"get_act_patch_{name}")(
            model, TOKENS.flip(0).roll(1, dims=1), model.run_with_cache(TOKENS)[1], answer_minus_wrong
        )
        for where, model in zip((patching, peer.patching), pair, strict=True)
    )
    same(mine, torch.as_tensor(other))
