"""Strategies against each other: paired differences, cost, sensitivity, critical differences."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from miles_repro.plots.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    RED,
    Line,
    canvas,
    end_at_100,
    name_lines,
)
from miles_repro.stats import Interval, Ranks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORDS = {
    "better": (BLUE, "D"),
    "worse": (RED, "v"),
    "equal": (GREEN, "s"),
    "undecided": (GREY, "o"),
}
"""Verdict -> colour, marker; what is undecided stays grey and hollow."""

TRACKS = ((BLACK, "o"), (BLUE, "s"), (RED, "^"))
ROW = 0.24


@dataclass(frozen=True)
class Difference:
    """One paired contrast: its interval in points and its verdict (a key of WORDS)."""

    name: str
    found: Interval
    word: str


def forest(
    panels: Mapping[str, tuple[Sequence[Difference], float]], *, title: str, footnote: str
) -> Figure:
    """Paired differences row by row, a panel per measure: (rows, eps). The band is +-eps; a row
    that one panel lacks stays empty there."""
    names = list(dict.fromkeys(row.name for rows, _ in panels.values() for row in rows))
    with canvas(1.8 + 2.4 * len(panels), 1.7 + ROW * len(names)) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        for ax, (panel, (rows, eps)) in zip(axes, panels.items(), strict=True):
            ax.set_title(panel)
            ax.set_xlabel("difference (points)")
            ax.axvspan(-eps, eps, color="#eeeeee", zorder=0, linewidth=0)
            ax.axvline(0, color=GREY, linewidth=0.8)
            for row in rows:
                _difference(ax, names.index(row.name), row)
            ax.margins(x=0.08)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.4, -0.6)
        handles = [
            axes[0].plot([], [], marker, color=color, label=word, markersize=5,
                         markerfacecolor="white" if word == "undecided" else color)[0]
            for word, (color, marker) in WORDS.items()
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False)
        figure.supxlabel(footnote, x=0.99, ha="right", fontsize=8)
    return figure


def _difference(ax: Axes, y: float, row: Difference) -> None:
    color, marker = WORDS[row.word]
    if row.found.low is not None and row.found.high is not None:
        ax.plot([row.found.low, row.found.high], [y, y], color=color, linewidth=1.2)
    face = "white" if row.word == "undecided" else color
    ax.plot(row.found.mean, y, marker, color=color, markerfacecolor=face, markersize=5)


def dots(panels: Mapping[str, Mapping[str, Sequence[float]]], *, title: str, xlabel: str) -> Figure:
    """A dot per run and a bar at the median, on a logarithmic axis; a row per name."""
    from matplotlib.ticker import LogLocator, NullLocator

    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    with canvas(1.8 + 3.4 * len(panels), 1.3 + ROW * len(names)) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True, sharex=True)[0]
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        for ax, (panel, rows) in zip(axes, panels.items(), strict=True):
            ax.set_title(panel)
            ax.set_xlabel(xlabel)
            ax.set_xscale("log")
            for name, numbers in rows.items():
                y, middle = names.index(name), statistics.median(numbers)
                ax.plot(numbers, [y] * len(numbers), "o", color=BLUE, alpha=0.35, markersize=4)
                ax.plot([middle, middle], [y - 0.3, y + 0.3], color=BLACK, linewidth=1.6)
        low, high = axes[0].get_xlim()
        axes[0].set_xlim(min(low, high / 4), max(high, low * 4))
        axes[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[0].xaxis.set_minor_locator(NullLocator())
        axes[0].xaxis.set_major_formatter("{x:g}")
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.4, -0.6)
    return figure


@dataclass(frozen=True)
class Track:
    """One quantity along a hyper-parameter: setting -> interval (a single number has none)."""

    name: str
    values: Mapping[float, Interval]


def sensitivity(
    panels: Mapping[str, Sequence[Track]], *, title: str, parameter: str, columns: int
) -> Figure:
    """Fused, strong and weak metric along a hyper-parameter; one panel per entry, row by row.

    The axis is true to scale; bands are intervals over seeds.
    """
    rows = -(-len(panels) // columns)
    settings = sorted({x for tracks in panels.values() for t in tracks for x in t.values})
    with canvas(4.8 * columns, 3 * rows) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        named = []
        for ax, (panel, tracks) in zip(axes.flat, panels.items(), strict=False):
            ax.set_title(panel)
            ax.set_xlabel(parameter)
            ax.set_ylabel("test metric (%)")
            ax.set_xlim(settings[0], settings[-1])
            named.append((ax, _draw_tracks(ax, tracks)))
            end_at_100(ax)
        for ax in list(axes.flat)[len(panels) :]:
            ax.remove()
        name_lines(figure, named)
    return figure


def _draw_tracks(ax: Axes, tracks: Sequence[Track]) -> list[Line]:
    """Draw a panel's curves with their bands; returns them for naming."""
    lines = []
    for track, (color, marker) in zip(tracks, TRACKS, strict=True):
        x = sorted(track.values)
        found = [track.values[setting] for setting in x]
        y = [interval.mean for interval in found]
        ax.plot(x, y, f"{marker}-", color=color, markersize=4, clip_on=False)
        low = [i.mean if i.low is None else i.low for i in found]
        high = [i.mean if i.high is None else i.high for i in found]
        ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
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
        ax.set_xticks(range(low, high + 1, 1 + high // 16))  # room for two digits
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
