"""What belongs to the protocol, what of it is missing, and how little is asked to know it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from protocols import Make, in_process, jobs_of

from miles_repro import composing, trials
from miles_repro.errors import UserError
from miles_repro.grid import Grid
from miles_repro.paper import PAPER_ROWS
from miles_repro.protocol import launch, stages
from miles_repro.protocol.jobs import Job, Stage
from miles_repro.protocol.launch import Rounds
from miles_repro.protocol.menu import Entry, expand, menu
from miles_repro.protocol.plan import make_plan
from miles_repro.protocol.stages import Request, check_request
from miles_repro.records import load_summaries
from miles_repro.run import run

# What belongs to the protocol


def test_stages_have_the_papers_size(request_tiny: Make) -> None:
    """Paper sec. IV-B: 80 trials of 9 methods x 2 fusions, and of 2 unimodal models, a data set."""
    found = jobs_of(request_tiny(*expand(["paper"]), budget="paper", ablations=("tiny",)))
    sizes = {name: len(jobs) for name, jobs in found.items()}
    assert sizes == {
        "unimodal search": 2 * 80,
        "search": 9 * 2 * 80,
        "unimodal winners over seeds": 2 * 5,
        "winners over seeds": 9 * 2 * 5,
        "ablation of tau": 5 * 2 * 5,
        "ablation of tau at the paper's mu": 5 * 2 * 5,
        "ablation of mu": 7 * 2 * 5,
        "ablation of mu at the paper's tau": 7 * 2 * 5,
        "training metrics, search": 2 * 80,
        "training metrics, winners": 2 * 5,
    }
    assert all(len(set(jobs)) == len(jobs) for jobs in found.values())
    assert {job.fusion for job in found["unimodal search"]} == {"concat"}
    assert {job.trial for job in found["search"]} == set(range(80))
    assert {job.trial for job in found["winners over seeds"]} == {"best"}


def test_seeds_that_choose_do_not_judge(request_tiny: Make) -> None:
    """Search seed 0, decision seeds 1 to n, the same for every row."""
    found = jobs_of(request_tiny("vanilla", "miles", "unimodal", ablations=("tiny",)))
    for jobs in found.values():
        seeds: dict[object, set[int]] = {}
        for job in jobs:
            seeds.setdefault(job.cell, set()).add(job.seed)
        own = {1, 2} if jobs[0].trial == "best" else {0}
        assert all(found == own for found in seeds.values())


def test_every_modality_is_trained_alone(request_tiny: Make) -> None:
    protocol = request_tiny("unimodal", "mslr_k", datasets=("tiny_three",))
    found = jobs_of(protocol, "tiny_three")
    rows = [f"unimodal_{m}" for m in ("image", "audio", "text")]
    for name in ("unimodal search", "unimodal winners over seeds"):
        assert list(dict.fromkeys(job.row for job in found[name])) == rows
    assert not {job.row for job in found["search"]} & set(rows)


def test_ablations_only_where_asked_for(request_tiny: Make) -> None:
    plain = len(jobs_of(request_tiny("vanilla", ablations=("tiny",))))
    assert len(jobs_of(request_tiny("miles"))) == plain
    assert len(jobs_of(request_tiny("miles", ablations=("luma",)))) == plain
    twice = jobs_of(request_tiny("miles", ablations=("tiny",)))
    assert len(twice) == plain + 6
    assert len(jobs_of(request_tiny("miles", ablations=("tiny",), twice=False))) == plain + 4
    for key, other in (("tau", "strategy.mu=0.5"), ("mu", "strategy.tau=0.2")):
        jobs = twice[f"ablation of {key} at the paper's {other[9:].split('=')[0]}"]
        assert all(other in job.overrides and job.fixed[0] == f"strategy.{key}" for job in jobs)


def test_strategies_can_be_asked_for_by_group(tmp_path: Path) -> None:
    folder = tmp_path / "strategy"
    folder.mkdir()
    (folder / "mine.yaml").write_text("name: mine\nlabel: Mine\nfamily: learning rates\n")
    (folder / "plain.yaml").write_text("name: plain\n")
    path = [f"hydra.searchpath=[file://{tmp_path}]"]
    assert menu(path)["mine"] == Entry("mine", "Mine", "learning rates")
    assert menu(path)["plain"] == Entry("plain", "plain", "other")
    assert expand(["paper"]) == (*PAPER_ROWS, "unimodal")
    core = expand(["core"])
    assert {*PAPER_ROWS, "unimodal", "vanilla_aux", "static_lr", "random_lr"} <= set(core)
    assert "modality_dropout" not in core
    everything = expand(["all"], path)
    assert {"mine", "plain", "modality_dropout"} | set(core) <= set(everything)
    assert expand(["learning_rates"], path) == expand(["learning rates"], path)
    assert {"mine", "miles", "mslr_k"} <= set(expand(["learning rates"], path))
    mixed = expand(["gradients", "ogm", "miles"])
    assert (mixed[0], mixed[-1], mixed.count("ogm")) == ("ogm", "miles", 1)
    assert set(mixed) == {*expand(["gradients"]), "miles"}
    with pytest.raises(UserError, match="'magic': neither a group"):
        expand(["magic"])


def test_a_job_is_a_line_that_hydra_reads_as_its_overrides(tmp_path: Path) -> None:
    job = Job("d", "miles", "sum", "best", 3, ("strategy.tau", "0.1"), "strategy.mu=0.5")
    file = tmp_path / "jobs.txt"
    file.write_text(f"# a comment\n\n{job.line}\n")
    (run,) = Grid().listed(str(file), [], ["budget=mini"])
    assert run == [*job.overrides, "trial=best", "seed=3", "budget=mini"]


def test_unknown_choices_are_refused(request_tiny: Make) -> None:
    for changes in ({"budget": "huge"}, {"datasets": ("nothing",)}, {"fusions": ("product",)}):
        with pytest.raises(UserError, match=r"Could not find '.*/(huge|nothing|product)'"):
            check_request(request_tiny("miles", **changes).request)
    with pytest.raises(UserError, match="magic"):
        check_request(request_tiny("magic").request)
    for override in ("seed=[0,1]", "+trial=3", "strategy=ogm"):
        with pytest.raises(UserError, match="the protocol chooses every run's"):
            check_request(Request(overrides=(override,)))
    for override in ("budget.trials=0", "budget.seeds=2.5", "runtime.threads=0", "~budget.seeds"):
        with pytest.raises(UserError, match=r"^(budget|runtime)\.(trials|seeds|threads)[:=]"):
            check_request(Request(overrides=(override,)))


# What is missing, and the rounds that finish it


def test_protocol_to_the_end_and_nothing_twice(
    request_tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "TAUS", ("0.5", "0.0"))
    monkeypatch.setattr(stages, "MUS", ("1.0", "0.5"))
    protocol = request_tiny("unimodal", "mslr_k", "miles", fusions=("sum",), ablations=("tiny",))
    start = in_process(protocol)
    for stage in protocol.stages("tiny"):
        assert not Rounds(protocol, stage, start).finish(), stage.name
        assert not protocol.missing(stage.jobs)
    found = load_summaries(tmp_path)
    jobs = [job for stage in protocol.stages("tiny") for job in stage.jobs]
    assert {r["run_id"] for r in found} == {protocol.config(job).run_id for job in jobs}
    tau = [protocol.config(job) for job in jobs if job.fixed[0] == "strategy.tau"]
    assert sorted({config.strategy["tau"] for config in tau}) == [0.0, 0.5]
    assert len({config.trial for config in tau}) == 1
    assert {config.optimizer.lr for config in tau} == {
        r["config"]["optimizer"]["lr"]
        for r in found
        if r["strategy"] == "miles" and r["trial"] == tau[0].trial
    }
    rates = {
        json.dumps(r["config"]["strategy"]["rates"]) for r in found if r["strategy"] == "mslr_k"
    }
    assert len(rates) == 1

    def unused(overrides: list[str]) -> None:
        raise AssertionError(f"started again: {overrides}")

    for stage in protocol.stages("tiny"):
        assert not Rounds(protocol, stage, unused).finish()
    plan = make_plan(protocol, measure=True)
    assert plan.missing == 0


def test_winner_on_training_metrics_is_its_own(request_tiny: Make) -> None:
    """Table VI re-tunes: trial=best with source=train looks at runs with source=train only."""
    protocol = request_tiny("miles", fusions=("sum",))
    best = Job("tiny", "miles", "sum", "best", 0, ("strategy.source", "train"))
    run(protocol.config(Job("tiny", "miles", "sum", 0, 0)), "test")
    with pytest.raises(UserError, match=r"strategy\.source=train"):
        protocol.config(best)
    run(protocol.config(Job("tiny", "miles", "sum", 1, 0, best.fixed)), "test")
    assert protocol.config(best).trial == 1


def test_one_look_composes_a_cell_once_and_fills_in_a_run_once(
    request_tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And asks the records for a winner once, however many seeds it has."""
    composed: list[object] = []
    filled: list[object] = []
    read: list[object] = []
    for module, name, calls in (
        (stages, "compose", composed),
        (composing, "complete", filled),
        (trials, "load_summaries", read),
    ):
        real = getattr(module, name)

        def counting(
            *args: Any, real: Any = real, calls: list[object] = calls, **options: Any
        ) -> Any:
            calls.append(args)
            return real(*args, **options)

        monkeypatch.setattr(module, name, counting)
    protocol = request_tiny("vanilla", overrides=("budget.seeds=4",))
    found = jobs_of(protocol)
    start = in_process(protocol)
    assert not Rounds(protocol, Stage("search", found["search"]), start).finish()
    for calls in (composed, filled, read):
        calls.clear()
    jobs = found["winners over seeds"]
    assert len(jobs) == 8
    assert len(Rounds(protocol, Stage("winners", jobs), lambda overrides: None).finish()) == 8
    assert not composed  # the two cells were composed before
    rounds = 1 + launch.IDLE_ROUNDS
    assert len(filled) == rounds * len(jobs)
    assert len(read) == rounds * 2
