"""What a run predicted on the test split, head by head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from miles_repro.plots.canvas import BLACK, BLUE, GREY, canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WRITTEN_UP_TO = 12
"""Counts are written into the cells of a confusion matrix of so many classes."""
NAMED_UP_TO = 60


def confusion(
    matrices: Mapping[str, NDArray[np.int64]], classes: Sequence[str], title: str
) -> Figure:
    """A panel a head: counts (C, C) of true class (row) and predicted class (column).

    Shading is by row: the share of a class's samples.
    """
    n = len(classes)
    side = max(2.2, min(0.3 * n, 7.0))
    with canvas((side + 0.9) * len(matrices) + 0.6, side + 1.3) as figure:
        axes = figure.subplots(1, len(matrices), squeeze=False)[0]
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        for ax, (head, counts) in zip(axes, matrices.items(), strict=True):
            shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
            ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
            ax.set_title(head)
            ax.set_xlabel("predicted")
            ax.grid(False)
            named = n <= NAMED_UP_TO
            ticks: tuple[Any, ...] = (range(n), classes) if named else ([],)
            size = 8 if n <= WRITTEN_UP_TO else 5
            ax.set_xticks(*ticks, rotation=90, fontsize=size)
            ax.set_yticks(*ticks, fontsize=size)
            for (i, j), count in np.ndenumerate(counts):
                if count and n <= WRITTEN_UP_TO:
                    color = "white" if shares[i, j] > 0.5 else BLACK
                    ax.text(j, i, str(count), ha="center", va="center", fontsize=7, color=color)
        axes[0].set_ylabel("true class")
    return figure


def scatter(predicted: Mapping[str, NDArray[Any]], y: NDArray[Any], title: str) -> Figure:
    """A panel a head: each row's prediction over its true value, and the line of no error."""
    with canvas(2.8 * len(predicted) + 0.4, 3.3) as figure:
        axes = figure.subplots(1, len(predicted), squeeze=False, sharex=True, sharey=True)[0]
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        for ax, (head, values) in zip(axes, predicted.items(), strict=True):
            ax.axline((float(y.mean()), float(y.mean())), slope=1, color=GREY, linewidth=0.8)
            ax.plot(y, values, "o", color=BLUE, markersize=3, alpha=0.5, markeredgewidth=0)
            ax.set_title(head)
            ax.set_xlabel("true value (training spreads)")
        axes[0].set_ylabel("predicted")
    return figure
