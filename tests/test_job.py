"""One job of a sweep: what it makes known while it trains, and what it keeps of a failure."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import environment, train
from omegaconf import OmegaConf
from record_factory import record_of
from support import settings

from miles_repro import job, sweep
from miles_repro.errors import UserError
from miles_repro.records import RunRecord
from miles_repro.run import Outcome


def test_epochs_of_running_jobs_are_known_to_the_launching_process(tmp_path: Path) -> None:
    heart = job.Heart(tmp_path / "sweep", "tiny sum miles")
    heart(SimpleNamespace(epochs=4), {"epoch": 1})
    heart(SimpleNamespace(epochs=4), {"epoch": 2})  # too soon after the first
    assert list(sweep._beats(tmp_path / "sweep")) == [
        {"job": "tiny sum miles", "epoch": 1, "epochs": 4}
    ]
    heart.path.write_text("{")
    assert list(sweep._beats(tmp_path / "sweep")) == []


def test_the_log_of_a_failure_is_kept_where_its_line_says(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(tiny_data, tmp_path)
    assert job._keep(config, "refused") == ""  # never begun
    assert not config.run_dir.exists()
    assert job._keep(None, "Traceback\nValueError: x") == ""
    assert "ValueError: x" in capsys.readouterr().err
    log = config.run_dir / "error.txt"
    assert job._keep(config, "Traceback\nValueError: x\udcff") == f" (log: {log})"
    assert log.read_text() == "Traceback\nValueError: x\\udcff\n"


def test_what_is_kept_is_what_lies_there(tiny_data: Path, tmp_path: Path) -> None:
    """Not what the record names: it may have been made elsewhere, and unpacked here."""
    config = settings(tiny_data, tmp_path, keep=["weights", "predictions"])
    record = RunRecord(config.run_dir)
    summary = record_of(config.run_dir, keep=["predictions", "weights"])
    record.finish(summary)
    record.save_weights({})
    outcome = Outcome("skipped", config, summary)
    assert job.describe(outcome).endswith(
        "already done, predictions not kept: rerun=true keeps them"
    )
    record.save_predictions({})
    assert job.describe(outcome).endswith("already done")


@pytest.mark.parametrize(
    "error", [KeyError("seed"), TypeError("x"), RecursionError(), OSError(36, "File name too long")]
)
def test_what_takes_the_configuration_by_surprise_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def load(*args: Any) -> None:
        raise error

    monkeypatch.setattr(job.composing, "load", load)
    with pytest.raises(UserError, match=r"^configuration: .+$"):
        job.checked(OmegaConf.create({}), [])


def test_what_only_a_sweep_reads_is_refused_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    hydra = SimpleNamespace(overrides=SimpleNamespace(hydra=["hydra.sweeper.jobs=jobs.txt"]))
    monkeypatch.setattr(job.HydraConfig, "get", lambda: hydra)
    with pytest.raises(UserError, match=r"jobs=jobs\.txt: is for sweeps, add -m"):
        job._check_alone()
    hydra.overrides.hydra = ["hydra.searchpath=[]"]
    job._check_alone()


@pytest.mark.parametrize("many", [False, True])
def test_a_reader_that_leaves_ends_no_job(many: bool, tiny_data: Path, tmp_path: Path) -> None:
    """As ``| head`` does: every run is finished all the same, without a traceback."""
    command = train(tiny_data, tmp_path, f"seed={'0,1' if many else '0'}", "epochs=3")
    if not many:
        command.remove("-m")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment()) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert len(list(tmp_path.rglob("summary.json"))) == (2 if many else 1)
