"""Bad command lines over the whole configuration: each is refused in a line, or trains."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import REPO, attempt, digests, judge, lost
from omegaconf import OmegaConf
from support import compose

from miles_repro import (
    job,  # noqa: F401 - loaded once, for all forks
    training,  # noqa: F401
)
from miles_repro.records import Ignored, load_summaries

pytestmark = pytest.mark.slow
CAMPAIGN = "command lines"
COUNT = 320
VALUES = (
    *("abc", "''", "nan", "inf", "-inf", "-1", "0", "1.5", "1e400", "true", "null", "[]", "{}"),
    *("[1,2]", "{a:1}", "'1'", "../../x", "/etc/passwd", "a/b", ".", "é☃", "x" * 300, "'a b'"),
    *("'<script>'", "'[red]'", "'$(touch pwned)'", "${seed}", "${nothing}", "${oc.env:NOTHING}"),
    *("0x1", "1_0", "-0.0", "9223372036854775808", "'\x1b[31m'", "\u202e", "range(0,0)"),
)
STRUCTURE = (
    *("seed=", "=1", "seed", "==", "seed=[", "seed={a", "seed='", "'seed=1", "seed=1)", "+", "~"),
    *("~seed", "~dataset", "~strategy", "~fusion.name", "~dataset.modalities.image", "~runtime"),
    *("~optimizer.lr", "~budget.trials", "~epochs", "~hydra", "~strategy.tau", "~tracker.name"),
    *(
        "lr=0.01",
        "+lr=0.01",
        "++lr=0.01",
        "tau=0.1",
        "strategy.taau=1",
        "strategy=mile",
        "fusion=x",
    ),
    *(
        "dataset=nothing",
        "dataset=../tiny",
        "strategy=[miles]",
        "strategy={name:x}",
        "strategy=null",
    ),
    *("experiment=nothing", "hydra/launcher=nothing", "hydra.sweep.dir=/proc/x", "hydra=null"),
    *("seed=${seed}", "seed=${trial} trial=${seed}", "batch_size=${oc.env:HOME}", "\udcff=1"),
    *("strategy._target_=os.system", "fusion._target_=nothing.here", "fusion._target_=os"),
    *("dataset.modalities.image.encoder._target_=builtins.exec", "runtime.runs_dir=/proc/x"),
    *("runtime.data_dir=/dev/null", "runtime.device=tpu", "runtime.device=cuda:99", "--cfg"),
    *("+tracker.notes='<b>'", "+tracker.notes=\u2028", "strategy.family='a|b [c](d)'"),
    *("--nothing", "-x", "--config-name=nothing", "--config-dir=/nowhere"),
)
MUST_BE_REFUSED = (
    *("trial=1.0", "trial='1'", "trial=true", "trial=1.5", "seed=1.0", "seed=true", "seed='1'"),
    *("optimizer.lr=inf", "optimizer.weight_decay=inf", "optimizer.lr=nan", "optimizer.lr=-1"),
    *("dataset.num_classes=20", "dataset.strong=audio", "dataset.weak=image", "dataset.strong=x"),
    *("+pinned=[optimizer.lr]", "+stacked=true", "tracker.name=mlflow", "dataset.name=null"),
    *("strategy.label='<b>'", "strategy.family='a\u202eb'", "optimizer.betas=[0.9,inf]"),
    *("fusion.name=/elsewhere/x", "strategy.name=../../x", "fusion.name=a/b", "strategy.name=''"),
    *("dataset.name=..", "strategy.name='<b>'", "fusion.name=" + "x" * 300, "budget.name=../x"),
    *("epochs=0", "epochs=1.5", "batch_size=0", "seed=-1", "seed=abc", "budget.data_fraction=2"),
    *("optimizer.momentum=1", "optimizer.betas=[1]", "precision.amp=fp8", "nothing=1", "seed="),
)
SWEEPS = ("seed=range(0,0)", "seed=glob(*)", "seed=1,", "seed=choice()", "seed=interval(0,1)")


def keys() -> list[str]:
    """Every key of the configuration, groups and leaves."""

    def walk(node: Any, prefix: str = "") -> Iterator[str]:
        for key, value in node.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")

    found = walk(OmegaConf.to_container(compose("dataset=tiny"), resolve=False))
    # what leads a run elsewhere, or makes a good one long, is not for chance
    return [k for k in found if k not in ("runtime.runs_dir", "runtime.data_dir", "epochs")]


def generated() -> list[tuple[list[str], bool | None]]:
    """(overrides, must be refused)"""
    draw = random.Random(120)
    cases: list[tuple[list[str], bool | None]] = [([one], True) for one in MUST_BE_REFUSED]
    cases += [(one.split(" "), None) for one in STRUCTURE]
    cases += [(["-m", one], True) for one in SWEEPS]
    known = keys()
    while len(cases) < COUNT:
        prefix = draw.choice(("", "", "", "", "+", "++"))
        cases.append(([f"{prefix}{draw.choice(known)}={draw.choice(VALUES)}"], None))
    return cases


def test_bad_overrides(tiny_data: Path, tmp_path: Path) -> None:
    runs, cwd = tmp_path / "runs", tmp_path / "cwd"
    cwd.mkdir()
    where = [f"runtime.data_dir={tiny_data}", f"runtime.runs_dir={runs}"]
    search = f"hydra.searchpath=[file://{REPO / 'tests' / 'conf'}]"
    base = [search, "tracker=none", "runtime.device=cpu", "dataset=tiny", "epochs=1", *where]
    for strategy in ("miles", "vanilla"):
        assert attempt("train.py", [*base, f"strategy={strategy}"], cwd=cwd).code == 0
    finished = digests(runs)
    assert len([name for name in finished if name.endswith("summary.json")]) == 2
    outside = digests(tmp_path / "cwd").keys()
    problems = {}
    for overrides, refused in generated():
        options = [one for one in overrides if one.startswith("-")]
        others = [one for one in overrides if not one.startswith("-")]
        end = attempt("train.py", [*options, *base, *others], cwd=cwd)
        problem = judge(end, CAMPAIGN, refused=refused) or lost(CAMPAIGN, finished, digests(runs))
        if not problem and end.code and len(max(end.text.splitlines(), key=len)) > 1500:
            problem = "a line that nobody reads"
        if not problem and digests(cwd).keys() != outside:
            problem = "wrote into the working directory"
        if not problem and any(p.name not in ("runs", "cwd") for p in tmp_path.iterdir()):
            problem = "wrote outside the runs folder"
        if problem:
            problems[" ".join(overrides)[:100]] = problem
    assert not problems, "\n".join(f"{case!r}: {why}" for case, why in problems.items())
    ignored: list[Ignored] = []
    load_summaries(runs, ignored)  # what was accepted can be read back
    assert ignored == []


@pytest.mark.parametrize("options", [["--workers", "-3"], ["--workers", "0"], ["--price", "nan"]])
def test_bad_options_of_a_plan(tiny_data: Path, tmp_path: Path, options: list[str]) -> None:
    paths = ["--runs-dir", str(tmp_path / "runs"), "--data-dir", str(tiny_data)]
    arguments = ["plan", "--datasets", "tiny", "--budget", "smoke", *paths, *options]
    search = f"hydra.searchpath=[file://{REPO / 'tests' / 'conf'}]"
    end = attempt("scripts/reproduce.py", [*arguments, search, "tracker=none"], cwd=tmp_path)
    assert not judge(end, CAMPAIGN, refused=True)
