"""What a plan counts, measures and says before anything starts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from protocols import Make
from record_factory import record_of
from support import SIZES
from torch import nn

from miles_repro.config import build
from miles_repro.protocol.decide import Rule, UntilDecided
from miles_repro.protocol.estimate import gpu_flops
from miles_repro.protocol.jobs import Job
from miles_repro.protocol.outlook import Outlook, expected_runs, outlook
from miles_repro.protocol.plan import Line, Machine, Plan, make_plan, show
from miles_repro.records import RunRecord
from miles_repro.run import run
from miles_repro.verdicts import expected_seeds


def test_plan_measures_and_refuses(
    request_tiny: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    three = {"datasets": ("tiny_three",), "fusions": ("sum", "film")}  # FiLM takes two modalities
    protocol = request_tiny("vanilla", "mimo", "mslr_k", **three)
    plan = make_plan(protocol, measure=True)
    show(plan, Machine(workers=2, price=1.5, tflops=10, use=0.5))
    out, progress = capsys.readouterr()
    assert sorted(plan.refused) == [
        ("tiny_three", "film", s) for s in ("mimo", "mslr_k", "vanilla")
    ]
    assert "left out: tiny_three film vanilla: fusion film needs 2 modalities" in out
    lines = {line.stage: line for line in plan.lines}
    cells = 6 - len(plan.refused)
    assert len(lines["search"].missing) == 2 * cells
    assert len(lines["winners over seeds"].missing) == 2 * cells
    assert plan.seconds is not None
    assert 0 < plan.seconds < 600
    assert f"{4 * cells} runs to do: about" in out
    assert "at 1.5 an hour" in out
    assert not list(tmp_path.iterdir())  # nothing was started
    assert progress.splitlines()[:2] == [
        "tiny_three: looking for what is done of 24 runs",
        "[1/3] measuring tiny_three sum vanilla",
    ]
    assert progress.splitlines()[-1].startswith("[3/3, left ")
    total = next(line for line in out.splitlines() if line.startswith("total"))
    assert total.split()[1:4] == [str(4 * cells), "0", str(4 * cells)]
    assert "if it does 10 TFLOP/s (--tflops) at 50 % use (--use)" in out


def test_what_unimodal_runs_will_tell_is_no_reason_to_refuse(request_tiny: Make) -> None:
    """A data set of the user's own names no strong modality, which static_lr slows."""
    unknown = {"datasets": ("tiny_three",), "overrides": ("dataset.strong=null",)}
    protocol = request_tiny("static_lr", fusions=("concat",), **unknown)
    plan = make_plan(protocol, measure=False)
    assert not plan.refused
    assert plan.missing == 4
    job = Job("tiny_three", "static_lr", "concat", 0, 0)
    assert "strategy=unimodal_image" in protocol.look([job])[job].why


def test_operations_are_counted(request_tiny: Make) -> None:
    """An MLP by hand: each layer multiplies and adds once per weight."""
    protocol = request_tiny("unimodal", overrides=("budget.data_fraction=1.0", "epochs=3"))
    job = Job("tiny", "unimodal", "concat", 0, 0, ("strategy.modality", "audio"))
    config = protocol.config(job)
    layers = build(config.dataset.modalities["audio"].encoder).modules()
    weights = sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear))
    weights += 8 * 3  # the classifier
    rows = 3 * SIZES["train"] + SIZES["val"]
    assert gpu_flops(protocol, [job]) == {job.cell: 2 * weights * rows * 3}


def test_plan_says_what_deciding_will_take(
    request_tiny: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """From an assumed spread while nothing ran, from stored pairs afterwards."""
    protocol = request_tiny("vanilla", "vanilla_aux", fusions=("sum",))
    rule = Rule(start=2, max_seeds=9)
    plan = make_plan(protocol, measure=False, rule=rule)
    show(plan, Machine(1))
    out = capsys.readouterr().out
    assert "sum: differences to vanilla_aux spread by 1 points (assumed)" in out
    assert "2 seeds find no difference of any size" in out
    assert "takes about 9 seeds a row (at most 9)" in out
    line = plan.lines[-1]
    assert (line.stage, len(line.missing)) == ("until decided, expected", 2 * (9 - 2))
    for job in [job for stage in protocol.stages("tiny") for job in stage.jobs if job.seed == 0]:
        run(protocol.config(job), "test")
    for seed in (1, 2, 3, 4):
        for row, value in (("vanilla", 0.5 + seed % 2 / 1000), ("vanilla_aux", 0.5)):
            folder = protocol.config(Job("tiny", row, "sum", "best", seed)).run_dir
            one = record_of(folder, budget="smoke", seed=seed)
            one["test"]["fused"]["metric"] = value
            one["run_id"] = folder.name
            RunRecord(folder).finish(one)
    plan = make_plan(protocol, measure=False, rule=rule)
    assert "(from records of 1 rows)" in "\n".join(plan.notes)
    found = outlook(UntilDecided(protocol, "tiny", rule, print))
    assert found[0].sd == pytest.approx(0.1 / 3**0.5)  # of 0.1, 0, 0.1, 0 points
    assert found[0].seeds["vanilla"] == expected_seeds(found[0].sd, 1.0) < 9


@pytest.mark.parametrize("device, words", [("cuda", "2 GPU-hours"), ("cpu", "8 core-hours")])
def test_a_gpu_is_not_counted_by_threads(
    device: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Line("d", "s", 1, (Job("d", "miles", "concat", 0, 1),), 7200.0, 1e15)
    show(Plan(3, 5, 4, device, {}, [line]), Machine(1))
    assert words in capsys.readouterr().out


def test_miles_goes_on_with_the_reference(request_tiny: Make) -> None:
    protocol = request_tiny("vanilla_aux", "miles", "ogm", fusions=("concat",))
    rounds = UntilDecided(protocol, "tiny", Rule(start=5), lambda *given: None)  # type: ignore[arg-type, misc]
    seeds = {"miles": 10, "ogm": 30}
    found = expected_runs(rounds, [Outlook("concat", ("miles", "ogm"), 1.0, 0, seeds, 1.0)])
    assert Counter(job.strategy for job in found) == {"vanilla_aux": 25, "miles": 25, "ogm": 25}
