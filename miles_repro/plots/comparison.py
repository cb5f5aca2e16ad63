"""Strategies against each other: gap, cost, sensitivity, critical differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from miles_repro.plots.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    Line,
    Mark,
    canvas,
    name_lines,
    name_points,
)
from miles_repro.stats import Interval, Ranks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {
    "MILES": (RED, "D"),
    "single loss": (BLUE, "o"),
    "auxiliary losses": (GREEN, "s"),
    "control": (ORANGE, "^"),
    "other": (PINK, "v"),
}
"""Kind of strategy -> colour, marker."""
NAME_COLORS = {"control": "#9a6a00", "other": "#9c4d7b"}
"""Darker where the marker's colour is too light for text."""


@dataclass(frozen=True)
class Point:
    """One strategy: its kind (a key of KINDS) and two measures, each drawn with its interval."""

    name: str
    kind: str
    x: Interval
    y: Interval


def scatter(
    panels: Mapping[str, Sequence[Point]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    zero: bool = False,
) -> Figure:
    """Named points with error bars, one panel per entry; `zero` marks x = 0. The x axis is
    logarithmic where the values span more than a factor of five."""
    with canvas(5.6 * len(panels), 4.8) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        for ax, (panel, points) in zip(axes, panels.items(), strict=True):
            ax.set_title(panel)
            ax.set_xlabel(xlabel)
            means = [point.x.mean for point in points]
            if min(means) > 0 and max(means) > 5 * min(means):
                ax.set_xscale("log")
                ax.xaxis.set_major_formatter("{x:g}")
            if zero:
                ax.axvline(0, color=GREY, linewidth=0.8)
            for point in points:
                color, marker = KINDS[point.kind]
                bars = {"xerr": point.x.half, "yerr": point.y.half, "ecolor": f"{color}80"}
                ax.errorbar(
                    point.x.mean,
                    point.y.mean,
                    **bars,
                    fmt=marker,
                    color=color,
                    elinewidth=0.7,
                    markersize=5,
                    label=point.kind,
                )
            ax.margins(0.12)
        axes[0].set_ylabel(ylabel)
        low, high = axes[0].get_ylim()
        axes[0].set_ylim(max(low, 0), min(high, 101))  # intervals of few seeds leave the scale
        handles: dict[str, Any] = {}
        for ax in axes:
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        shown = [kind for kind in KINDS if kind in handles]
        figure.legend(
            [handles[kind] for kind in shown],
            shown,
            loc="outside lower left",
            ncols=len(shown),
            frameon=False,
        )
        figure.draw_without_rendering()
        for ax, points in zip(axes, panels.values(), strict=True):
            name_points(figure, ax, [_mark(point) for point in points])
    return figure


def _mark(point: Point) -> Mark:
    color = NAME_COLORS.get(point.kind, KINDS[point.kind][0])
    half_x, half_y = point.x.half or 0.0, point.y.half or 0.0
    return Mark(point.name, color, point.x.mean, point.y.mean, half_x, half_y)


@dataclass(frozen=True)
class Track:
    """One quantity along a hyper-parameter: setting -> interval (a single number has none)."""

    name: str
    values: Mapping[float, Interval]


def sensitivity(
    panels: Mapping[str, Sequence[Track]], *, title: str, parameter: str, columns: int
) -> Figure:
    """Fused, strong and weak metric along a hyper-parameter; one panel per entry, row by row."""
    rows = -(-len(panels) // columns)
    settings = sorted({x for tracks in panels.values() for t in tracks for x in t.values})
    # Settings are spaced evenly: those of the paper lie up to hundred-fold apart.
    places = {setting: i for i, setting in enumerate(settings)}
    with canvas(4.8 * columns, 3 * rows) as figure:
        axes = figure.subplots(rows, columns, squeeze=False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        named = []
        for ax, (panel, tracks) in zip(axes.flat, panels.items(), strict=False):
            ax.set_title(panel)
            ax.set_xlabel(parameter)
            ax.set_ylabel("test metric (%)")
            ax.set_xticks(list(places.values()), [f"{setting:g}" for setting in settings])
            ax.set_xlim(-0.2, len(settings) - 0.8)
            named.append((ax, _draw_tracks(ax, tracks, places)))
        for ax in list(axes.flat)[len(panels) :]:
            ax.remove()
        name_lines(figure, named)
    return figure


def _draw_tracks(ax: Axes, tracks: Sequence[Track], places: Mapping[float, int]) -> list[Line]:
    """Draw a panel's curves with their intervals; returns them for naming."""
    lines = []
    for track, color, marker in zip(tracks, (BLACK, BLUE, RED), ("o", "s", "^"), strict=True):
        found = sorted(track.values.items())
        x = [float(places[setting]) for setting, _ in found]
        y = [interval.mean for _, interval in found]
        halves = [interval.half or 0.0 for _, interval in found]
        bars = halves if any(halves) else None
        ax.errorbar(x, y, yerr=bars, fmt=f"{marker}-", color=color, capsize=2, markersize=4)
        lines.append(Line(track.name, x, y, color))
    return lines


def critical_difference(ranks: Ranks, *, title: str) -> Figure:
    """Average ranks on one axis; a bar joins strategies closer than the critical difference."""
    order = sorted(ranks.average.items(), key=lambda pair: pair[1])
    half = (len(order) + 1) // 2
    low, high = 1, len(order)
    bars = _cliques([rank for _, rank in order], ranks.critical_difference)
    top = 0.4 + 0.18 * len(bars)
    with canvas(8, 1.3 + 0.22 * half + 0.14 * len(bars)) as figure:
        ax = figure.subplots()
        ax.set_title(title)
        ax.grid(False)
        ax.yaxis.set_visible(False)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
        ax.spines["top"].set_visible(True)
        ax.xaxis.tick_top()
        ax.set_xlim(low - 0.45 * high, high + 0.45 * high)
        ax.spines["top"].set_bounds(low, high)
        ax.set_xticks(range(low, high + 1))
        ax.set_ylim(-(top + 0.32 * half), 0)
        for i, (first, last) in enumerate(bars):
            y = -(0.25 + 0.18 * i)
            ax.plot([first - 0.06, last + 0.06], [y, y], color=BLACK, linewidth=3)
        for i, (name, rank) in enumerate(order):
            left = i < half
            y = -(top + 0.32 * (i if left else len(order) - 1 - i))
            edge = low - 0.4 if left else high + 0.4
            ax.plot([rank, rank, edge], [0, y, y], color=GREY, linewidth=0.8)
            side = "right" if left else "left"
            text = f"{name} {rank:.1f}" if left else f"{rank:.1f} {name}"
            ax.text(edge, y, f" {text} ", ha=side, va="center", fontsize=8.5)
        ax.set_xlabel(
            f"critical difference {ranks.critical_difference:.2f} (Nemenyi, 5 %), "
            f"{ranks.blocks} blocks",
            fontsize=8,
        )
    return figure


def _cliques(ranks: Sequence[float], distance: float) -> list[tuple[float, float]]:
    """Maximal stretches of sorted ranks whose ends are closer than `distance`."""
    found: list[tuple[float, float]] = []
    for i, first in enumerate(ranks):
        last = max(rank for rank in ranks[i:] if rank - first < distance)
        if last > first and not (found and last <= found[-1][1]):
            found.append((first, last))
    return found
