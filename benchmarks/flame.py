"""Draws a flame graph of collapsed stacks: an SVG without a script, whose boxes tell their share when pointed at."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from html import escape
from zlib import crc32

WIDTH = 1600  # pixels, for all samples
ROW = 18  # pixels, for a frame
NARROWEST = 0.6  # pixels; what is thinner is left out with all above it
LETTER = 6.6  # pixels a letter takes at 11 pixels, about


@dataclass(slots=True)
class Frame:
    """A function below which `samples` were taken, with what it called."""

    samples: int = 0
    calls: defaultdict[str, Frame] = field(default_factory=lambda: defaultdict(Frame))

    @property
    def depth(self) -> int:
        return 1 + max((frame.depth for frame in self.calls.values()), default=0)


def tree(collapsed: str) -> Frame:
    """The frames of lines `outermost;…;innermost count`."""
    root = Frame()
    for line in collapsed.splitlines():
        stack, _, count = line.rpartition(" ")
        frame = root
        frame.samples += int(count)
        for name in stack.split(";"):
            frame = frame.calls[name]
            frame.samples += int(count)
    return root


def draw(collapsed: str) -> str:
    """The picture, the outermost frame below, of the stacks that `benchmarks.profile` writes."""
    root = tree(collapsed)
    height = ROW * root.depth
    boxes: list[str] = []
    _boxes(boxes, "all", root, 0.0, height - ROW, WIDTH / max(root.samples, 1), root.samples)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' font-family="monospace" font-size="11">\n{"".join(boxes)}</svg>\n'
    )


def _boxes(boxes: list[str], name: str, frame: Frame, x: float, y: float, scale: float, total: int) -> None:
    width = frame.samples * scale
    if width < NARROWEST:
        return
    hue = crc32(name.partition(":")[0].encode()) % 60  # a colour for each file, from red to yellow
    text = escape(name[: int((width - 6) / LETTER)]) if width > 3 * LETTER else ""
    boxes.append(
        f"<g><title>{escape(name)}: {frame.samples / total:.1%}</title>"
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" fill="hsl({hue},80%,65%)"/>'
        f'<text x="{x + 3:.1f}" y="{y + 12}">{text}</text></g>\n'
    )
    for called, below in sorted(frame.calls.items()):
        _boxes(boxes, called, below, x, y - ROW, scale, total)
        x += below.samples * scale
