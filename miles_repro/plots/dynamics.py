"""What happens during training: the paper's Figs. 1 and 2."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from miles_repro.plots.canvas import (
    BLACK,
    GREY,
    Line,
    canvas,
    draw_lines,
    end_at_100,
    head_colors,
    name_lines,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
"""The lines of one metrics.jsonl."""


def dynamics(
    rows: Rows, *, title: str, modalities: Sequence[str], metric: str, tau: float | None = None
) -> Figure:
    """One run over its epochs, in the manner of the paper's Fig. 2.

    Panels: validation metrics, utilization rates, size of delta with tau, learning rate per group.
    Shaded epochs trained with a reduced rate.
    """
    epochs = [row["epoch"] for row in rows]
    colors = head_colors(modalities)
    heads = [name for name in colors if name in rows[0]["val"]]
    metrics = [Line(n, epochs, head_metric(rows, n), colors[n]) for n in heads]
    rates = [Line(f"u {n}", epochs, _utilization(rows, n), colors[n]) for n in modalities]
    delta = [Line("|Δ|", epochs, _utilization(rows, "delta"), BLACK)]
    if tau is not None:
        delta.append(Line(f"τ = {tau:g}", epochs, [tau] * len(epochs), GREY, "--"))
    groups = _groups(rows)
    from matplotlib.ticker import MaxNLocator

    with canvas(7.2, 8.2) as figure:
        axes = figure.subplots(4, 1, sharex=True, height_ratios=[3, 2, 2, 2])
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        labels = (f"validation {metric} (%)", "utilization u", "|Δ|", "learning rate")
        panels = [metrics, rates, delta, groups_as_lines(epochs, groups, colors)]
        for ax, label, lines in zip(axes, labels, panels, strict=True):
            ax.set_ylabel(label)
            for epoch in _reduced(rows):
                ax.axvspan(epoch - 0.5, epoch + 0.5, color="#f3f3f3", zorder=0, linewidth=0)
            draw_lines(ax, lines)
            ax.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        end_at_100(axes[0])
        axes[1].axhline(0, color=GREY, linewidth=0.8)
        axes[3].set_xlabel("epoch")
        axes[3].xaxis.set_major_locator(MaxNLocator(integer=True))
        _rate_scale(axes[3], [rate for values in groups.values() for rate in values])
        name_lines(figure, list(zip(axes, panels, strict=True)))
    return figure


def head_metric(rows: Rows, head: str) -> list[float]:
    """Validation metric of one head per epoch, percent."""
    return [_number(row["val"].get(head, {}).get("metric"), 100) for row in rows]


def _utilization(rows: Rows, name: str) -> list[float]:
    return [_number((row.get("utilization") or {}).get(name)) for row in rows]


def _number(value: float | None, factor: float = 1) -> float:
    return math.nan if value is None else factor * value


def _groups(rows: Rows) -> dict[str, list[float]]:
    """Parameter group -> its rate per epoch; heads only where they differ from their encoder."""
    rates = {name: [_number(row["lr"].get(name)) for row in rows] for name in rows[0]["lr"]}
    return {
        name: values
        for name, values in rates.items()
        if not (name.startswith("head.") and values == rates.get(f"encoder.{name[5:]}"))
    }


def groups_as_lines(
    epochs: Sequence[float], groups: Mapping[str, Sequence[float]], colors: Mapping[str, str]
) -> list[Line]:
    """Encoders in their modality's colour, heads dotted, fusion dashed black."""
    dashes = {"encoder": "-", "head": ":", "fusion": "--"}
    found = []
    for name, values in groups.items():
        kind, _, modality = name.partition(".")
        color = colors.get(modality, BLACK)
        found.append(Line(name, epochs, values, color, dashes.get(kind, "-."), steps=True))
    return found


def _reduced(rows: Rows) -> list[int]:
    """Epochs in which some group trained below the rate of the fusion group."""
    return [
        row["epoch"]
        for row in rows
        if min(row["lr"].values()) < row["lr"].get("fusion", 0) * (1 - 1e-9)
    ]


def _rate_scale(ax: Axes, rates: Sequence[float]) -> None:
    """Logarithmic with room above and below, where no rate is zero."""
    if min(rates) > 0:
        from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

        ax.set_yscale("log")
        ax.set_ylim(min(rates) / 1.6, max(rates) * 1.6)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))


def learning_curves(lines: Sequence[Line], *, title: str, metric: str) -> Figure:
    """Validation metric over epochs of several models, in the manner of the paper's Fig. 1."""
    from matplotlib.ticker import MaxNLocator

    with canvas(7.2, 4) as figure:
        ax = figure.subplots()
        ax.set_title(title)
        ax.set_xlabel("epoch")
        ax.set_ylabel(f"validation {metric} (%)")
        draw_lines(ax, lines)
        ax.margins(x=0.01)
        end_at_100(ax)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        name_lines(figure, [(ax, lines)])
    return figure
