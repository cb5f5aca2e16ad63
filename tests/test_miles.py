"""MILES: Algorithm 1, its edge rules, and what its switches do to a training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import LR, build_fit, saved, settings

from miles_repro import loop
from miles_repro.errors import UserError
from miles_repro.miles import (
    conditional_utilization,
    dominant,
    lr_factors,
    utilization_gap,
)
from miles_repro.run import run

NAN = math.nan


def algorithm_1(
    fused: Fraction, a: Fraction, b: Fraction, tau: Fraction, mu: float
) -> tuple[float, float]:
    """The paper's Algorithm 1 branch by branch, in exact arithmetic."""
    if fused == 0:
        return 1.0, 1.0
    u_a, u_b = (fused - b) / fused, (fused - a) / fused
    delta = abs(u_a - u_b)
    if delta <= tau or (u_a < 0 and u_b < 0):
        return 1.0, 1.0
    if u_a > 0 and u_b < 0:
        return mu, 1.0
    if u_a < 0 and u_b > 0:
        return 1.0, mu
    if u_a < u_b:
        return 1.0, mu
    return mu, 1.0


counts = st.integers(0, 1116)  # accuracies over CREMA-D's 1,116 validation samples


@given(counts, counts, counts, st.integers(0, 120), st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]))
@example(600, 500, 500, 0, 0.5)  # a tie
@example(1000, 600, 300, 30, 0.5)  # delta = tau
@example(500, 600, 500, 0, 0.5)  # one u exactly 0, the other negative
@example(500, 500, 400, 0, 0.5)  # one u exactly 0, the other positive
def test_agrees_with_algorithm_1(fused: int, a: int, b: int, percent: int, mu: float) -> None:
    n = 1116
    found = lr_factors(fused / n, {"a": a / n, "b": b / n}, percent / 100, mu)
    exact = [Fraction(x, n) for x in (fused, a, b)]
    assert tuple(found.values()) == algorithm_1(*exact, Fraction(percent, 100), mu)


@pytest.mark.parametrize(
    "fused, a, b, tau, slowed",
    [
        (0.8, 0.6, 0.4, 0.2, "a"),  # both u positive: the stronger head
        (0.8, 0.4, 0.6, 0.2, "b"),
        (0.5, 0.6, 0.2, 0.2, "a"),  # u_a > 0 > u_b
        (0.5, 0.2, 0.6, 0.2, "b"),
        (0.3, 0.9, 0.4, 0.2, None),  # both u negative: wait until the fused head learns
        (0.3, 0.9, 0.3, 0.2, "a"),  # u_a = 0 > u_b: the printed `else`
        (0.8, 0.6, 0.5, 0.2, None),  # delta below tau
        (1.0, 0.9, 0.6, 0.3, None),  # delta = tau up to rounding (0.30000000000000004)
        (1.0, 0.9, 0.6, 0.29, "a"),
        (0.6, 0.5, 0.5, 0.0, None),  # a tie never acts
        (0.6, 0.0, 0.0, 0.0, None),
        (0.0, 0.4, 0.1, 0.2, None),  # utilization undefined
        (-0.1, 0.4, 0.1, 0.2, None),
        (NAN, 0.4, 0.1, 0.2, None),
        (math.inf, 0.4, 0.1, 0.2, None),
        (0.5, NAN, 0.1, 0.2, None),
        (0.5, 0.4, math.inf, 0.2, None),
        (0.05, 0.4, 0.05, 1.0, "a"),  # delta may exceed 1
    ],
)
def test_edge_rules(fused: float, a: float, b: float, tau: float, slowed: str | None) -> None:
    unimodal = {"a": a, "b": b}
    assert dominant(fused, unimodal, tau) == slowed
    assert lr_factors(fused, unimodal, tau, 0.5) == {
        m: 0.5 if m == slowed else 1.0 for m in unimodal
    }


def test_utilization() -> None:
    # First row of the paper's Fig. 2: 261, 282 and 208 of 1,116 validation clips right.
    unimodal = {"audio": 282 / 1116, "video": 208 / 1116}
    u = conditional_utilization(261 / 1116, unimodal)
    assert {m: round(x, 3) for m, x in u.items()} == {"audio": 0.203, "video": -0.080}
    assert round(utilization_gap(261 / 1116, unimodal), 3) == 0.284
    for bad in (0.0, -1.0, NAN):
        assert all(math.isnan(x) for x in conditional_utilization(bad, unimodal).values())
        assert math.isnan(utilization_gap(bad, unimodal))


