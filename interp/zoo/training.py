"""Train the embedded model `smalltown`: `make model`. Seeded, with a progress bar, and resumed after a kill."""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer as Backend
from torch import Tensor
from torch.nn.functional import cross_entropy

from interp.config import ModelConfig
from interp.files import write_whole
from interp.loading import EMBEDDED, save_directory
from interp.model import Transformer
from interp.tokenizer import Tokenizer
from interp.zoo.card import write_card
from interp.zoo.corpus import END_OF_TEXT, Phase, batch, train_tokenizer

SEED = 0
WARMUP = 100
PEAK_RATE, FINAL_RATE, DECAY, CLIP = 2e-3, 5e-5, 0.1, 1.0
# Short rows first: looking a token up in the context is learned many times sooner where the context is short.
PHASES = (
    Phase(steps=4000, rows=48, length=32, stories=0.25, repeats=0.3),
    Phase(steps=2700, rows=24, length=64, stories=0.5, repeats=0.25),
    Phase(steps=3300, rows=8, length=256, stories=0.6, repeats=0.15),
)
SAVE_EVERY = 100
VOCABULARY, TOKENIZER_DOCUMENTS = 2048, 20_000


def architecture(d_vocab: int) -> ModelConfig:
    """The shape of `smalltown`."""
    return ModelConfig(
        n_layers=6, d_model=128, n_heads=4, d_head=32, d_mlp=512, n_ctx=256, d_vocab=d_vocab, init_std=0.05
    )


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine from the peak to the final rate."""
    if step < WARMUP:
        return PEAK_RATE * (step + 1) / WARMUP
    progress = (step - WARMUP) / max(1, steps - WARMUP)
    return FINAL_RATE + (PEAK_RATE - FINAL_RATE) * (1 + math.cos(math.pi * progress)) / 2


def train(out: Path, work: Path, phases: Sequence[Phase] = PHASES, seed: int = SEED) -> Transformer:
    """Train from the last saved state in `work`, or from the start, and write the finished model to `out`.

    A step's rows depend only on the seed and the step's number, so a resumed run sees the same data as an uninterrupted one.
    """
    steps = sum(phase.steps for phase in phases)
    work.mkdir(parents=True, exist_ok=True)
    backend = _tokenizer(work / "tokenizer.json", seed)
    end = backend.token_to_id(END_OF_TEXT)
    tokenizer = Tokenizer(backend, bos=end, eos=end)
    model = Transformer(architecture(len(tokenizer)), tokenizer=tokenizer, name="smalltown", seed=seed)
    optimizer = _optimizer(model)
    first, losses = _resume(work, model, optimizer)
    columns = (
        "{task.description}",
        BarColumn(),
        "{task.completed}/{task.total}",
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, TextColumn("loss {task.fields[loss]:.3f}"), console=Console(stderr=True)) as progress:
        bar = progress.add_task(
            "training smalltown", total=steps, completed=first, loss=losses[-1] if losses else math.nan
        )
        for step in range(first, steps):
            losses.append(_step(model, optimizer, backend, phases, step, seed))
            progress.update(bar, advance=1, loss=losses[-1])
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
                _save(work, model, optimizer, step + 1, losses)
    save_directory(model, out)
    record = {
        "steps": steps,
        "seed": seed,
        "phases": [asdict(phase) for phase in phases],
        "loss": [round(x, 4) for x in losses],
    }
    write_whole(out / "training.json", lambda path: path.write_text(json.dumps(record) + "\n"))
    write_card(model, record, out)
    return model


def _step(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    backend: Backend,
    phases: Sequence[Phase],
    step: int,
    seed: int,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, sum(phase.steps for phase in phases))
    ends = accumulate(phase.steps for phase in phases)
    phase = next(phase for phase, end in zip(phases, ends, strict=True) if step < end)
    tokens, targets = batch(backend, phase, seed, step)
    loss = cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    return float(loss.detach())


def _optimizer(model: Transformer) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), fused=True)


def _tokenizer(path: Path, seed: int) -> Backend:
    if not path.exists():
        trained = train_tokenizer(VOCABULARY, TOKENIZER_DOCUMENTS, seed)
        write_whole(path, lambda temporary: temporary.write_text(trained.to_str(pretty=True), encoding="utf-8"))
    return Backend.from_file(str(path))


def _save(work: Path, model: Transformer, optimizer: torch.optim.Optimizer, step: int, losses: list[float]) -> None:
    tensors = {f"model.{name}": value.detach() for name, value in model.named_parameters()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    metadata = {"step": str(step), "losses": json.dumps(losses)}
    write_whole(work / "state.safetensors", lambda path: save_file(tensors, path, metadata=metadata))


def _resume(work: Path, model: Transformer, optimizer: torch.optim.Optimizer) -> tuple[int, list[float]]:
    path = work / "state.safetensors"
    if not path.exists():
        return 0, []
    with safe_open(path, framework="pt") as file:
        tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    weights = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    model.load_state_dict(weights)
    states: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, field = key.split(".")
            states.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"]), json.loads(metadata["losses"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=EMBEDDED / "smalltown", help="where the finished model goes")
    parser.add_argument(
        "--work", type=Path, default=Path("out/smalltown-training"), help="where the state to resume from is kept"
    )
    arguments = parser.parse_args()
    started = time.monotonic()
    train(arguments.out, arguments.work)
    print(f"{arguments.out}: trained in {(time.monotonic() - started) / 60:.1f} minutes of this run")


if __name__ == "__main__":
    main()
