"""Indirect objects: which parts of the model say who was given something, by attribution and by patching."""

import torch

from interp.transformer_lens import HookedTransformer, patching

model = HookedTransformer.from_pretrained("smalltown", device="cpu")
cfg = model.cfg

# Two names, one of which comes again: the other one is who gets it.
pairs = [("Mary", "John"), ("Tom", "Anna")]
pattern = "When {} and {} went to the store, {} gave a drink to"
prompts = [pattern.format(one, other, subject) for one, other in pairs for subject in (other, one)]
answers = [
    (f" {one if subject == other else other}", f" {subject}") for one, other in pairs for subject in (other, one)
]
tokens = model.to_tokens(prompts)
ids = torch.tensor([[model.to_single_token(name) for name in names] for names in answers])


def logit_difference(logits, per_prompt=False):
    last = logits[:, -1].gather(-1, ids)
    difference = last[:, 0] - last[:, 1]
    return difference if per_prompt else difference.mean()


logits, cache = model.run_with_cache(tokens)
original = logit_difference(logits, per_prompt=True)

# What each part of the stream adds to the difference at the last token.
directions = model.tokens_to_residual_directions(ids)
direction = directions[:, 0] - directions[:, 1]
layers, labels = cache.accumulated_resid(layer=-1, incl_mid=True, pos_slice=-1, return_labels=True)
by_step = (cache.apply_ln_to_stack(layers, layer=-1, pos_slice=-1) * direction).sum(-1).mean(-1)
parts, part_labels = cache.decompose_resid(layer=-1, pos_slice=-1, return_labels=True)
by_part = cache.logit_attrs(parts, ids[:, 0], incorrect_tokens=ids[:, 1], pos_slice=-1).mean(-1)
heads, head_labels = cache.stack_head_results(layer=-1, pos_slice=-1, return_labels=True)
by_head = cache.logit_attrs(heads, ids[:, 0], incorrect_tokens=ids[:, 1], pos_slice=-1).mean(-1)

# Patching: the other prompt of each pair has the other subject. 1 is the clean difference again, 0 the corrupted one.
corrupted = tokens.reshape(-1, 2, tokens.shape[1]).flip(1).reshape(tokens.shape)
clean_difference = logit_difference(logits).item()
corrupted_difference = logit_difference(model(corrupted)).item()


def recovered(logits):
    return (logit_difference(logits) - corrupted_difference) / (clean_difference - corrupted_difference)


stream = patching.get_act_patch_resid_pre(model, corrupted, cache, recovered)
head_out = patching.get_act_patch_attn_head_out_all_pos(model, corrupted, cache, recovered)
every = patching.get_act_patch_attn_head_all_pos_every(model, corrupted, cache, recovered)

# The heads that recover most: where does the best look from the last token?
best = divmod(int(head_out.argmax()), cfg.n_heads)
looks_at = cache["pattern", best[0]][0, best[1], -1].argmax().item()
looked_at = model.to_str_tokens(tokens[0])[looks_at]
