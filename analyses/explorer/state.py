"""What a browser tab asks about: prompts, a selection, and changes. All of it stands in the page's address."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from analyses.explorer.limits import LARGEST_AMOUNT, WHO, among, number, text, whole
from interp.errors import InterpError, nearest

Kind = Literal["patch", "ablate", "steer", "inject"]
KINDS: tuple[str, ...] = get_args(Kind)

SITES = ("resid_pre", "attn_out", "mlp_out", "z")
"""What can be patched: the stream entering a layer, what attention or MLP writes, what one head reads."""

LONGEST_TEXT, MOST_CHANGES = 8_000, 24
"""Characters of a prompt, and changes at once."""

LARGEST_SEED = 2**31 - 1
RUNS = ("clean", "corrupt")


@dataclass(frozen=True)
class Change:
    """One intervention in the run that is changed.

    Args:
        kind: `patch`, the other run's value; `ablate`, zero in the place of what a head reads; `steer`, `amount` times the stream's length
            added towards the unembedding of a token, away from another's; `inject`, a random direction, `amount` times as long as the
            stream (its dose).
        layer: where.
        position: at which token; None is all of them.
        head: of a patch at `z`, and of an ablation.
        site: of a patch.
        amount: of steering or of a disturbance, over the length of the stream there as its readers see it.
        toward, away: tokens; no `away` is away from none.
        seed: of the direction that is injected.
        on: whether it is made.
    """

    kind: Kind
    layer: int
    position: int | None = None
    head: int | None = None
    site: str = "resid_pre"
    amount: float = 0.1
    toward: str = ""
    away: str = ""
    seed: int = 0
    on: bool = True

    def __post_init__(self) -> None:
        """Raises InterpError for what cannot be."""
        _check_change(vars(self))

    @classmethod
    def from_json(cls, given: Any) -> "Change":
        """The change of JSON values, which may come from anyone. Raises InterpError for what is none."""
        values = _known(given, cls)
        _check_change(values)
        return cls(**values | {"amount": float(values["amount"])})

    @property
    def of_head(self) -> bool:
        """Whether it changes one head."""
        return self.kind == "ablate" or (self.kind == "patch" and self.site == "z")

    @property
    def spreads(self) -> bool:
        """Whether it adds something to the stream, of an amount that can be changed."""
        return self.kind in ("steer", "inject")

    @property
    def named(self) -> str:
        """In a few words."""
        where = "everywhere" if self.position is None else f"at {self.position}"
        if self.kind == "ablate":
            return f"ablate head {self.layer}.{self.head} {where}"
        if self.kind == "patch":
            part = f"head {self.layer}.{self.head}" if self.site == "z" else f"{self.site} {self.layer}"
            return f"patch {part} {where}"
        if self.kind == "steer":
            away = f", away from {self.away!r}" if self.away else ""
            return f"steer layer {self.layer} {where} towards {self.toward!r}{away}, {self.amount:g} × its length"
        return f"disturb layer {self.layer} {where}, dose {self.amount:g}, direction {self.seed}"


@dataclass(frozen=True)
class State:
    """Everything that a view depends on.

    Args:
        model: by its name in the list.
        clean, corrupt: texts; an empty corrupt one is none.
        answer, wrong: single tokens; empty is the model's prediction after the clean and the corrupt text.
        changed: which run the changes are made in; patches come from the other.
        layer, position, head: the selection.
        site: what a grid of patches shows and a click patches.
        shown: which text lens and attention are of.
        lens: `logit` or `tuned`.
        changes: in the order in which they were made.
        temperature, seed: of the texts that are sampled.
    """

    model: str = "smalltown"
    clean: str = ""
    corrupt: str = ""
    answer: str = ""
    wrong: str = ""
    changed: Literal["corrupt", "clean"] = "corrupt"
    layer: int = 0
    position: int = 0
    head: int = 0
    site: str = "resid_pre"
    shown: Literal["clean", "corrupt"] = "clean"
    lens: Literal["logit", "tuned"] = "logit"
    changes: tuple[Change, ...] = ()
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InterpError for what cannot be."""
        _check_state(vars(self))

    @property
    def base(self) -> str:
        """The run that is changed: without a corrupt text the clean one."""
        return self.changed if self.corrupt else "clean"

    @property
    def text(self) -> str:
        """Of that run."""
        return self.clean if self.base == "clean" else self.corrupt

    @property
    def suffix(self) -> str:
        """Of the results of the text that is shown; without a corrupt text that is the clean one."""
        return "_corrupt" if self.shown == "corrupt" and self.corrupt else ""

    @property
    def other(self) -> str:
        """The text that patches come from; empty where there is none."""
        return "" if not self.corrupt else self.corrupt if self.base == "clean" else self.clean

    def but(self, **values: Any) -> "State":
        """The same with some values changed."""
        return replace(self, **values)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"changes": [asdict(one) for one in self.changes]}

    @classmethod
    def from_json(cls, given: Any) -> "State":
        """The state of JSON values, which may come from anyone. Raises InterpError for what is none."""
        values = _known(given, cls)
        changes = values.get("changes", ())
        if not isinstance(changes, list | tuple):
            raise InterpError(f"{WHO}: changes are a list; got {type(changes).__name__}.")
        if len(changes) > MOST_CHANGES:
            raise InterpError(f"{WHO}: {len(changes)} changes; at most {MOST_CHANGES} at once. Remove some.")
        values["changes"] = tuple(Change.from_json(one) for one in changes)
        _check_state(values)
        return cls(**values | {"temperature": float(values["temperature"])})