@given(
    st.floats(0.01, 1.0),
    st.lists(st.floats(0, 1), min_size=3, max_size=5),
    st.floats(0, 2),
    st.floats(0.01, 1),
)
def test_more_modalities_follow_the_most_distant_pair(
    fused: float, metrics: list[float], tau: float, mu: float
) -> None:
    unimodal = {f"m{i}": x for i, x in enumerate(metrics)}
    factors = lr_factors(fused, unimodal, tau, mu)
    top, bottom = max(unimodal, key=unimodal.__getitem__), min(unimodal, key=unimodal.__getitem__)
    pair = lr_factors(fused, {top: unimodal[top], bottom: unimodal[bottom]}, tau, mu)
    assert factors == {m: pair.get(m, 1.0) if m == top else 1.0 for m in unimodal}
    assert sum(f != 1 for f in factors.values()) <= 1


@given(
    st.integers(0, 100),
    st.lists(st.integers(0, 100), min_size=2, max_size=5),
    st.integers(0, 150),
    st.sampled_from(["max", "min"]),
)
def test_all_pairs_is_the_rule_on_every_pair(
    fused: int, metrics: list[int], tau: int, mode: Any
) -> None:
    unimodal = {f"m{i}": x / 100 for i, x in enumerate(metrics)}
    pairs = [{a: unimodal[a], b: unimodal[b]} for a, b in itertools.combinations(unimodal, 2)]
    slowed = {dominant(fused / 100, pair, tau / 100, mode) for pair in pairs} - {None}
    found = lr_factors(fused / 100, unimodal, tau / 100, 0.5, "all_pairs", mode)
    assert found == {m: 0.5 if m in slowed else 1.0 for m in unimodal}
    largest = lr_factors(fused / 100, unimodal, tau / 100, 0.5, "largest_pair", mode)
    assert {m for m, f in largest.items() if f != 1} <= slowed
    assert bool(slowed) == (min(largest.values()) < 1)  # both rules act in the same epochs


@given(counts, counts, counts, st.integers(0, 120))
@example(600, 500, 400, 0)
def test_losses_mirror_metrics(fused: int, a: int, b: int, percent: int) -> None:
    """M and 2F - M are as far from the fused F, on the other side of it."""
    up = {"a": a / 1116, "b": b / 1116}
    down = {"a": (2 * fused - a) / 1116, "b": (2 * fused - b) / 1116}
    exact = Fraction(abs(a - b)) / fused != Fraction(percent, 100) if fused else True
    if exact:  # equality up to rounding is SLACK's matter
        assert dominant(fused / 1116, up, percent / 100) == dominant(
            fused / 1116, down, percent / 100, "min"
        )


def test_one_modality_is_never_slowed() -> None:
    assert lr_factors(0.5, {"a": 0.9}, 0.0, 0.5) == {"a": 1.0}


# --- through training -------------------------------------------------------------------------

TRACE = [  # fused, image, audio on validation after epochs 1 to 7; tau 0.2
    (0.30, 0.60, 0.40),  # both u negative
    (0.50, 0.60, 0.30),  # image
    (0.60, 0.30, 0.60),  # audio
    (0.60, 0.30, 0.55),  # audio again
    (0.60, 0.56, 0.30),  # image
    (0.00, 0.40, 0.10),  # undefined
    (0.70, 0.50, 0.55),  # below tau
]
FACTORS = {  # image, audio in epochs 1 to 8
    "reset": [(1, 1), (1, 1), (0.5, 1), (1, 0.5), (1, 0.5), (0.5, 1), (1, 1), (1, 1)],
    "literal": [(1, 1), (1, 1), (0.5, 1), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5), (1, 1), (1, 1)],
}


def scripted(trace: list[tuple[float, float, float]], split: str) -> Any:
    """Stands for ``loop.score``, called for the training and then the validation split."""
    other = (0.5, 0.5, 0.5)

    def metrics() -> Iterator[tuple[float, float, float]]:
        for values in [*trace, other]:
            yield from (values, other) if split == "train" else (other, values)

    found = metrics()

    def score(task: Any, logits: Any, labels: Any) -> dict[str, dict[str, float]]:
        names = ("fused", "image", "audio")
        return {k: {"loss": 0.0, "metric": v} for k, v in zip(names, next(found), strict=True)}

    return score


