"""A survey's tables as one result of its analysis: means over prompts, with intervals."""

import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from analyses.averaged import GROUP, LEFT_OUT, PROMPTS, TOKENS
from analyses.from_end import FROM_END
from analyses.results import load
from analyses.survey.dense import Axes, Dense, Key, group_names, read_dense
from analyses.survey.manifest import MANIFEST, TEMPLATE, asked_in, done, is_report
from analyses.survey.moments import Moments
from analyses.survey.surveyed import Surveyed, surveyed
from interp.errors import ResultError
from interp.files import regular
from interp.strict_json import parse
from interp.tokenizer import PAD

ENDS = ("_mean", "_standard_error", "_interval")
MOST_GROUPS = 200


def summarise(folder: str | Path, *, by: str | Sequence[str] | None = None) -> xr.Dataset:
    """What a survey found, as a result of its analysis: `plot`, `save` and reports take it as they take one of several prompts.

    The tables are read shard by shard. Up to 1,024 prompts and 16 MB of a quantity are resampled as the analysis does it, so that the
    intervals are its own; of more, intervals are of a Poisson bootstrap.

    Args:
        folder: of a finished survey.
        by: a label, or several: the same for the prompts of each value.

    Returns:
        The analysis' own Dataset, with one prompt, the mean over all: each variable the mean over the prompts that have a value (of what
        multiplies up, such as reproduction numbers, the geometric one), text and ids empty; `_mean`, `_standard_error` and `_interval` as
        the analysis has them, NaN where a prompt has no value. Numbers that it gives once for all prompts together are NaN.
        `averaged_prompts` is the prompts' number, `averaged_left_out` that of pairs without an effect, `averaged_tokens` (bound) the fewest
        and most tokens. In prompts of unequal length positions are counted from the end. With `by`, all that by `group` too, None
        where a label is missing: `summary.sel(group="...")` is the result of one.

    Raises:
        ResultError: no folder of a finished survey, tables that are not what was written, a label that is not there or has too many values.
    """
    place = Path(folder)
    about, reports = surveyed(asked_in(place)["analysis"]), _reports(place)
    labels = [by] if isinstance(by, str) else list(by or ()) if isinstance(by, Sequence | None) else [str(by)]
    lengths = [report["lengths"] for report in reports if report["lengths"]]
    if not lengths:
        raise ResultError(f"summarise: not one row of {place} could be measured.")
    if not (place / TEMPLATE).exists():
        raise ResultError(f"summarise: {place} has no {TEMPLATE}; run the survey again, which makes it.")
    template = load(place / TEMPLATE)
    bounds = (min(low for low, _ in lengths), max(high for _, high in lengths))
    axes = Axes.of(template, *bounds)
    found: dict[Key, _Group] = {}
    for report in reports:
        if not report["accepted"]:
            continue
        if done(place, report["shard"]) is None:
            raise ResultError(
                f"summarise: the tables of shard {report['shard']} are not those that were written; run the survey again."
            )
        dense = read_dense(place, report["shard"], template, axes, labels)
        for key in dict.fromkeys(dense.groups):
            if not found.setdefault(key, _Group(template, about)).seen and len(found) > MOST_GROUPS:
                raise ResultError(
                    f"summarise: {', '.join(labels)} has more than {MOST_GROUPS} values; choose a label with fewer."
                )
            found[key].add(dense, np.array([one == key for one in dense.groups]))
    names = group_names(list(found))
    whole = [found[key].result(axes, bounds) for key in names]
    if not labels:
        return whole[0]
    joined: xr.Dataset = xr.concat(
        whole, xr.Variable(GROUP, np.array(list(names.values()), dtype=object)), data_vars="all", coords="minimal", compat="override",
        combine_attrs="override",
    )  # fmt: skip
    return joined


