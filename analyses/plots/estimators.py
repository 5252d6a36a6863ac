"""What scores edges, as it is named and told apart in figures."""

from dataclasses import dataclass

from analyses.plots.labels import named
from analyses.plots.theme import INK, LINES
from interp.errors import ResultError

EXACT = "exact"
NAMES = {
    "eap": "EAP",
    "eap_ig_inputs": "EAP-IG (inputs)",
    "eap_ig_activations": "EAP-IG (activations)",
    "clean_corrupted": "clean-corrupted",
    "relp": "RelP",
    "atp_star": "AtP*",
}

COLOURS = (*LINES, "#7B4B2A", "#882255")
SYMBOLS = ("circle", "square", "triangle-up", "triangle-down", "cross", "x", "star", "pentagon")
MOST = len(COLOURS)


@dataclass(frozen=True)
class Look:
    """A colour and a marker, so that lines are told apart without either."""

    color: str
    symbol: str


def estimator_name(name: str) -> str:
    """As papers write it, and any other as it is."""
    return NAMES.get(name, named(name))


def looks(names: list[str], who: str) -> dict[str, Look]:
    """One for each, the exact effects in ink. Raises ResultError for more than can be told apart."""
    if len(names) > MOST:
        raise ResultError(f"{who}: {len(names)} estimators cannot be told apart; choose up to {MOST} by estimators=.")
    others = [name for name in names if name != EXACT]
    found = {name: Look(*look) for name, look in zip(others, zip(COLOURS, SYMBOLS, strict=True), strict=False)}
    return {name: Look(INK, "diamond") if name == EXACT else found[name] for name in names}
