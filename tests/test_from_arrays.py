"""From raw arrays to the tables with the commands that are printed, as a new user types them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import REPO, finish
from own_data import N, own

from miles_repro.records import load_summaries

__all__ = ["own"]
STRATEGIES = "unimodal,vanilla_aux,miles,static_lr,mslr_k,ume"
"""Among them all that asks unimodal runs: for rates, for the strong modality, for teachers."""


def typed(line: str, *options: str, overrides: tuple[str, ...] = ()) -> list[str]:
    """A printed command, quick: ``options`` after its subcommand, ``overrides`` at its end."""
    words = shlex.split(line)
    assert words.pop(0) == "python"
    at = 2 if options else 1
    common = ("epochs=1", "tracker=none")
    return [sys.executable, *words[:at], *options, *words[at:], *common, *overrides]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mine", "ccv"])
def test_from_arrays_to_tables(name: str, own: Path, request: pytest.FixtureRequest) -> None:
    if name == "ccv":
        raw = request.getfixturevalue("shared_data") / "features/ccv"
        modalities = {"view1", "view2", "view3"}
    else:
        np.save(own / "z.npy", np.random.default_rng(1).normal(size=(N, 3)))
        raw, modalities = own, {"x", "y", "z"}
    root = own.parent
    places = [f"out={root / 'data'}", f"conf_dir={root / 'conf'}"]
    script = [sys.executable, "scripts/prepare_data.py", f"dataset={name}"]
    prepared = finish([*script, f"table={raw / 'rows.csv'}", *places])
    assert prepared.returncode == 0, prepared.stderr
    alone, two, protocol = [line.strip() for line in prepared.stdout.splitlines()[-3:]]
    runs, results = root / "runs", root / "results"
    for line in (alone, two):
        done = finish(typed(line, overrides=(f"runtime.runs_dir={root / 'first'}",)))
        assert done.returncode == 0, done.stdout + done.stderr
    made = load_summaries(root / "first")
    assert sorted(s["strategy"] for s in made if s["fusion"] == "concat") == sorted(
        [f"unimodal_{m}" for m in modalities] + 3 * ["vanilla", "miles"]
    )
    options = ["--fusions", "concat", "--strategies", STRATEGIES, "--no-estimate"]
    options += ["--no-ablations", "--runs-dir", str(runs), "--results", str(results)]
    done = finish(typed(protocol.replace("mini", "smoke"), *options))
    assert done.returncode == 0, done.stdout + done.stderr
    found = load_summaries(runs)
    judged = {s["strategy"] for s in found if s["seed"] == 2}
    assert judged == {f"unimodal_{m}" for m in modalities} | set(STRATEGIES.split(",")[1:])
    table = (results / "tables" / f"comparison__{name}__smoke.md").read_text()
    head = next(line for line in table.splitlines() if "strategy" in line)
    assert all(f"{m} (probe)" in head for m in modalities)
    assert "not yet run" not in table
    assert (results / "report.html").is_file()
    status = finish([sys.executable, "scripts/reproduce.py", "status", "--runs-dir", str(runs)])
    assert f"{len(found)} done, 0 diverged, 0 running, 0 failed" in status.stdout
    assert not list(REPO.glob(f"conf/dataset/{name}.yaml"))