def _reports(folder: Path) -> list[dict[str, Any]]:
    try:
        manifest = parse(regular(folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(
            f"summarise: the survey in {folder} is not finished; the same call or command goes on with it."
        ) from error
    shards = manifest.get("shards") if isinstance(manifest, dict) else None
    if not isinstance(shards, list) or not all(map(is_report, shards)):
        raise ResultError(f"summarise: {MANIFEST} in {folder} is damaged; run the survey again, which makes it anew.")
    return shards


class _Group:
    """The prompts of one value of a label, or all of them."""

    def __init__(self, template: xr.Dataset, about: Surveyed) -> None:
        self.template, self.about = template, about
        self.seen = 0
        self.left_out = 0
        self.plain: dict[str, Moments] = {}
        self.stated: dict[str, Moments] = {}

    def add(self, dense: Dense, mine: np.ndarray) -> None:
        """The prompts of a shard that belong here."""
        rows = dense.rows[mine]
        self.seen += len(rows)
        out = dense.values["left_out"][mine] > 0 if "left_out" in dense.values else np.zeros(len(rows), dtype=bool)
        self.left_out += int(out.sum())
        for name, every in dense.values.items():
            values = self._on_scale(name, every[mine])
            self.plain.setdefault(name, Moments(False)).add(values, rows)
        for name, source in self._means().items():
            values = self._on_scale(source, dense.values[source][mine])
            values = self._reduced(name, source, values)
            without = out & np.isnan(values).reshape(len(values), -1).all(1)  # its runs are equal: no mean can hold it
            has_interval = f"{name}_interval" in self.template
            self.stated.setdefault(name, Moments(has_interval, name in self.about.shares)).add(
                values[~without], rows[~without]
            )

    def _means(self) -> dict[str, str]:
        """What the analysis states the mean or the interval of, and from which variable."""
        stems = {
            str(name).removesuffix(end) for name in self.template.data_vars for end in ENDS if str(name).endswith(end)
        }
        sources = {stem: self.about.means.get(stem, stem) for stem in sorted(stems)}
        return {
            stem: source
            for stem, source in sources.items()
            if source in self.template and "prompt" in self.template[source].dims
        }

    def _on_scale(self, name: str, values: np.ndarray) -> np.ndarray:
        if name not in self.about.geometric:
            return values
        with np.errstate(divide="ignore"):
            logarithm: np.ndarray = np.log(values)
        return logarithm

    def _dims(self, name: str) -> list[str]:
        return [str(dim) for dim in self.template[name].dims if dim not in ("prompt", "bound")]

    def _stated_dims(self, name: str) -> list[str]:
        return self._dims(next(f"{name}{end}" for end in ENDS if f"{name}{end}" in self.template))

    def _reduced(self, name: str, source: str, values: np.ndarray) -> np.ndarray:
        """A prompt's own mean over the axes that the stated one does not have."""
        kept, dims = self._stated_dims(name), self._dims(source)
        over = tuple(1 + place for place, dim in enumerate(dims) if dim not in kept)
        if not over:
            return values
        counted = np.isfinite(values).sum(over)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: np.ndarray = np.nansum(values, over) / counted
        return found

    def result(self, axes: Axes, lengths: tuple[int, int]) -> xr.Dataset:
        """The Dataset of these prompts."""
        template = self.template
        variables: dict[str, Any] = {}
        for name, old in template.data_vars.items():
            name, dims = str(name), [str(dim) for dim in old.dims]
            if "prompt" in dims:
                variables[name] = (dims, self._one(name, dims, axes), old.attrs)
            elif not any(name.endswith(end) and name.removesuffix(end) in self._means() for end in ENDS):
                values = np.full(old.shape, np.nan) if old.dtype.kind == "f" else old.to_numpy()
                variables[name] = (dims, values, old.attrs)
        variables |= self._over_prompts(axes)
        variables[PROMPTS] = ((), self.seen, {"long_name": "prompts averaged over", "units": "1"})
        variables[LEFT_OUT] = (
            (),
            self.left_out,
            {"long_name": "pairs without an effect, their runs being equal", "units": "1"},
        )
        variables[TOKENS] = (
            ("bound",),
            np.array(lengths),
            {"long_name": "fewest and most tokens of a prompt", "units": "tokens"},
        )
        attrs = {**template.attrs, "prompts": json.dumps({role: [] for role in parse(template.attrs["prompts"])})}
        return xr.Dataset(variables, self._coords(axes), attrs)

    def _one(self, name: str, dims: list[str], axes: Axes) -> np.ndarray:
        kind = self.template[name].dtype.kind
        shape = [1 if dim == "prompt" else len(axes.coords[dim]) for dim in dims]
        if name not in self.plain:
            return np.full(shape, "", dtype=object)
        if name.endswith("_id"):
            return np.full(shape, PAD)
        if name == "left_out":
            return np.zeros(shape, dtype=bool)
        mean = self.plain[name].mean()
        mean = np.exp(mean) if name in self.about.geometric else mean
        found: np.ndarray = np.expand_dims(mean, dims.index("prompt"))
        return found.astype(self.template[name].dtype) if kind == "f" and name not in self.about.geometric else found

    def _over_prompts(self, axes: Axes) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, moments in self.stated.items():
            dims = [FROM_END if axes.from_end and dim == "position" else dim for dim in self._stated_dims(name)]
            there = "prompts" if moments.n == self.seen else f"{moments.n} of {self.seen} prompts"
            said = {"_mean": ("mean", moments.of_all), "_standard_error": ("standard error", moments.standard_error)}
            for end in ENDS:
                if (old := self.template.get(name + end)) is None:
                    continue
                about = {"units": old.attrs["units"]}
                long_name = str(old.attrs["long_name"]).split(": ", 1)[-1]
                if end == "_interval":
                    found[name + end] = (
                        ["bound", *dims],
                        moments.bounds(),
                        {"long_name": f"95 % interval over {there}: {long_name}"} | about,
                    )
                else:
                    words, make = said[end]
                    found[name + end] = (dims, make(), {"long_name": f"{words} over {there}: {long_name}"} | about)
        return found

    def _coords(self, axes: Axes) -> dict[Hashable, Any]:
        template = self.template
        coords: dict[Hashable, Any] = {dim: axes.coords[str(dim)] for dim in template.sizes if dim in template.coords}
        coords |= {"bound": ["lower", "upper"]}
        if axes.from_end and "position" in axes.coords:
            coords[FROM_END] = np.arange(-len(axes.coords["position"]), 0)
        for name, values in template.coords.items():
            dims = [str(dim) for dim in values.dims]
            if name in coords or name in template.sizes:
                continue
            if "prompt" in dims:
                shape = [1 if dim == "prompt" else len(axes.coords[dim]) for dim in dims]
                blank = np.full(shape, "", dtype=object) if values.dtype.kind in "OUT" else np.full(shape, PAD)
                coords[name] = (dims, blank)
            elif not set(dims) & {"position", "query", "key", "injection"}:
                coords[name] = (dims, values.to_numpy())
        return coords
