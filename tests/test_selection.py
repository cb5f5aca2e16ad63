"""Selection by validation numbers only."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest
from record_factory import population, record

from miles_repro.errors import UserError
from miles_repro.selection import best_trial, best_unimodal_lr, studies, study

CELL = ("smnist_mini", "concat", "miles", "mini")
TEST_FIELDS = ("test", "gap", "utilization", "missing", "noise", "cost", "best_epoch")


def trials(*scores: float, seed: int = 0, **same: Any) -> list[dict[str, Any]]:
    """One run per score, numbered from trial 0."""
    return [record(trial=k, seed=seed, val=score, **same) for k, score in enumerate(scores)]


class Poison(dict[str, Any]):
    """Fails the test at the first look inside."""

    def __getitem__(self, key: str) -> Any:
        raise AssertionError(f"selection read {key!r} of a test field")

    get = keys = values = items = __iter__ = __contains__ = __getitem__  # type: ignore[assignment]


def chosen(records: list[dict[str, Any]]) -> dict[Any, Any]:
    return {
        (one.dataset, key): (cell.trial, [run["run_id"] for run in cell.runs])
        for one in studies(records)
        for key, cell in one.cells.items()
    }


def test_best_trial_has_the_best_validation_metric() -> None:
    assert best_trial(trials(0.90, 0.95, 0.93), *CELL) == 1


def test_ties_go_to_the_lowest_trial() -> None:
    assert best_trial(trials(0.90, 0.95, 0.95)[::-1], *CELL) == 1


def test_no_test_number_is_ever_read() -> None:
    clean = population(trials=3)
    poisoned = [{**r, **{name: Poison() for name in TEST_FIELDS}} for r in clean]
    absent = [{k: v for k, v in r.items() if k not in TEST_FIELDS} for r in clean]
    assert chosen(clean) == chosen(poisoned) == chosen(absent)
    arguments = ("smnist_mini", "mini", "image")
    assert best_unimodal_lr(poisoned, *arguments) == best_unimodal_lr(clean, *arguments)
    assert best_trial(poisoned, *CELL) == best_trial(absent, *CELL) == 0


def test_order_of_records_does_not_matter() -> None:
    records = population(trials=3)
    shuffled = records[:]
    random.Random(0).shuffle(shuffled)
    assert chosen(records) == chosen(shuffled)


@pytest.mark.parametrize(
    "changes",
    [
        {"pinned": ["strategy.tau"]},
        {"strategy_values": {"source": "train"}},
        {"status": "failed"},
        {"budget": "paper"},
        {"fusion": "sum"},
        {"dataset": "smnist"},
    ],
)
def test_other_runs_are_not_candidates(changes: dict[str, Any]) -> None:
    outsider = record(trial=7, val=0.99, **changes)
    assert best_trial([*trials(0.90, 0.95), outsider], *CELL) == 1


def test_a_diverged_run_loses() -> None:
    runs = trials(0.90, 0.95)
    runs[1]["val"]["fused"]["metric"] = None
    assert best_trial(runs, *CELL) == 0
    runs[0]["val"]["fused"]["metric"] = float("nan")
    assert best_trial(runs, *CELL) == 0


def test_the_search_seed_chooses_and_is_not_reported() -> None:
    search = trials(0.90, 0.95, 0.94)
    decisions = [record(trial=1, seed=seed, val=0.90) for seed in (1, 2)]
    records = search + decisions
    assert best_trial(records, *CELL) == 1
    one = study(records, "smnist_mini", "mini")
    assert one is not None
    cell = one.cells["concat", "miles"]
    assert [run["seed"] for run in cell.runs] == [1, 2]
    assert [run["seed"] for run in cell.search] == [0]
    assert (cell.trials, len(cell.searched)) == (3, 5)


def test_decision_seeds_never_choose_a_trial() -> None:
    # Trial 1 is better on the search seed, trial 0 on average.
    assert best_trial(trials(0.90, 0.91) + trials(0.99, 0.90, seed=1), *CELL) == 1


def test_without_the_search_seed_nothing_is_chosen() -> None:
    assert best_trial(trials(0.90, 0.95, seed=1), *CELL) == 0


def test_a_diverged_run_keeps_its_place() -> None:
    one = study([record(seed=s, status="diverged" if s == 2 else "done") for s in (1, 2, 3)],
                "smnist_mini", "mini")  # fmt: skip
    assert one is not None
    assert [run["seed"] for run in one.cells["concat", "miles"].runs] == [1, 2, 3]


def three(strategy: str, *level: float, **same: Any) -> dict[str, Any]:
    names = [strategy.removeprefix("unimodal_")] if "unimodal" in strategy else ["a", "b", "c"]
    changes = {"strong": None, "weak": None, "noise": 0, "seed": 1} | same
    made = record(strategy, dataset="own", modalities=names, level=level, **changes)
    return made | {"modalities": ["a", "b", "c"]}


def test_modalities_are_ordered_by_unimodal_runs_else_by_probes() -> None:
    probed = [three("miles", 0.9, 0.5, 0.7, 0.6)]
    alone = [three(f"unimodal_{m}", x, x) for m, x in (("a", 0.8), ("b", 0.6), ("c", 0.7))]
    found = [study(records, "own", "mini") for records in (probed, probed + alone)]
    assert [one and one.modalities for one in found] == [("b", "c", "a"), ("a", "c", "b")]
    declared = study([three("miles", 0.9, 0.5, 0.7, 0.6, strong="a", weak="b")], "own", "mini")
    assert declared is not None
    assert declared.modalities == ("a", "c", "b")


def test_labels_and_families_are_the_records() -> None:
    one = study([record("mine", level=(0.9, 0.8, 0.7), label="My own", family="losses")],
                "smnist_mini", "mini")  # fmt: skip
    assert one is not None
    assert one.names == {"mine": ("losses", "My own")}


def test_runs_of_another_protocol_are_left_out_and_named() -> None:
    records = trials(0.90, 0.95)
    stranger = record(trial=5, val=0.99)
    stranger["config"]["epochs"] = 1
    other_data = record(trial=6, val=0.99, data_fingerprint="beef")
    one = study([*records, stranger, other_data], "smnist_mini", "mini")
    assert one is not None
    assert one.cells["concat", "miles"].trial == 1
    assert set(one.left_out) == {stranger["run_id"], other_data["run_id"]}


def test_rates_and_strategies_may_differ_within_a_protocol() -> None:
    records = [record(lr=0.001), record(trial=1, lr=0.01), record("vanilla", lr=0.1)]
    one = study(records, "smnist_mini", "mini")
    assert one is not None
    assert one.left_out == {}


def test_one_configuration_per_trial() -> None:
    default = [record(seed=seed) for seed in (0, 1)]
    variant = [
        record(seed=seed, strategy_values={"reset_other": False}, finished="2027")
        for seed in (0, 1)
    ]
    one = study([*variant, *default], "smnist_mini", "mini")
    assert one is not None
    assert [run["run_id"] for run in one.cells["concat", "miles"].searched] == [
        run["run_id"] for run in default
    ]
    assert set(one.left_out) == {run["run_id"] for run in variant}


def test_a_run_read_twice_counts_once() -> None:
    records = trials(0.9)
    one = study(records + records, "smnist_mini", "mini")
    assert one is not None
    assert len(one.cells["concat", "miles"].searched) == 1


def unimodal(lr: float, val: float, seed: int = 0, trial: int = 0) -> dict[str, Any]:
    return record("unimodal_image", lr=lr, val=val, seed=seed, trial=trial)


def test_best_unimodal_rate_is_the_mean_over_seeds() -> None:
    runs = [
        unimodal(1e-3, 0.90, 1),
        unimodal(1e-3, 0.94, 2),
        unimodal(1e-4, 0.93, 1, 1),
        unimodal(1e-4, 0.93, 2, 1),
        record("unimodal_audio", lr=0.5, val=0.99),
    ]
    lr, run_ids = best_unimodal_lr(runs, "smnist_mini", "mini", "image")
    assert lr == 1e-4
    assert run_ids == sorted(run["run_id"] for run in runs[2:4])
    # A search seed decides alone.
    search = [unimodal(1e-3, 0.95, 0), unimodal(1e-4, 0.90, 0, 1)]
    assert best_unimodal_lr(runs + search, "smnist_mini", "mini", "image")[0] == 1e-3


def test_ties_between_rates_go_to_the_smallest() -> None:
    runs = [unimodal(1e-3, 0.9), unimodal(1e-5, 0.9, trial=1), unimodal(1e-4, 0.9, trial=2)]
    assert best_unimodal_lr(runs, "smnist_mini", "mini", "image")[0] == 1e-5


def test_nothing_to_choose_from_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="no finished run of dataset=smnist_mini fusion=concat"):
        best_trial([], *CELL)
    with pytest.raises(UserError, match="strategy=unimodal_audio"):
        best_unimodal_lr(trials(0.9), "smnist_mini", "mini", "audio")


def test_imports_nothing_heavy() -> None:
    code = (
        "import sys, miles_repro.selection, miles_repro.report, miles_repro.plots;"
        "heavy = {'torch', 'numpy', 'pandas', 'scipy', 'matplotlib', 'rich'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
