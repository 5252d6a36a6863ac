"""Each figure of a reference against the model's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analyses.verification.measures import HEADS, Grid, ioi, next_token, of_heads
from interp.errors import InterpError
from interp.model import Transformer

TITLES = {
    "direct_attribution": "attribution",
    "patching": "patching",
    "induction": "induction",
    "previous_token": "previous token",
    "duplicate_token": "duplicate token",
}


@dataclass(frozen=True)
class Check:
    """One figure: what it is, what the reference says, what the model gives, and how far it may be."""

    name: str
    reference: float
    found: float
    tolerance: float

    @property
    def difference(self) -> float:
        return self.found - self.reference

    @property
    def passed(self) -> bool:
        return abs(self.difference) <= self.tolerance  # never where it is NaN


def verify(model: Transformer, reference: Mapping[str, Any]) -> list[Check]:
    """Measure every figure of a reference again.

    Args:
        reference: of `read_reference` or `reference_of`.

    Raises:
        InterpError: a reference of a model of another shape: heads or tokens that this one does not have.
        TokenError: prompts that this model's tokenizer splits otherwise than the reference needs.
    """
    _check_heads(model, reference)
    asked, bos = reference["ioi"], bool(reference["bos"])
    found = ioi(model, asked["prompts"], bos=bos)
    checks = [
        Check(f"logit difference {number}", published, float(value), asked["tolerance"])
        for number, (published, value) in enumerate(zip(asked["logit_difference"], found, strict=True), start=1)
    ]
    grids = of_heads(model, asked["prompts"], reference["random_tokens"], bos=bos)
    for name in HEADS:
        checks += _of_heads(TITLES[name], reference[name], grids[name])
    one = reference["next_token"]
    predicted = next_token(model, one["prompt"], one["answer"], bos=bos)
    said = repr(one["answer"])
    checks.append(Check(f"rank of {said}", float(one["rank"]), float(predicted["rank"]), 0.0))
    checks.append(Check(f"probability of {said}", one["probability"], predicted["probability"], one["tolerance"]))
    return checks


def _of_heads(title: str, asked: Mapping[str, Any], grid: Grid) -> list[Check]:
    return [
        Check(f"{title} {name}", published, float(grid[_place(name)]), asked["tolerance"])
        for name, published in asked["figures"].items()
    ]


def _place(name: str) -> tuple[int, int]:
    layer, head = name.split(".")
    return int(layer), int(head)


def _check_heads(model: Transformer, reference: Mapping[str, Any]) -> None:
    shape = model.config.n_layers, model.config.n_heads
    named = [_place(name) for key in HEADS for name in reference[key]["figures"]]
    beyond = [place for place in named if place[0] >= shape[0] or place[1] >= shape[1]]
    if beyond:
        raise InterpError(
            f"verify: the reference of {reference.get('model')} names head {beyond[0][0]}.{beyond[0][1]}; {model.name} has {shape[0]} "
            f"layers of {shape[1]} heads. Give another --reference, or make one of this model with --write."
        )
