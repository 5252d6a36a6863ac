"""Models that are a Markov chain of order 1, and the exact joint law of two draws from the same Gumbel noise."""

import numpy as np
import torch
from scipy.integrate import quad

from interp import ModelConfig, Transformer


def chain(transition: np.ndarray, n_ctx: int = 128) -> Transformer:
    """A transformer whose next token depends on the last alone: each token's embedding is its own axis, attention writes nothing."""
    size = len(transition)
    config = ModelConfig(
        n_layers=1, d_model=size, n_heads=1, d_head=size, d_mlp=4, n_ctx=n_ctx, d_vocab=size, norm="none", mlp="none", tied=False
    )  # fmt: skip
    model = Transformer(config).requires_grad_(False).to(torch.float64)
    for weight in model.parameters():
        weight.zero_()
    model.W_E.copy_(torch.eye(size))
    model.unembedding.copy_(torch.from_numpy(np.log(transition)).T)
    return model


def both(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """P(first draws i, second draws j): a race of exponential clocks E_k at rates p and q, integrated over the ratio of the two ends."""
    joint = np.empty((len(p), len(p)))
    for i in range(len(p)):
        for j in range(len(p)):
            if i == j:
                joint[i, i] = 1 / np.maximum(p / p[i], q / q[i]).sum()
                continue
            low, high = q[i] / p[i], q[j] / p[j]
            rest = [k for k in range(len(p)) if k not in (i, j)]

            def density(ratio: float, i: int = i, j: int = j, rest: list[int] = rest) -> float:
                return p[i] * q[j] / (p[i] * ratio + q[j] + np.maximum(p[rest] * ratio, q[rest]).sum()) ** 2

            joint[i, j] = quad(density, low, high)[0] if low < high else 0.0
    return joint


def coalescence(transition: np.ndarray) -> np.ndarray:
    """Mean steps until two coupled chains that stand at different states are at the same: (I - Q)^-1 1."""
    size = len(transition)
    apart = [(a, b) for a in range(size) for b in range(size) if a != b]
    q = np.array([[both(transition[a], transition[b])[pair] for pair in apart] for a, b in apart])
    times = np.linalg.solve(np.eye(len(apart)) - q, np.ones(len(apart)))
    found = np.zeros((size, size))
    for pair, time in zip(apart, times, strict=True):
        found[pair] = time
    return found


TRANSITION = np.array([[0.55, 0.2, 0.15, 0.1], [0.1, 0.6, 0.2, 0.1], [0.15, 0.1, 0.25, 0.5], [0.3, 0.1, 0.4, 0.2]])