def _check_change(values: Mapping[str, Any]) -> None:
    kind, site = values["kind"], values["site"]
    among(kind, KINDS, "a change")
    among(site, SITES, "what is patched")
    whole(values["layer"], "layer")
    for name in ("position", "head"):
        if values[name] is not None:
            whole(values[name], name)
    whole(values["seed"], "seed", LARGEST_SEED)
    number(values["amount"], "amount", -LARGEST_AMOUNT)
    for name in ("toward", "away"):
        text(values[name], name, 200)
    if not isinstance(values["on"], bool):
        raise InterpError(f"{WHO}: a change is on or off; got {str(values['on'])[:40]!r}.")
    if values["head"] is None and (kind == "ablate" or (kind == "patch" and site == "z")):
        raise InterpError(f"{WHO}: to {kind} a head, say which head.")
    if kind == "inject" and (values["position"] is None or values["amount"] <= 0):
        raise InterpError(f"{WHO}: a disturbance has one position and a dose above 0.")
    if kind == "steer" and not values["toward"]:
        raise InterpError(f"{WHO}: name a token to steer towards, with its leading space.")


def _check_state(values: Mapping[str, Any]) -> None:
    text(values["model"], "model", 300)
    for name in ("clean", "corrupt"):
        text(values[name], f"the {name} text", LONGEST_TEXT)
    for name in ("answer", "wrong"):
        text(values[name], name, 200)
    among(values["changed"], RUNS, "the run that is changed")
    among(values["shown"], RUNS, "the text that is shown")
    among(values["lens"], ("logit", "tuned"), "a lens")
    among(values["site"], SITES, "what is patched")
    for name in ("layer", "position", "head"):
        whole(values[name], name)
    whole(values["seed"], "seed", LARGEST_SEED)
    number(values["temperature"], "temperature", 0.0)
    if len(values["changes"]) > MOST_CHANGES:
        raise InterpError(f"{WHO}: {len(values['changes'])} changes; at most {MOST_CHANGES} at once. Remove some.")


def _known(given: Any, of: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise InterpError(f"{WHO}: what was sent is no {of.__name__.lower()}.")
    names = [one.name for one in fields(of)]
    if unknown := [str(name)[:40] for name in given if name not in names]:
        raise InterpError(f"{WHO}: a {of.__name__.lower()} has no {unknown[0]!r}. {nearest(unknown[0], names)}")
    if missing := [name for name in ("kind", "layer") if of is Change and name not in given]:
        raise InterpError(f"{WHO}: a change has a {missing[0]}.")
    usual = {one.name: one.default for one in fields(of) if one.default is not MISSING}
    return usual | dict(given)
