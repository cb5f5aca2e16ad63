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
    from matplotlib.transforms import Bbox

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
    "lines.linewidth": 1.6,
}
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


@dataclass(frozen=True)
class Mark:
    """A point to be named, with the half lengths of its error bars in data units."""

    name: str
    color: str
    x: float
    y: float
    dx: float = 0.0
    dy: float = 0.0


def name_points(figure: Figure, ax: Axes, marks: Sequence[Mark]) -> None:
    """Write each name near its point, clear of the points, the names and, if it can, the bars.

    Call it last, with the layout settled.
    """
    frame = ax.get_window_extent()
    hard = [_box(ax, mark.x, mark.y, mark.x, mark.y, 4.5) for mark in marks]
    soft = [_box(ax, m.x - m.dx, m.y, m.x + m.dx, m.y, 0.5) for m in marks if m.dx]
    soft += [_box(ax, m.x, m.y - m.dy, m.x, m.y + m.dy, 0.5) for m in marks if m.dy]
    for mark in sorted(marks, key=lambda mark: -mark.y):
        text = ax.annotate(
            mark.name,
            (mark.x, mark.y),
            (0, 0),
            textcoords="offset points",
            color=mark.color,
            fontsize=NAME_SIZE,
            ha="center",
            va="center",
        )
        start = text.get_window_extent()
        pixel = figure.dpi / 72
        best, spot, lowest = (0.0, 0.0), start, math.inf
        for dx, dy in _offsets(start.width / pixel, start.height / pixel):
            if math.hypot(dx, dy) >= lowest:
                continue
            box = start.translated(dx * pixel, dy * pixel)
            inside = frame.containsx(box.x0) and frame.containsx(box.x1)
            inside = inside and frame.containsy(box.y0) and frame.containsy(box.y1)
            clashes = 500 * box.count_overlaps(hard) + 25 * box.count_overlaps(soft)
            cost = clashes + math.hypot(dx, dy) + 2000 * (not inside)
            if cost < lowest:
                best, spot, lowest = (dx, dy), box, cost
        text.set_position(best)
        hard.append(spot)
        _lead(ax, mark, best, spot.width / pixel, spot.height / pixel)


def _box(ax: Axes, x0: float, y0: float, x1: float, y1: float, pad: float) -> Bbox:
    """The rectangle between two data points in pixels, with `pad` points around it."""
    from matplotlib.transforms import Bbox

    (left, bottom), (right, top) = ax.transData.transform([(x0, y0), (x1, y1)])
    return Bbox.from_extents(left, bottom, right, top).padded(pad * ax.figure.dpi / 72)


def _offsets(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Places for a name of that size around a point, nearest first, in points."""
    for step in range(9):
        for angle in range(0, 360, 15):
            c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            yield c * (width / 2 + 7 + 9 * step), s * (height / 2 + 5 + 9 * step)


def _lead(ax: Axes, mark: Mark, place: tuple[float, float], width: float, height: float) -> None:
    """A thin line from a name to its point, where the name stands away from it."""
    dx, dy = place
    gap = math.hypot(max(abs(dx) - width / 2, 0), max(abs(dy) - height / 2, 0))
    if gap > 8:
        edge = (
            dx - math.copysign(min(abs(dx), width / 2), dx),
            dy - math.copysign(min(abs(dy), height / 2), dy),
        )
        ax.annotate(
            "",
            (mark.x, mark.y),
            edge,
            textcoords="offset points",
            arrowprops={
                "arrowstyle": "-",
                "color": mark.color,
                "linewidth": 0.5,
                "shrinkA": 0,
                "shrinkB": 3,
            },
        )
