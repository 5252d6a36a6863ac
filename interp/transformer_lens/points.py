"""Hooks as TransformerLens attaches them: they stay until they are reset, and are called as `fn(value, hook=point)`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

import interp
from interp.errors import ConfigError, HookError, nearest
from interp.names import Selection, select
from interp.transformer_lens.config import HookedTransformerConfig

HookFunction = Callable[..., Any]
Direction = Literal["fwd", "bwd"]
Both = Literal["fwd", "bwd", "both"]
RESULT, TOKENS = "hook_result", "hook_tokens"


class HookPoint:
    """A hook point as a hook sees it.

    Attributes:
        name: the full hook name.
        ctx: where hooks keep what they want to find again; emptied by `reset_hooks`.
    """

    def __init__(self, name: str, owner: "WithHooks") -> None:
        self.name, self._owner = name, owner
        self.ctx: dict[Any, Any] = {}

    def layer(self) -> int:
        """The block that it stands in. Raises HookError for a point outside of the blocks."""
        parts = self.name.split(".")
        if parts[0] != "blocks":
            raise HookError(f"{self.name} stands in no layer.")
        return int(parts[1])

    @property
    def positions(self) -> Tensor | None:
        """[batch, position], absolute, of the run now under way."""
        return self._owner.core.hook_points[self.name].positions

    @property
    def axes(self) -> tuple[str, ...]:
        """What the axes of its value mean."""
        return self._owner.core.hook_points[self.name].axes

    def add_hook(self, hook: HookFunction, dir: Direction = "fwd", is_permanent: bool = False) -> None:
        """As `model.add_hook` with its name."""
        self._owner.add_hook(self.name, hook, dir, is_permanent)

    def clear_context(self) -> None:
        self.ctx.clear()

    def __repr__(self) -> str:
        return f"HookPoint({self.name!r})"


def checked_pairs(given: Any) -> list[tuple[Selection, HookFunction]]:
    """Hooks as they are given to a run. Raises HookError for what is no list of pairs of names and a function."""
    pairs = list(given) if isinstance(given, (list, tuple)) else [given]
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not callable(pair[1]):
            raise HookError(
                f"hooks: give a list of pairs, each of names (or a predicate) and a function; got {pair!r}."
            )
    return [(selection, function) for selection, function in pairs]


def _check_direction(given: str, *known: str) -> None:
    if given not in known:
        raise HookError(f"hooks: the direction must be one of {', '.join(map(repr, known))}, got {given!r}.")


@dataclass
class Attached:
    """Hooks that were added together.

    Args:
        began: how many runs the model had seen by then.
    """

    dir: Direction
    permanent: bool
    began: int
    block: ExitStack = field(repr=False)
    level: int | None = None


class WithHooks(nn.Module):
    """What a model does with hooks. It fills `core`, `cfg` and calls `open_points`."""

    core: interp.Transformer
    cfg: HookedTransformerConfig

    def open_points(self) -> None:
        """Let the hook points be there that the configuration asks for. Raises HookError while hooks are attached."""
        heads = ("hook_q_input", "hook_k_input", "hook_v_input") if self.cfg.use_split_qkv_input else ()
        mlp = ("hook_mlp_in",) if self.cfg.use_hook_mlp_in and self.core.config.mlp != "none" else ()
        self.core.listen_to_inputs(*heads, *mlp)
        if self.cfg.use_hook_tokens:
            self.core.hook_points = {TOKENS: interp.HookPoint(TOKENS, ("batch", "position")), **self.core.hook_points}
        self._runs = 0
        self._attached: list[Attached] = []
        self.hook_dict: dict[str, HookPoint] = {
            name: HookPoint(name, self)
            for name in self.core.hook_points
            if self.cfg.use_attn_result or not name.endswith(RESULT)
        }

    def set_ungroup_grouped_query_attention(self, ungroup_grouped_query_attention: bool) -> None:
        """Raises ConfigError for True: points of keys and values have one head for each that there is."""
        if ungroup_grouped_query_attention:
            raise ConfigError(
                "set_ungroup_grouped_query_attention is not done here: points of keys and values have one head for each that there is."
            )

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Whether what each head writes, `attn.hook_result`, is a hook point."""
        self._reopen("use_attn_result", use_attn_result)

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Whether what each head's queries, keys and values read, `hook_q_input` and so on, are hook points."""
        self._reopen("use_split_qkv_input", use_split_qkv_input)

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Whether what the MLP reads, before its norm, `hook_mlp_in`, is a hook point."""
        self._reopen("use_hook_mlp_in", use_hook_mlp_in)

    def _reopen(self, name: str, value: bool) -> None:
        before = getattr(self.cfg, name)
        setattr(self.cfg, name, value)
        try:
            self.open_points()
        except HookError:
            setattr(self.cfg, name, before)
            raise

    def add_hook(
        self,
        name: Selection,
        hook: HookFunction,
        dir: Direction = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """Attach a function until `reset_hooks`.

        Args:
            name: exact, a glob, a list or a predicate of names.
            hook: called as `hook(value, hook=point)` with a value, or a gradient where `dir` is "bwd"; returns a replacement or None.
            is_permanent: stays also then, unless permanent ones are reset too.
            level: for `reset_hooks(level=)`, which takes away those of this level alone.
            prepend: is False; hooks are called in the order in which they were added.

        Raises:
            HookError: a name that is none, or that the model has only where it is switched on; `prepend`, which is not done here.
        """
        if prepend:
            raise HookError("add_hook: prepend is not done here; add the hook before the others.")
        _check_direction(dir, "fwd", "bwd")
        added = self._attach(
            [(name, hook)] if dir == "fwd" else [], [(name, hook)] if dir == "bwd" else [], is_permanent
        )
        for one in added:
            one.level = level

    def add_perma_hook(self, name: Selection, hook: HookFunction, dir: Direction = "fwd") -> None:
        """As `add_hook`, permanent."""
        self.add_hook(name, hook, dir, is_permanent=True)

    def reset_hooks(
        self,
        clear_contexts: bool = True,
        direction: Both = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Take away the hooks that were added.

        Args:
            level: only those that were added with it; None is all.

        Raises:
            HookError: after all are gone, where one was never called though the model ran since it was added.
        """
        _check_direction(direction, "fwd", "bwd", "both")
        going = [
            one
            for one in self._attached
            if direction in ("both", one.dir)
            and (including_permanent or not one.permanent)
            and (level is None or one.level == level)
        ]
        self._take_away(going)
        if clear_contexts:
            self.clear_contexts()

    def clear_contexts(self) -> None:
        """Empty what hooks kept at their points."""
        for point in self.hook_dict.values():
            point.clear_context()

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Sequence[tuple[Selection, HookFunction]] = (),
        bwd_hooks: Sequence[tuple[Selection, HookFunction]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[Any]:
        """Hooks for the length of a `with` block; a backward pass must be within it.

        Args:
            reset_hooks_end: take them away at its end; else they stay as added ones do.

        Raises:
            HookError: a name that is none; at the end, a hook that was never called.
        """
        added = self._attach(fwd_hooks, bwd_hooks, permanent=False)
        try:
            yield self
        except BaseException:
            self._take_away(added, check=False)
            raise
        if reset_hooks_end:
            self._take_away(added, always=True)
        if clear_contexts:
            self.clear_contexts()

    def names(self, selection: Selection, purpose: str, among: Sequence[str] | None = None) -> list[str]:
        """The hook names that a selection chooses, in forward order. Raises HookError where it misses."""
        available = list(self.hook_dict) if among is None else among
        for one in [selection] if isinstance(selection, str) else selection if isinstance(selection, list) else []:
            self._check_open(one, purpose)
            if among is not None and one in self.hook_dict and one not in among:
                raise HookError(f"{purpose}: {one} is not reached by a run that starts or stops at that layer.")
        return select(selection, available, purpose)

    def with_gradients(self, names: list[str]) -> list[str]:
        """Those of some points to whose values a gradient can come: all but the ids. Raises HookError where none is left."""
        kept = [name for name in names if name != TOKENS]
        if names and not kept:
            raise HookError(f"backward: {TOKENS} holds ids, to which no gradient comes.")
        return kept

    def _check_open(self, name: Any, purpose: str) -> None:
        switches = {
            RESULT: "set_use_attn_result(True)",
            "hook_q_input": "set_use_split_qkv_input(True)",
            "hook_k_input": "set_use_split_qkv_input(True)",
            "hook_v_input": "set_use_split_qkv_input(True)",
            "hook_mlp_in": "set_use_hook_mlp_in(True)",
        }
        switch = switches.get(name.rpartition(".")[2]) if isinstance(name, str) else None
        if switch is not None and name not in self.hook_dict and "*" not in name:
            raise HookError(
                f"{purpose}: {name} is no hook point yet; call model.{switch} first. {nearest(name, self.hook_dict)}"
            )

    def _attach(
        self,
        fwd: Sequence[tuple[Selection, HookFunction]],
        bwd: Sequence[tuple[Selection, HookFunction]],
        permanent: bool,
        among: Sequence[str] | None = None,
    ) -> list[Attached]:
        added: list[Attached] = []
        fwd, bwd = checked_pairs(fwd), checked_pairs(bwd)
        try:
            for selection, function in fwd:
                named = [(self.names(selection, "hooks", among), self._called(function))]
                added.append(self._opened("fwd", permanent, self.core.hooks(named)))
            for selection, function in bwd:
                names = self.with_gradients(self.names(selection, "hooks", among))
                added.append(
                    self._opened("bwd", permanent, self.core.backward_hooks([(names, self._called(function))]))
                )
        except BaseException:
            self._take_away(added, check=False)
            raise
        return added

    def _opened(self, dir: Direction, permanent: bool, hooks: Any) -> Attached:
        block = ExitStack()
        block.enter_context(hooks)
        attached = Attached(dir, permanent, self._runs, block)
        self._attached.append(attached)
        return attached

    def _called(self, function: HookFunction) -> Callable[[Tensor, interp.HookPoint], Tensor | None]:
        def call(value: Tensor, point: interp.HookPoint) -> Tensor | None:
            returned = function(value, hook=self.hook_dict[point.name])
            one = isinstance(returned, tuple) and len(returned) == 1  # as hooks of torch's own return a gradient
            kept: Tensor | None = returned[0] if one else returned
            return kept

        return call

    def _take_away(self, going: Sequence[Attached], check: bool = True, always: bool = False) -> None:
        missed: list[HookError] = []
        for one in going:
            if one not in self._attached:
                continue
            self._attached.remove(one)
            try:
                one.block.close()
            except HookError as error:
                if always or self._runs > one.began:
                    missed.append(error)
        if check and missed:
            raise missed[0]
