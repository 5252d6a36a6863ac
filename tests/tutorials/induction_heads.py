"""Induction heads: repeat random tokens, find the heads that look at what came after the last time, and knock them out."""

import torch

from interp.transformer_lens import HookedTransformer, utils

torch.manual_seed(0)
model = HookedTransformer.from_pretrained("smalltown", device="cpu")
cfg = model.cfg

# Random tokens, once more after themselves. Only by looking back can the second half be told.
batch, length = 8, 30
half = torch.randint(100, cfg.d_vocab, (batch, length))
bos = torch.full((batch, 1), model.bos_id)
tokens = torch.cat([bos, half, half], dim=1)

logits, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_pattern"))
losses = utils.lm_cross_entropy_loss(logits, tokens, per_token=True)
first, second = losses[:, :length].mean().item(), losses[:, length + 1 :].mean().item()

# A head's induction score: what it pays, from the second half, to the token after the earlier copy of its own.
scores = torch.zeros(cfg.n_layers, cfg.n_heads)
for layer in range(cfg.n_layers):
    stripe = cache["pattern", layer].diagonal(offset=1 - length, dim1=-2, dim2=-1)
    scores[layer] = stripe.mean((0, -1))

# The same by a hook, without keeping the patterns.
hooked = torch.zeros_like(scores)


def score(pattern, hook):
    hooked[hook.layer()] = pattern.diagonal(offset=1 - length, dim1=-2, dim2=-1).mean((0, -1)).detach()


model.run_with_hooks(tokens, return_type=None, fwd_hooks=[(lambda name: name.endswith("pattern"), score)])

# Knock out the three heads with the largest scores, and for comparison the three with the smallest from their layers on: earlier
# ones may score nothing and yet be what induction is made of, heads that look at the token before.
order = scores.flatten().argsort(descending=True)
others = [head for head in order.tolist() if head // cfg.n_heads >= int(order[:3].min()) // cfg.n_heads][-3:]


def loss_without(heads):
    chosen = [divmod(int(head), cfg.n_heads) for head in heads]

    def knock_out(z, hook):
        for layer, head in chosen:
            if layer == hook.layer():
                z[:, :, head] = 0.0

    names = sorted({utils.get_act_name("z", layer) for layer, _ in chosen})
    out = model.run_with_hooks(tokens, fwd_hooks=[(names, knock_out)])
    return utils.lm_cross_entropy_loss(out, tokens, per_token=True)[:, length + 1 :].mean().item()


without_induction, without_others = loss_without(order[:3]), loss_without(others)

# Which earlier heads does the best one read through its keys?
best = divmod(int(order[0]), cfg.n_heads)
composition = model.all_composition_scores("K")[:, :, best[0], best[1]]
