"""scripts/prepare_data.py: typed options, one line for a mistake, nothing done twice."""

from __future__ import annotations

import functools
import inspect
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miles_repro.data import command
from miles_repro.data.writer import Card, Preparation

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "prepare_data.py"


def prepare_toy(
    raw: Path | None,
    out: Path,
    *,
    rows: int,
    val_split: str,
    grey: bool = False,
    workers: int | None = None,
) -> dict[str, Any]:
    """Toy numbers.

    More about them.
    """
    card = Card("toy", 3, "multiclass", ("a",), "", "", {"rows": rows, "val_split": val_split})
    with Preparation(out, card, workers) as prep:
        prep.skip("broken.wav", "truncated")
        prep.write("x", np.full((rows, 1), float(grey), np.float32))
        prep.write("labels", np.zeros(rows, np.int64))
        at = np.arange(rows)
        prep.split(val_split, train=at[:-2], val=at[-2:-1], test=at[-1:])
        return prep.finish()


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder with the data set toy; returns the data folder."""
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "toy.yaml").write_text(
        "name: toy\npreparer: toy_preparer\npreparation: {rows: 6, val_split: paper}\n"
    )
    (conf / "idle.yaml").write_text("name: idle\n")
    module = types.ModuleType("toy_preparer")
    module.prepare, module.VERSION = prepare_toy, 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_preparer", module)
    monkeypatch.setattr(command, "CONF", conf)
    monkeypatch.delenv("MILES_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def test_prepares_once_and_says_so(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["dataset=toy"]) == 0
    first = capsys.readouterr().out
    assert "prepared: 6 rows, train / val / test: paper 4 / 1 / 1" in first
    assert "left out, truncated: 1" in first
    written = (toy / "toy" / "manifest.json").stat().st_mtime_ns
    assert command.main(["dataset=toy"]) == 0
    assert "already prepared" in capsys.readouterr().out
    assert (toy / "toy" / "manifest.json").stat().st_mtime_ns == written
    assert command.main(["dataset=toy", "--verify"]) == 0
    assert "intact" in capsys.readouterr().out


def test_options_are_typed_by_their_defaults(toy: Path) -> None:
    assert command.main(["dataset=toy", "rows=9", "val_split=grouped", "grey=True"]) == 0
    manifest = json.loads((toy / "toy" / "manifest.json").read_text())
    assert manifest["rows"] == 9
    assert list(manifest["schemes"]) == ["grouped"]
    assert np.load(toy / "toy" / "x.npy").max() == 1


def test_out_and_environment_choose_the_folder(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILES_DATA", str(tmp_path / "elsewhere"))
    assert command.main(["dataset=toy"]) == 0
    assert (tmp_path / "elsewhere" / "toy" / "manifest.json").exists()
    assert command.main(["dataset=toy", f"out={tmp_path / 'third'}"]) == 0
    assert (tmp_path / "third" / "toy" / "manifest.json").exists()
    assert not toy.exists()


def test_another_option_or_version_asks_for_force(
    toy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command.main(["dataset=toy"])
    assert command.main(["dataset=toy", "rows=7"]) == 2
    assert "was prepared with rows=6: add --force" in capsys.readouterr().err
    assert command.main(["dataset=toy", "rows=7", "--force"]) == 0
    assert json.loads((toy / "toy" / "manifest.json").read_text())["rows"] == 7
    monkeypatch.setattr(sys.modules["toy_preparer"], "VERSION", 4)
    capsys.readouterr()
    assert command.main(["dataset=toy"]) == 2
    assert "version 3 of its preparer, this is version 4" in capsys.readouterr().err


def test_force_forgets_an_interrupted_start(toy: Path) -> None:
    command.main(["dataset=toy"])
    (toy / "toy.partial").mkdir()
    (toy / "toy.partial" / "left.progress").touch()
    assert command.main(["dataset=toy", "--force"]) == 0
    assert not (toy / "toy.partial").exists()


@pytest.mark.parametrize(
    "arguments,complaint",
    [
        (["--verify"], "dataset=<name> is missing: one of idle, toy"),
        (["dataset=nope"], "unknown data set 'nope': one of idle, toy"),
        (["dataset=idle"], "names no preparer"),
        (["dataset=toy", "raws=x"], "toy has no option 'raws': it has rows, val_split, grey"),
        (["dataset=toy", "rows=many"], "rows='many': input should be a valid integer"),
        (["dataset=toy", "workers=x"], "workers='x': input should be a valid integer"),
        (["dataset=toy", "grey=2"], "grey='2': input should be a valid boolean"),
        (["dataset=toy", "raw=/nowhere"], "raw=/nowhere is not a folder"),
        (["dataset=toy", "--forse"], "'--forse' is not understood"),
        (["dataset=toy", "--verify"], "holds no prepared data"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    toy: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert complaint in error
    assert error.count("\n") == 1


def test_an_interruption_says_how_to_go_on(
    toy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @functools.wraps(prepare_toy)
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["toy_preparer"], "prepare", interrupted)
    assert command.main(["dataset=toy"]) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_help_lists_data_sets_and_options(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(command.CONF / "toy.yaml", command.CONF / "idle.yaml")
    assert command.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "toy: Toy numbers." in shown
    assert "val_split=paper" in shown
    assert "grey=False" in shown
    assert "workers=None" not in shown


REAL = [name for name in command.dataset_names() if "preparer" in command._configuration(name)]


@pytest.mark.parametrize("name", REAL)
def test_every_option_has_a_default_in_exactly_one_place(name: str) -> None:
    module = command.preparer_of(name)
    assert isinstance(module.VERSION, int)
    parameters = inspect.signature(module.prepare).parameters
    assert list(parameters)[:2] == ["raw", "out"]
    keywords = {key: p for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert "workers" in keywords
    coded = {key for key, p in keywords.items() if p.default is not p.empty}
    written = set(command._written_defaults(name))
    assert coded | written == set(keywords)
    assert not coded & written


def test_the_script_runs_without_an_installation_and_answers_fast(tmp_path: Path) -> None:
    code = (
        f"import sys, runpy; sys.argv = ['x', 'dataset=smnist_mini', 'raw=/nowhere']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 2, end\n"
        "print(sorted({'torch', 'transformers', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
    assert "raw=/nowhere is not a folder" in result.stderr
