"""The house style, saving, and names written where they do not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, RED, PINK, GREY = "#0072B2", "#D55E00", "#CC79A7", "#767676"
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "svg.hashsalt": "miles-repro",
    "text.parse_math": False,  # a label is no formula
    "lines.linewidth": 1.6,
}
MODALITY_COLORS = (BLUE, RED, GREEN, PINK, ORANGE, SKY)
"""Strongest to weakest; further ones start over."""
NAME_SIZE = 8


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of that size in inches, in the house style."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write <stem>.svg and <stem>.png; the same figure gives the same bytes."""
    import matplotlib

    stem.parent.mkdir(parents=True, exist_ok=True)
    svg, png = (stem.with_name(f"{stem.name}{suffix}") for suffix in (".svg", ".png"))
    with matplotlib.rc_context(STYLE):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once: the two files agree, and it is slow
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
        figure.savefig(png, dpi=150, metadata={"Software": None})
    return [svg, png]


@dataclass(frozen=True)
class Line:
    """One named curve; values that are not finite leave a gap. steps: constant around each x."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str
    dash: str = "-"
    steps: bool = False


def head_colors(modalities: Sequence[str]) -> dict[str, str]:
    """Colour of the fused head and of each modality, strongest to weakest."""
    colors = (MODALITY_COLORS[i % len(MODALITY_COLORS)] for i in range(len(modalities)))
    return {"fused": BLACK, **dict(zip(modalities, colors, strict=True))}


def end_at_100(ax: Axes) -> None:
    """Percent go no further, whatever an interval says."""
    ax.set_ylim(top=min(ax.get_ylim()[1], 100.0))


def draw_lines(ax: Axes, lines: Sequence[Line]) -> None:
    for line in lines:
        drawn = "steps-mid" if line.steps else "default"
        ax.plot(line.x, line.y, line.dash, color=line.color, drawstyle=drawn)


def name_lines(figure: Figure, panels: Sequence[tuple[Axes, Sequence[Line]]]) -> None:
    """Write each line's name at its last value, apart from the other names of its axes.

    Call it last: heights must be settled. The layout makes room for the names by itself.
    """
    figure.draw_without_rendering()
    for ax, lines in panels:
        _name_ends(ax, lines, 72 / figure.dpi)


def _name_ends(ax: Axes, lines: Sequence[Line], points_per_pixel: float) -> None:
    right = ax.get_xlim()[1]
    ends = []
    for line in lines:
        known = [y for y in line.y if math.isfinite(y)]
        if known:
            height = ax.transData.transform((right, known[-1]))[1] * points_per_pixel
            ends.append((height, known[-1], line))
    ends.sort(key=lambda end: end[0])
    spread = _apart([height for height, _, _ in ends], NAME_SIZE + 2.0)
    for (height, y, line), place in zip(ends, spread, strict=True):
        ax.annotate(
            line.name,
            (right, y),
            (4, place - height),
            textcoords="offset points",
            color=line.color,
            fontsize=NAME_SIZE,
            va="center",
            annotation_clip=False,
        )


def _apart(heights: Sequence[float], distance: float) -> list[float]:
    """Sorted heights moved as little as possible so that neighbours are `distance` apart."""
    groups: list[list[float]] = []  # runs of touching names, each centred on its own mean
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _bottom(groups[-1], distance) < _top(groups[-2], distance):
            last = groups.pop()
            groups[-1] += last
    return [
        _bottom(g, distance) + distance / 2 + i * distance for g in groups for i in range(len(g))
    ]


def _bottom(group: Sequence[float], distance: float) -> float:
    return sum(group) / len(group) - len(group) * distance / 2


def _top(group: Sequence[float], distance: float) -> float:
    return sum(group) / len(group) + len(group) * distance / 2
