"""A TransformerLens 4 bridge becomes our model: every hook point that both have agrees, and the bridge stays as it was."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPT2TokenizerFast,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import interp
from interp.errors import CheckpointError

transformer_lens = pytest.importorskip("transformer_lens", reason="transformer-lens is not installed")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("gpt2")
    model = GPT2LMHeadModel(
        GPT2Config(
            n_layer=3,
            n_embd=24,
            n_head=4,
            n_positions=32,
            vocab_size=60,
            initializer_range=0.3,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "ln" in name or name.endswith("bias"):
                weight += 0.2 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return model, folder


def bridge_of(original):
    from transformer_lens.model_bridge import TransformerBridge

    _, folder = original
    loaded = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager")
    return TransformerBridge.boot_transformers(str(folder), hf_model=loaded)


@pytest.mark.parametrize("mode", ["as it comes", "compatibility", "compatibility without processing"])
def test_every_shared_hook_point_agrees(original, mode):
    bridge = bridge_of(original)
    if mode != "as it comes":
        bridge.enable_compatibility_mode(disable_warnings=True, no_processing=mode.endswith("without processing"))
    before = {name: value.clone() for name, value in bridge.state_dict().items()}
    tokens = torch.randint(0, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    theirs_logits, theirs = bridge.run_with_cache(tokens)

    model = interp.load(bridge)
    logits, ours = model.run_with_cache(tokens)
    torch.testing.assert_close(logits, theirs_logits, atol=1e-5, rtol=1e-5)
    shared = sorted(set(ours) & set(theirs))
    assert len([name for name in shared if name.startswith("blocks.2.")]) >= 12
    for name in shared:
        ours_value, theirs_value = ours[name], theirs[name]
        if name.endswith("attn_scores"):  # above the diagonal each library has its own stand-in for minus infinity
            seen = torch.ones(9, 9).tril().bool()
            ours_value, theirs_value = ours_value[..., seen], theirs_value[..., seen]
        torch.testing.assert_close(
            ours_value, theirs_value, atol=1e-5, rtol=1e-5, msg=lambda said, name=name: f"{name}: {said}"
        )
    assert before.keys() == bridge.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in bridge.state_dict().items())
    assert model.W_E.data_ptr() != bridge.W_E.data_ptr()


def test_as_it_comes_it_is_the_model_that_transformers_has(original):
    model, from_checkpoint = interp.load(bridge_of(original)), interp.load(original[0])
    assert model.config == from_checkpoint.config
    for (name, ours), other in zip(model.named_parameters(), from_checkpoint.parameters(), strict=True):
        assert torch.equal(ours, other), name


def test_its_tokenizer_comes_along(original, gpt2_tokenizer_directory):
    bridge = bridge_of(original)
    text = "Hello world, <b>naïve</b>"
    fast = GPT2TokenizerFast.from_pretrained(gpt2_tokenizer_directory)
    assert len(fast) > 60
    bridge.tokenizer = fast
    assert interp.load(bridge).tokenizer is None  # it names tokens that this small model does not have
    torch.manual_seed(0)
    from transformer_lens.model_bridge import TransformerBridge

    large = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, n_positions=32))
    large.save_pretrained(gpt2_tokenizer_directory.parent / "large")
    other = TransformerBridge.boot_transformers(
        str(gpt2_tokenizer_directory.parent / "large"), hf_model=large, tokenizer=fast
    )
    loaded = interp.load(other)
    assert loaded.tokenizer.encode(text) == fast(text)["input_ids"]
    assert loaded.to_tokens(text)[0, 0] == other.to_tokens(text)[0, 0]  # BOS, where the bridge prepends it
    assert torch.equal(loaded.to_tokens(text), other.to_tokens(text))
    fast.pad_token = fast.eos_token
    fast(text, truncation=True, max_length=3, padding="max_length")  # as a data loader does, and it stays set
    used = interp.load(other)
    assert used.tokenizer.encode(text) == loaded.tokenizer.encode(text)
    assert used.tokenizer.encode("Hi") == loaded.tokenizer.encode("Hi") == [17250]
    assert fast.backend_tokenizer.truncation["max_length"] == 3
    fast.add_special_tokens({"pad_token": "[PAD]"})
    with pytest.warns(UserWarning, match=r"added tokens beyond: '\[PAD\]' \(50257\)"):
        assert interp.load(other).tokenizer.encode("Hi") == [17250]


def test_other_architectures_are_refused(smalltown, tmp_path):
    from transformer_lens.model_bridge import TransformerBridge

    shape = LlamaConfig(
        num_hidden_layers=1, hidden_size=8, num_attention_heads=2, num_key_value_heads=2, intermediate_size=16, vocab_size=20,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    llama = LlamaForCausalLM(shape)
    llama.save_pretrained(tmp_path)
    smalltown.tokenizer.save(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="model_type 'llama'"):
        interp.load(TransformerBridge.boot_transformers(str(tmp_path), hf_model=llama, tokenizer=tokenizer))
