"""Seeds until decided: the rule, and that interruptions change nothing."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocols import Make, in_process, jobs_of
from record_factory import record

from miles_repro.protocol.decide import Rule, Run, UntilDecided, lines, replay
from miles_repro.protocol.jobs import Job, Stage
from miles_repro.protocol.launch import Rounds
from miles_repro.protocol.stages import Protocol
from miles_repro.records import RunRecord

ROWS = ("miles", "ogm", "gblend", "mses")
EFFECTS = {"vanilla_aux": 0.0, "miles": 0.1, "ogm": -3.0, "gblend": 0.9, "mses": 0.0}
RULE = Rule(start=4, max_seeds=15)


def score(run: Run, world: int = 0) -> float:
    """What a run would measure: a function of the run alone, as it is on one machine."""
    row, seed = run
    shared = random.Random(f"{world} {seed}").gauss(0, 1)
    return 90 + EFFECTS[row] + shared + random.Random(f"{world} {seed} {row}").gauss(0, 0.5)


def to_the_end(world: int, order: random.Random | None = None) -> dict[Run, float]:
    """Run what is wanted until nothing is; with ``order`` only a part of it before each new look,
    as after a kill."""
    scores: dict[Run, float] = {}
    while wanted := list(replay(ROWS, RULE, scores).wanted):
        if order is not None:
            order.shuffle(wanted)
            wanted = wanted[: order.randint(1, len(wanted))]
        scores |= {run: score(run, world) for run in wanted}
    return scores


def test_only_the_contrast_named_beforehand_stands_outside_holm() -> None:
    assert Rule(start=4).named == "miles"
    assert Rule(start=4, reference="vanilla").named is None


@settings(max_examples=25)
@given(st.integers(0, 20), st.integers(0, 10**6))
def test_interruptions_change_nothing(world: int, kills: int) -> None:
    assert to_the_end(world, random.Random(kills)) == to_the_end(world)


def test_only_undecided_rows_get_more_seeds_the_reference_and_the_primary_with_them() -> None:
    scores = to_the_end(0)
    seeds = {row: sorted(k for r, k in scores if r == row) for row in ("vanilla_aux", *ROWS)}
    assert all(ks == list(range(1, len(ks) + 1)) for ks in seeds.values())
    end = replay(ROWS, RULE, scores)
    assert end.verdicts["ogm"].word == "worse"  # and it got every seed that deciding took
    assert 4 <= len(seeds["ogm"]) < 15
    assert len(seeds["vanilla_aux"]) == len(seeds["miles"])
    assert len(seeds["miles"]) == max(len(seeds[row]) for row in ROWS)
    for row in ROWS:
        assert end.verdicts[row].n == len(seeds[row]) or row == "miles"
        assert end.verdicts[row].word != "undecided" or len(seeds[row]) == 15
    # Each row's last seed was asked for: without it the row was undecided.
    for row in ROWS:
        if len(seeds[row]) > 4:
            fewer = {run: x for run, x in scores.items() if run[1] < len(seeds[row])}
            assert (row, len(seeds[row])) in replay(ROWS, RULE, fewer).wanted


def test_records_beyond_what_was_asked_for_change_nothing() -> None:
    scores = to_the_end(3)
    more = scores | {(row, k): score((row, k), 3) for row in EFFECTS for k in range(1, 16)}
    assert replay(ROWS, RULE, more) == replay(ROWS, RULE, scores)


def with_constant(values: Mapping[str, float]) -> dict[Run, float]:
    noise = (0.02, -0.01, 0.0, 0.01)
    return {
        (row, k): v + noise[k - 1] * (row != "vanilla_aux")
        for row, v in values.items()
        for k in (1, 2, 3, 4)
    }


def test_a_diverged_run_counts_and_a_failed_one_is_named() -> None:
    scores = with_constant({"vanilla_aux": 90.0, "miles": 90.0, "ogm": 90.0})
    scores["ogm", 4] = 10.0  # diverged: chance level
    found = replay(("miles", "ogm"), RULE, scores)
    assert found.verdicts["miles"].word == "equal"
    assert found.verdicts["ogm"].mean == pytest.approx(-20, abs=0.1)
    assert found.wanted == (("vanilla_aux", 5), ("miles", 5), ("ogm", 5))
    del scores["ogm", 4]
    found = replay(("miles", "ogm"), RULE, scores, failed={("ogm", 4)})
    assert found.lost == {"ogm": (4,)}
    assert found.wanted == ()
    assert found.verdicts["ogm"].n == 3
    assert lines("sum", found, RULE)[-1].split(maxsplit=2)[1:] == [
        "ogm", "a run failed: no pair at seed 4"
    ]  # fmt: skip
    found = replay(("miles", "ogm"), RULE, {**scores}, failed={("ogm", 4), ("vanilla_aux", 2)})
    assert found.lost == {"miles": (2,), "ogm": (2, 4)}


def test_a_failed_run_is_tried_again_by_the_next_command() -> None:
    scores = with_constant({"vanilla_aux": 90.0, "ogm": 90.5})
    del scores["ogm", 4]
    assert replay(("ogm",), RULE, scores).wanted == (("ogm", 4),)


# On records


@pytest.fixture
def searched(request_tiny: Make) -> Make:
    """A protocol whose searches are done."""

    def make(*strategies: str) -> Protocol:
        protocol = request_tiny(*strategies, fusions=("sum",))
        jobs = jobs_of(protocol)["search"]
        assert not Rounds(protocol, Stage("search", jobs), in_process(protocol)).finish()
        return protocol

    return make


def fake(job: Job, folder: Path) -> None:
    """Leave the record that a decision run would have left."""
    effects = {"vanilla": -4.0, "vanilla_aux": 0.0, "miles": 0.5}
    value = 0.9 + effects[job.row] / 100
    value += random.Random(f"{job.row} {job.seed}").gauss(0, 0.006)
    one = record(job.row, dataset="tiny", fusion="sum", budget="smoke", seed=job.seed)
    one["test"]["fused"]["metric"] = value
    RunRecord(folder).finish(one | {"run_id": folder.name})


class Killed(Exception):
    """Stands for SIGKILL."""


def test_a_killed_command_ends_with_the_same_runs(
    searched: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol = searched("vanilla", "vanilla_aux", "miles")
    rule = Rule(start=2, max_seeds=12)
    begun: list[Job] = []

    def start(jobs: Sequence[Job], patience: float = float("inf")) -> None:
        for i, job in enumerate(jobs):
            if i >= patience:
                raise Killed
            begun.append(job)
            fake(job, protocol.config(job).run_dir)

    assert not UntilDecided(protocol, "tiny", rule, start).finish()
    out = capsys.readouterr().out
    assert "tiny, after 0 rounds of more seeds" in out
    assert "worse" in out
    whole = set(begun)
    assert len(begun) == len(whole) > 6
    for job in begun:
        (protocol.config(job).run_dir / "summary.json").unlink()
    begun.clear()
    kills = 0
    while True:
        try:
            UntilDecided(protocol, "tiny", rule, lambda jobs: start(jobs, patience=1)).finish()
            break
        except Killed:
            kills += 1
    assert kills > 3
    assert set(begun) == whole
    assert len(begun) == len(whole)
    assert not UntilDecided(protocol, "tiny", rule, start).finish()
    assert len(begun) == len(whole)  # nothing is started twice


def test_time_and_failures_end_the_rounds(
    searched: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol = searched("vanilla", "vanilla_aux")
    rule = Rule(start=2, max_seeds=12)
    late = UntilDecided(protocol, "tiny", rule, lambda jobs: None, until=0.0)
    assert not late.finish()
    assert "out of time with 4 runs to do: the same command continues" in capsys.readouterr().out

    def start(jobs: Sequence[Job]) -> None:
        for job in jobs:
            folder = protocol.config(job).run_dir
            if (job.row, job.seed) == ("vanilla", 2):
                with RunRecord(folder).lease():
                    RunRecord(folder).fail("ValueError: no good")
            else:
                fake(job, folder)

    failed = UntilDecided(protocol, "tiny", rule, start).finish()
    assert [(job.row, job.seed) for job in failed] == [("vanilla", 2)]
    assert "a run failed: no pair at seed 2" in capsys.readouterr().out


def test_cells_that_cannot_be_run_are_left_out(searched: Make) -> None:
    protocol = searched("vanilla", "vanilla_aux")
    refused = {("tiny", "sum", "vanilla")}
    found = UntilDecided(protocol, "tiny", Rule(start=2), print, refused).standings()
    assert found["sum"].wanted == ()
    refused = {("tiny", "sum", "vanilla_aux")}
    assert not UntilDecided(protocol, "tiny", Rule(start=2), print, refused).standings()