@pytest.mark.parametrize("split", ["val", "train"])
@pytest.mark.parametrize("heads_follow", [True, False])
@pytest.mark.parametrize("reading", ["reset", "literal"])
def test_rates_of_a_training(
    reading: str,
    heads_follow: bool,
    split: str,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "score", scripted(TRACE, split))
    config = settings(
        tiny_data,
        tmp_path,
        "strategy=miles",
        **{
            "epochs": len(TRACE) + 1,
            "strategy.reset_other": reading == "reset",
            "strategy.heads_follow": heads_follow,
            "strategy.source": split,
        },
    )
    fit = build_fit(config)
    epochs = fit.epochs()
    rows = [next(epochs) for _ in range(3)]
    state = saved(fit.state_dict())  # the literal reading must remember who is slow
    fit = build_fit(config)
    fit.load_state_dict(state)
    rows += list(fit.epochs())
    follow = [f if heads_follow else (1, 1) for f in FACTORS[reading]]
    for row, (image, audio), (head_image, head_audio) in zip(
        rows, FACTORS[reading], follow, strict=True
    ):
        assert row["lr"] == {
            "encoder.image": LR * image,
            "encoder.audio": LR * audio,
            "head.image": LR * head_image,
            "head.audio": LR * head_audio,
            "fusion": LR,
        }


def test_a_schedule_and_miles_multiply(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "score", scripted(TRACE, "val"))
    values = {
        "optimizer.schedule": {
            "name": "step",
            "_target_": "miles_repro.recipe.Step",
            "every": 3,
            "gamma": 0.1,
        }
    }
    config = settings(tiny_data, tmp_path, "strategy=miles", **values, epochs=8)
    for row, (image, audio) in zip(build_fit(config).epochs(), FACTORS["reset"], strict=True):
        base = LR * 0.1 ** ((row["epoch"] - 1) // 3)
        assert row["lr"]["fusion"] == pytest.approx(base, rel=1e-12)
        assert row["lr"]["encoder.image"] == pytest.approx(base * image, rel=1e-12)
        assert row["lr"]["encoder.audio"] == pytest.approx(base * audio, rel=1e-12)


def test_utilization_is_recorded(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "score", scripted(TRACE, "val"))
    config = settings(tiny_data, tmp_path, "strategy=miles", epochs=7)
    rows = list(build_fit(config).epochs())
    for row, (fused, image, audio) in zip(rows, TRACE, strict=True):
        if fused == 0:
            assert all(math.isnan(v) for v in row["utilization"].values())
            continue
        assert row["utilization"] == pytest.approx(
            {
                "image": (fused - audio) / fused,
                "audio": (fused - image) / fused,
                "delta": abs(image - audio) / fused,
            }
        )


def test_three_modalities_slow_one_at_most(tiny_data: Path, tmp_path: Path) -> None:
    config = settings(
        tiny_data, tmp_path, "strategy=miles", "strategy.tau=0", dataset="tiny_three", epochs=6
    )
    acted = set()
    for row in build_fit(config).epochs():
        slowed = {g for g, lr in row["lr"].items() if lr != LR}
        assert len({g.split(".")[1] for g in slowed}) <= 1
        acted |= slowed
    assert acted


@pytest.mark.parametrize(
    "value, words",
    [
        ("strategy.tau=-0.1", ("tau=-0.1", "at least 0")),
        ("strategy.mu=1.5", ("mu=1.5", "at most 1")),
        ("strategy.mu=0", ("mu=0", "above 0")),
        ("strategy.source=test", ("source='test'", "val, train")),
        ("strategy.tau=high", ("tau='high'", "a number")),
    ],
)
def test_wrong_values_are_one_clear_line(
    value: str, words: tuple[str, ...], tiny_data: Path, tmp_path: Path
) -> None:
    config = settings(tiny_data, tmp_path / "runs", "strategy=miles", value)
    with pytest.raises(UserError) as error:
        run(config, "test")
    assert all(w in str(error.value) for w in ("miles", *words)), error.value
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()
