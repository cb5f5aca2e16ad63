"""Figures: what they show, that names do not cover each other, that files repeat."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from record_factory import ablation, epoch_rows, population, record

from miles_repro.plots import canvas, comparison, dynamics
from miles_repro.plots.canvas import _apart
from miles_repro.plots.comparison import Track, _cliques
from miles_repro.report.contrasts import contrasts, families
from miles_repro.report.figures import pictures, shown_runs
from miles_repro.report.provenance import Origin
from miles_repro.selection import studies
from miles_repro.stats import Interval, average_ranks


def figures(records: list[dict[str, Any]]) -> dict[str, Figure]:
    found = studies(records)
    rows = {run["run_id"]: epoch_rows(run) for run in shown_runs(found)}
    return {picture.name: picture.figure for picture in pictures(found, rows, Origin("", ""))}


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    found = figures(population() + ablation("tau", [0.0, 0.2, 0.5]))
    for figure in found.values():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return found


def names(ax: Axes) -> list[Annotation]:
    return [t for t in ax.texts if isinstance(t, Annotation) and t.get_text()]


PLACE = "smnist_mini__mini"
STEMS = ["dynamics", "curves", "cost", "tau", "ranks"]


def test_every_figure_is_drawn(drawn: dict[str, Figure]) -> None:
    fusions, pivots = ("concat", "sum"), ("miles", "vanilla_aux")
    forests = {f"contrasts__{PLACE}__{fusion}__{pivot}" for fusion in fusions for pivot in pivots}
    assert set(drawn) == {f"{stem}__{PLACE}" for stem in STEMS} | forests


@pytest.mark.parametrize("stem", ["dynamics", "curves", "tau"])
def test_names_do_not_cover_each_other(drawn: dict[str, Figure], stem: str) -> None:
    figure = drawn[f"{stem}__{PLACE}"]
    for ax in figure.axes:
        boxes = {t.get_text(): t.get_window_extent() for t in names(ax)}
        assert boxes
        for (one, a), (other, b) in combinations(boxes.items(), 2):
            # A pixel of leading may be shared.
            assert not a.padded(-1).overlaps(b.padded(-1)), f"{one} covers {other} in {stem}"


@pytest.mark.parametrize("stem", STEMS)
def test_nothing_is_cut_off(drawn: dict[str, Figure], stem: str) -> None:
    figure = drawn[f"{stem}__{PLACE}"]
    page = figure.bbox
    for ax in figure.axes:
        for text in ax.texts:
            if text.get_text():
                box = text.get_window_extent()
                assert page.x0 <= box.x0, text.get_text()
                assert box.x1 <= page.x1, text.get_text()
                assert page.y0 <= box.y0, text.get_text()
                assert box.y1 <= page.y1, text.get_text()


def test_a_forest_has_every_contrast_with_its_interval_and_verdict(
    drawn: dict[str, Figure],
) -> None:
    one = studies(population())[0]
    figure = drawn[f"contrasts__{PLACE}__concat__miles"]
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[0] == "fused accuracy"
    assert titles[1:3] == ["image (probe)", "audio (probe)"]
    judged = contrasts(one, "concat", "fused", families(one, "concat")["miles"])
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == [one.names[rival][1] for _, rival in judged]
    means = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", "")]
    drawn_means = [float(line.get_xdata()[0]) for line in means if len(line.get_xdata())]  # type: ignore[arg-type, index]
    assert drawn_means == pytest.approx([v.mean for v in judged.values()])
    hollow = [line.get_markerfacecolor() == "white" for line in means if len(line.get_xdata())]  # type: ignore[arg-type]
    assert hollow == [v.word == "undecided" for v in judged.values()]


def test_axes_of_percent_end_at_100() -> None:
    records = ablation("tau", [0.0, 0.2, 0.5], noise=0.05)
    for name, figure in figures(records).items():
        if name.startswith(("tau", "dynamics", "curves")):
            assert max(ax.get_ylim()[1] for ax in figure.axes if "%" in ax.get_ylabel()) <= 100


def test_cost_shows_every_run_and_the_median() -> None:
    figure = comparison.dots({"p": {"a": [1.0, 2.0, 30.0], "b": [4.0]}}, title="t", xlabel="s")
    runs, middle = figure.axes[0].lines[:2]
    assert list(runs.get_xdata()) == [1.0, 2.0, 30.0]
    assert list(middle.get_xdata()) == [2.0, 2.0]
    assert figure.axes[0].get_xscale() == "log"


@given(st.lists(st.floats(0, 500), min_size=1, max_size=15).map(sorted))
def test_apart_keeps_distance_order_and_middle(heights: list[float]) -> None:
    placed = _apart(heights, 10.0)
    assert len(placed) == len(heights)
    assert all(b - a >= 10.0 - 1e-6 for a, b in pairwise(placed))
    assert sum(placed) == pytest.approx(sum(heights), abs=1e-6 * len(heights) + 1e-6)


def test_apart_leaves_alone_what_fits() -> None:
    assert _apart([0.0, 12.0, 30.0], 10.0) == pytest.approx([0.0, 12.0, 30.0])


def rows_of(**changes: Any) -> list[dict[str, Any]]:
    rows = epoch_rows(record(), epochs=6)
    for row in rows:
        row.update(changes)
    return rows


def show(rows: list[dict[str, Any]], tau: float | None = 0.2) -> Figure:
    return dynamics.dynamics(
        rows, title="t", modalities=["image", "audio"], metric="accuracy", tau=tau
    )


def test_dynamics_shows_the_rows_numbers() -> None:
    rows = rows_of()
    figure = show(rows)
    metrics, used, delta, rates = figure.axes
    fused = [100 * row["val"]["fused"]["metric"] for row in rows]
    assert list(metrics.lines[0].get_ydata()) == pytest.approx(fused)
    assert list(metrics.lines[0].get_xdata()) == [row["epoch"] for row in rows]
    image = [row["utilization"]["image"] for row in rows]
    assert list(used.lines[0].get_ydata()) == pytest.approx(image)
    assert list(delta.lines[1].get_ydata()) == [0.2] * 6
    encoder = [row["lr"]["encoder.image"] for row in rows]
    assert any(list(line.get_ydata()) == encoder for line in rates.lines)
    assert {t.get_text() for t in names(rates)} == {"encoder.image", "encoder.audio", "fusion"}


def test_dynamics_shows_heads_where_they_differ_and_no_tau_where_there_is_none() -> None:
    lr = {"encoder.image": 0.5, "head.image": 1.0, "encoder.audio": 1.0, "fusion": 1.0}
    figure = show(rows_of(lr=lr), tau=None)
    assert "head.image" in {text.get_text() for text in names(figure.axes[3])}
    assert not [t for t in names(figure.axes[2]) if "τ" in t.get_text()]


def test_reduced_epochs_are_shaded() -> None:
    rows = rows_of()
    reduced = [r["epoch"] for r in rows if r["lr"]["encoder.image"] < r["lr"]["fusion"]]
    assert 0 < len(reduced) < len(rows)
    shaded = [round(patch.get_x() + 0.5) for patch in show(rows).axes[0].patches]
    assert shaded == reduced


def test_undefined_utilization_and_a_zero_rate_can_be_drawn() -> None:
    lr = {"encoder.image": 0.0, "encoder.audio": 1.0, "fusion": 1.0}
    figure = show(rows_of(lr=lr, utilization=None))
    figure.draw_without_rendering()
    assert figure.axes[3].get_yscale() == "linear"
    assert names(figure.axes[1]) == []


def interval(mean: float, half: float | None = None) -> Interval:
    return (
        Interval(mean, None, None, 1)
        if half is None
        else Interval(mean, mean - half, mean + half, 3)
    )


def test_sensitivity_is_true_to_scale() -> None:
    ours = [Track(name, {0.1: interval(1.0, 0.1), 1.0: interval(2.0)}) for name in "abc"]
    paper = [Track(name, {0.1: interval(1.0), 0.5: interval(3.0)}) for name in "abc"]
    figure = comparison.sensitivity(
        {"ours": ours, "paper": paper}, title="t", parameter="mu", columns=2
    )
    first, second = figure.axes
    assert list(first.lines[0].get_xdata()) == [0.1, 1.0]
    assert list(second.lines[0].get_xdata()) == [0.1, 0.5]
    assert first.get_xlim() == second.get_xlim() == (0.1, 1.0)


def test_bars_join_what_is_closer_than_the_critical_difference() -> None:
    assert _cliques([1.0, 1.5, 2.9, 4.0], 2.0) == [(1.0, 2.9), (2.9, 4.0)]
    assert _cliques([1.0, 3.0, 5.0], 2.0) == []
    assert _cliques([1.0, 2.0, 3.0], 9.0) == [(1.0, 3.0)]


def test_critical_difference_diagram_names_every_method() -> None:
    scores = {f"method {i}": [float(i + k % 2) for k in range(6)] for i in range(5)}
    found = average_ranks(scores)
    assert found is not None
    figure = comparison.critical_difference(found, title="t")
    shown = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert all(name in shown for name in scores)


def test_one_strategy_one_seed_is_enough() -> None:
    found = figures([record(seed=1)])
    assert set(found) == {f"{stem}__{PLACE}" for stem in ("dynamics", "cost")}


def test_rates_that_lie_close_have_ticks_of_their_own() -> None:
    rates = show(rows_of(lr={"encoder.image": 2.5e-3, "fusion": 3.3e-3})).axes[3]
    ticks = [rates.yaxis.get_major_formatter()(y) for y in rates.get_yticks()]
    assert len(set(ticks)) == len(ticks) > 1


def test_dynamics_has_every_modality() -> None:
    run = record(dataset="own", modalities=["a", "b", "c"], level=(0.9, 0.5, 0.7, 0.6), seed=1)
    figure = dynamics.dynamics(
        epoch_rows(run, epochs=6), title="t", modalities=["b", "c", "a"], metric="accuracy"
    )
    metrics, used, _, rates = ({t.get_text() for t in names(ax)} for ax in figure.axes)
    assert metrics == {"fused", "a", "b", "c"}
    assert used == {"u a", "u b", "u c"}
    assert rates == {"encoder.a", "encoder.b", "encoder.c", "fusion"}


def test_files_repeat_and_need_nothing_else(tmp_path: Path) -> None:
    made = []
    for folder in ("a", "b"):
        paths = canvas.save(show(rows_of()), tmp_path / folder / "dynamics")
        made.append([path.read_bytes() for path in paths])
    assert made[0] == made[1]
    text = made[0][0].decode()
    assert "<script" not in text
    fetched = re.findall(r"(?:href|src)=\"([^\"]*)|url\(([^)]*)", text)
    assert all("".join(target).startswith("#") for target in fetched)


def test_drawing_leaves_the_users_matplotlib_alone() -> None:
    code = (
        "import sys, matplotlib; before = matplotlib.rcParams.copy()\n"
        "from miles_repro.plots import dynamics\n"
        "from miles_repro.plots.canvas import Line\n"
        "dynamics.learning_curves([Line('a', [1, 2], [1., 2.], 'k')], title='', metric='m')\n"
        "assert matplotlib.rcParams.copy() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
