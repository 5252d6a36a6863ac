"""The cascade outside as it happens: two texts sampled on the same noise, step by step."""

import threading
import time
from collections import OrderedDict

import torch

from analyses.cascade.coupled import compared, drawn_pairs
from analyses.cascade.disturbances import stacked
from analyses.explorer.asked import tokens_of
from analyses.explorer.limits import WHO
from analyses.explorer.models import Models
from analyses.explorer.state import State
from interp.errors import InterpError
from interp.generation import Reading
from interp.model import Transformer

MOST_STEPS, MOST_LIVE = 200, 8
"""Tokens that two texts are continued by, and pairs of texts that are kept."""


class Live:
    """Two texts on the same noise, continued a token at a time, as `analyses.cascade.coupled` does with one seed.

    Attributes:
        tokens: of the clean and of the other text, what was sampled.
        kl, h: at each step, as there.
    """

    def __init__(self, model: Transformer, state: State) -> None:
        """Raises InterpError without a second text, or where the context has no room."""
        if not state.corrupt:
            raise InterpError(f"{WHO}: two texts are written side by side; give a corrupt one too.")
        rows = stacked([tokens_of(model, state.clean, "clean"), tokens_of(model, state.corrupt, "corrupt")])
        self.most = min(MOST_STEPS, model.config.n_ctx - rows.shape[1])
        if self.most < 1:
            raise InterpError(f"{WHO}: the texts fill the context of {model.config.n_ctx} tokens; shorten them.")
        self._reading, self._temperature = Reading(model, rows, self.most), state.temperature
        self._generators = [torch.Generator().manual_seed(state.seed)]
        self._pieces = model.need_tokenizer().pieces
        self.tokens: tuple[list[str], list[str]] = ([], [])
        self.kl: list[float] = []
        self.h: list[float] = []

    @torch.no_grad()
    def step(self) -> None:
        """One more token of each. Raises InterpError where the texts are as long as they can be."""
        if len(self.kl) >= self.most:
            raise InterpError(f"{WHO}: the texts are as long as they can be here, {self.most} tokens.")
        logits = self._reading.logits()
        drawn = drawn_pairs(logits, self._temperature, self._generators)
        found = compared(logits, drawn, self._temperature)
        for text, token in zip(self.tokens, drawn[:, 0].tolist(), strict=True):
            text += self._pieces([token])
        self.kl.append(float(found["kl"][0]))
        self.h.append(float(found["h"][0]))
        if len(self.kl) < self.most:
            self._reading.add(drawn.flatten())


class Lives:
    """Pairs of texts under way, by what decides them; whoever asks for the same ones reads the same."""

    def __init__(self, models: Models) -> None:
        self._models, self._lock = models, threading.Lock()
        self._live: OrderedDict[tuple[object, ...], Live] = OrderedDict()

    def to(self, state: State, steps: int, seconds: float) -> Live:
        """The texts of a state, continued until they have so many steps or the time is over; at least by one step."""
        end = time.monotonic() + seconds
        with self._models.use(state.model) as model:
            weights = self._models.loading(state.model)
            key = (weights, state.clean, state.corrupt, state.temperature, state.seed)
            with self._lock:
                live = self._live.get(key)
            live = Live(model, state) if live is None else live
            while len(live.kl) < min(steps, live.most):
                live.step()
                if time.monotonic() > end:
                    break
        with self._lock:
            self._live[key] = live
            self._live.move_to_end(key)
            while len(self._live) > MOST_LIVE:
                self._live.popitem(last=False)
        return live
