"""The loss of a training run as a picture for its model card."""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 680, 300, 56, 16, 30, 46
WINDOW = 50
"""Steps that a point of the curve is the mean of."""

INK, FAINT, LINE = "#1f2933", "#8a95a1", "#0072b2"


def loss_curve(record: Mapping[str, Any]) -> str:
    """An SVG of the loss, in nats per token, against the step, with the phases of training marked.

    Args:
        record: of a run, as in `training.json`: `loss` of each step, and `phases`.
    """
    losses: list[float] = record["loss"]
    steps: int = record["steps"]
    window = min(WINDOW, steps)
    means = [sum(losses[at : at + window]) / window for at in range(0, steps - window + 1, window)]
    top = max(1, round(max(means) + 0.5))

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / steps

    def y(loss: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * loss / top

    marks = []
    for loss in map(float, range(top + 1)):
        marks.append(f'<path d="M{LEFT} {y(loss):.1f}H{WIDTH - RIGHT}" stroke="{FAINT}" stroke-opacity="0.3"/>')
        marks.append(f'<text x="{LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.0f}</text>')
    marks.append(f'<text x="{LEFT}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">0</text>')
    ends = list(accumulate(float(phase["steps"]) for phase in record["phases"]))
    for phase, start, end in zip(record["phases"], [0.0, *ends], ends, strict=False):
        marks.append(f'<path d="M{x(end):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{FAINT}" stroke-dasharray="4 4"/>')
        marks.append(f'<text x="{x(end):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="end">{end:.0f}</text>')
        label = f"rows of {phase['length']} tokens"
        marks.append(f'<text x="{x((start + end) / 2):.1f}" y="{TOP - 8}" text-anchor="middle">{label}</text>')
    points = " ".join(f"{x((at + 0.5) * window):.1f},{y(loss):.1f}" for at, loss in enumerate(means))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"
     font-family="Helvetica, Arial, sans-serif" font-size="12" fill="{INK}">
<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>
{chr(10).join(marks)}
<polyline points="{points}" fill="none" stroke="{LINE}" stroke-width="1.8"/>
<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">step</text>
<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">nats per token</text>
</svg>
"""
