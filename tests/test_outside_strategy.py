"""A strategy of somebody else's: three files outside this tree, none edited."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import contract
import pytest
from commands import environment, finish, hydra, reproduce, train
from rows import Row
from support import TEST_CONF, strategy_overrides

from miles_repro.records import load_summaries

MODULE = '''
"""Half the gradient for every encoder."""

from miles_repro.hyper import hyper
from miles_repro.strategy import Strategy


class Halved(Strategy):
    factor: float = hyper(0.5, ge=0, le=1)

    def {hook}(self, ctx, train, val):
        self.state.lr_factors = {{f"encoder.{{m}}": self.factor for m in ctx.modalities}}
'''
YAML = """
name: halved
label: Halved rates
family: learning rates
_target_: their_rules.Halved
factor: 0.5
search: {factor: {uniform: [0.1, 0.9]}}
"""
ROW = """
from rows import Row

ROW = Row(touches=[set()], neutral=[({"strategy.factor": 1.0}, "vanilla")])
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the module, the yaml and the row of the strategy."""
    folder = tmp_path / "theirs"
    (folder / "conf" / "strategy").mkdir(parents=True)
    (folder / "their_rules.py").write_text(MODULE.format(hook="on_epoch_end"))
    (folder / "conf" / "strategy" / "halved.yaml").write_text(YAML)
    (folder / "row.py").write_text(ROW)
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("their_rules", None)


def overrides(outside: Path) -> list[str]:
    return [
        f"hydra.searchpath=[file://{TEST_CONF},file://{outside / 'conf'}]",
        "strategy=halved",
    ]


def row(outside: Path) -> Row:
    spec = importlib.util.spec_from_file_location("row_halved", outside / "row.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.ROW
    assert isinstance(found, Row)
    return found


def test_its_row_keeps_to_the_contract(
    outside: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, found = overrides(outside), row(outside)
    vanilla = strategy_overrides("vanilla")
    contract.check_resumes(own, found, tiny_data, tmp_path / "resumed", monkeypatch)
    for dataset in ("tiny_three", "tiny_labels"):
        contract.check_data_set(dataset, own, found, tiny_data, tmp_path / dataset)
    contract.check_rows_stand_alone(own, tiny_data, tmp_path / "alone")
    contract.check_touches(own, found, vanilla, tiny_data, tmp_path / "touched")
    for values, _ in found.neutral:
        contract.check_neutral(own, dict(values), vanilla, tiny_data, tmp_path / "neutral")


def called(
    command: list[str], outside: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str, str]:
    path = f"{environment()['PYTHONPATH']}:{outside}"
    monkeypatch.setattr("commands.environment", lambda: {**environment(), "PYTHONPATH": path})
    search = hydra()[0]
    ours = [overrides(outside)[0] if word == search else word for word in command]
    done = finish(ours)
    monkeypatch.undo()
    return done.returncode, done.stdout, done.stderr


def test_it_runs_and_is_in_the_tables(
    outside: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "results"
    sweep = train(tiny_data, runs, "strategy=vanilla_aux,halved", "seed=1,2,3", "epochs=1")
    code, printed, error = called(sweep, outside, monkeypatch)
    assert code == 0, printed + error
    made = {s["strategy"]: (s["label"], s["family"]) for s in load_summaries(runs)}
    assert made["halved"] == ("Halved rates", "learning rates")
    for s in load_summaries(runs):
        assert ("their_rules" in s["code"]) == (s["strategy"] == "halved")
    tables = reproduce("tables", tiny_data, runs)[:3]
    done = finish([*tables, "--runs-dir", str(runs), "--results", str(out)])
    assert done.returncode == 0, done.stdout + done.stderr
    (comparison,) = out.glob("tables/comparison__tiny__smoke.md")
    (line,) = [x for x in comparison.read_text().splitlines() if "Halved rates" in x]
    assert re.search(r"\d", line)
    (forest,) = out.glob("figures/contrasts__tiny__smoke__concat__vanilla_aux.svg")
    drawn = forest.read_text()
    assert "Halved rates" in drawn
    assert "Halved rates" in (out / "report.html").read_text()


def test_a_hook_that_does_not_exist_is_one_clear_line(
    outside: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (outside / "their_rules.py").write_text(MODULE.format(hook="on_epoch_ends"))
    command = [w for w in train(tiny_data, tmp_path / "runs", "strategy=halved") if w != "-m"]
    code, printed, error = called(command, outside, monkeypatch)
    assert code == 2
    (line,) = (printed + error).strip().splitlines()
    assert line.startswith("error: tiny concat halved")
    assert "Halved.on_epoch_ends is not a hook and would never be called" in line
    assert "on_epoch_end," in line
    assert "installed" not in line
    assert not (tmp_path / "runs" / "tiny").exists()
