"""Balanced brackets: train a small bidirectional classifier, and see which conditions its parts look for."""

import torch
import torch.nn.functional as F

from interp.transformer_lens import HookedTransformer, HookedTransformerConfig

torch.manual_seed(0)
START, OPEN, CLOSE = 0, 1, 2
length = 8


def balanced(brackets):
    """Whether every bracket has its other half: read from the left, never more closed than opened, and as many in the end."""
    depth = (brackets == OPEN).long().cumsum(1) - (brackets == CLOSE).long().cumsum(1)
    return (depth.min(1).values >= 0) & (depth[:, -1] == 0)


def draw(count, generator):
    """Half of them balanced, as far as there are such; others with as many of both, or drawn freely."""
    free = torch.randint(OPEN, CLOSE + 1, (20 * count, length), generator=generator)
    as_many = torch.rand(20 * count, length, generator=generator).argsort(1) % 2 + OPEN
    pool = torch.cat([free, as_many])
    right = balanced(pool)
    some = torch.cat(
        [
            pool[right][: count // 2],
            free[~right[: 20 * count]][: count // 4],
            as_many[~right[20 * count :]][: count // 4],
        ]
    )
    rows = torch.cat([torch.full((len(some), 1), START), some], dim=1)
    return rows, balanced(some).long()


generator = torch.Generator().manual_seed(0)
cfg = HookedTransformerConfig(
    n_layers=2, d_model=32, n_heads=2, d_head=16, d_mlp=64, n_ctx=length + 1, d_vocab=3, d_vocab_out=2, act_fn="relu",
    normalization_type="LN", attention_dir="bidirectional", seed=0, device="cpu",
)  # fmt: skip
model = HookedTransformer(cfg)
optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
losses = []
for _ in range(250):
    rows, labels = draw(64, generator)
    loss = F.cross_entropy(model(rows)[:, 0], labels)
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
    losses.append(loss.item())

model.eval()
rows, labels = draw(400, generator)
with torch.no_grad():
    logits, cache = model.run_with_cache(rows)
accuracy = (logits[:, 0].argmax(-1) == labels).float().mean().item()

# What each part adds to "not balanced" at the start, where the answer is read: on average over each kind of row.
parts, part_labels = cache.decompose_resid(pos_slice=0, return_labels=True)
reads = (model.W_U[:, 0] - model.W_U[:, 1]).detach() * model.ln_final.w.detach()
attributions = (cache.apply_ln_to_stack(parts, pos_slice=0) * reads).sum(-1)
unequal = (rows == OPEN).sum(1) != (rows == CLOSE).sum(1)
negative = ~unequal & (labels == 0)
by_kind = {
    name: attributions[:, kind].mean(1)
    for name, kind in (("balanced", labels == 1), ("unequal", unequal), ("negative", negative))
}

# The part that tells them most apart is taken out: its mean is put in its place.
spread = (by_kind["unequal"] - by_kind["balanced"]).abs()
strongest = part_labels[int(spread.argmax())]
layer, kind = strongest.split("_")[:2]


def to_its_mean(value, hook):
    return value.mean(0, keepdim=True).expand_as(value)


with torch.no_grad():
    changed = model.run_with_hooks(rows, fwd_hooks=[(f"blocks.{layer}.hook_{kind}_out", to_its_mean)])
accuracy_without = (changed[:, 0].argmax(-1) == labels).float().mean().item()
