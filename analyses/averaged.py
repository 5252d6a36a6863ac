"""Results that hold means over prompts and none of these by itself, as `analyses.summarise` makes them."""

import xarray as xr

from interp.errors import ResultError

GROUP = "group"
"""The axis of what is averaged by a label."""

PROMPTS, LEFT_OUT, TOKENS = "averaged_prompts", "averaged_left_out", "averaged_tokens"
"""Variables: how many prompts the means are over, how many of them had no effect, and the fewest and most tokens of one."""


def is_averaged(result: xr.Dataset) -> bool:
    """Whether the one prompt of a result stands for the mean over many."""
    return PROMPTS in result


def prompts_in(result: xr.Dataset) -> int:
    """Over how many prompts a mean of this result is."""
    return int(result[PROMPTS]) if is_averaged(result) else result.sizes["prompt"]


def check_one(result: xr.Dataset, prompt: int | None) -> None:
    """Raise ResultError where a figure is asked for one of the prompts that a mean is over."""
    if is_averaged(result) and prompt is not None:
        raise ResultError(
            f"this result holds means over {prompts_in(result)} prompts, and no prompt {prompt} by itself."
        )


def check_group(result: xr.Dataset) -> None:
    """Raise ResultError where the means of several groups are to be drawn at once."""
    if is_averaged(result) and GROUP in result.dims:
        groups = ", ".join(map(repr, result[GROUP].to_numpy().tolist()[:4]))
        raise ResultError(
            f"this result holds the means of several groups; choose one by result.sel({GROUP}=...): {groups}."
        )
