"""How far a figure reaches on the page of a PDF that a browser printed."""

import re
import zlib

import numpy as np

NUMBER = rb"(-?[\d.]+)"
MATRIX = re.compile(rb"\s+".join([NUMBER] * 6) + rb"\s+cm")


def page_size(pdf: bytes) -> tuple[float, float]:
    """Width and height in points."""
    found = re.search(rb"MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    return float(found.group(1)), float(found.group(2))


def figure_extent(pdf: bytes, width: int, height: int) -> tuple[float, float, float, float]:
    """Left, right, bottom and top in points of the background of a figure that was laid out in so many pixels."""
    rectangle = rb"0 0 %d %d re" % (width, height)
    streams = map(_unpacked, re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL))
    drawn = next(stream for stream in streams if rectangle in stream)
    background = drawn.index(rectangle)
    stack = [np.eye(3)]
    for step in re.finditer(rb"\bq\b|\bQ\b|" + MATRIX.pattern, drawn[:background]):
        if step.group() == b"q":
            stack.append(stack[-1])
        elif step.group() == b"Q":
            stack.pop()
        else:
            a, b, c, d, e, f = map(float, step.groups())
            stack[-1] = np.array([[a, b, 0], [c, d, 0], [e, f, 1]]) @ stack[-1]
    (x0, y0, _), (x1, y1, _) = np.array([[0, 0, 1], [width, height, 1]]) @ stack[-1]
    return min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)


def _unpacked(stream: bytes) -> bytes:
    """A stream of drawing; pictures and fonts, which are packed otherwise, are nothing."""
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""
