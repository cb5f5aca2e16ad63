"""One job, in whatever process or machine a launcher puts it.

It appends a line to its process's journal in the sweep's folder when it ends, and while it trains
keeps its epoch in a file beside it; the launching process (:mod:`miles_repro.sweep`) follows both.
A failing job never ends a sweep.
"""

from __future__ import annotations

import io
import json
import os
import platform
import secrets
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from miles_repro import composing, places
from miles_repro.config import Config
from miles_repro.errors import UserError, one_line
from miles_repro.machine import PARENT, duration
from miles_repro.records import PREDICTIONS, WEIGHTS, RunRecord, status_of
from miles_repro.run import Outcome, finished, run
from miles_repro.sweep import launch

OF_SWEEPS = ("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweep")
"""Beginnings of keys that mean nothing to a run alone."""
BEAT_S = 1.0
"""The epoch of a running job is made known at most this often."""


def job(composed: DictConfig) -> str:
    """Run one composed configuration, in a sweep or alone. Never raises for a failing run."""
    hydra = HydraConfig.get()
    # as typed: an interpolation refers to the run's configuration, not to Hydra's
    overrides: list[str] = OmegaConf.to_container(hydra.overrides.task, resolve=False)  # type: ignore[assignment]
    alone = hydra.mode == RunMode.RUN
    entry: dict[str, Any] = {"job": "", "overrides": overrides}
    with _notes(alone) as notes:
        try:
            _train(composed, overrides, entry, None if alone else Path(hydra.sweep.dir))
        finally:
            entry["notes"] = notes()
    if alone:
        launch.show(entry)
    else:
        _append(Path(hydra.sweep.dir), entry)
    return str(entry["status"])


def report_finished(composed: DictConfig, overrides: list[str], folder: Path) -> bool:
    """Report a run of a sweep whose record is finished. False where there is something to do."""
    try:
        config = checked(composed, overrides)
        outcome = finished(config)
    except UserError:  # its job says so
        return False
    if outcome:
        _append(folder, {"overrides": overrides, **_ended(outcome)})
    return outcome is not None


def _train(
    composed: DictConfig, overrides: Sequence[str], entry: dict[str, Any], folder: Path | None
) -> None:
    """Fill in ``entry``: how the job ended."""
    config = None
    try:
        if folder is None:
            _check_alone()
        config = checked(composed, overrides)
        entry |= {"job": label(config), "folder": str(config.run_dir)}
        report = EpochLines() if folder is None else Heart(folder, entry["job"])
        outcome = run(config, f"{places.command('train')} {' '.join(overrides)}", report)
        entry |= _ended(outcome)
    except UserError as e:
        entry |= {"status": "failed", "text": str(e) + _keep(config, str(e))}
    except (Exception, SystemExit) as e:
        line = f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
        entry |= {"status": "failed", "text": line + _keep(config, traceback.format_exc())}
    finally:
        if folder is not None:
            _beat_file(folder).unlink(missing_ok=True)


def _check_alone() -> None:
    """Raises UserError for an override that only a sweep would read."""
    for override in HydraConfig.get().overrides.hydra:
        if override.lstrip("+").startswith(OF_SWEEPS):
            raise UserError(f"{override}: is for sweeps, add -m")


def checked(composed: DictConfig, overrides: Sequence[str]) -> Config:
    """As :func:`miles_repro.composing.load`; what takes its code by surprise is the user's mistake.

    Raises:
        UserError: always one line.
    """
    try:
        config = composing.load(composed, overrides)
        config.run_dir  # noqa: B018 - made of names, which may be anything yet
        return config
    except KeyError as e:
        raise UserError(f"configuration: {e} is missing") from None
    except RecursionError:
        raise UserError("configuration: a value refers to itself") from None
    except (TypeError, ValueError, AttributeError, OSError) as e:
        raise UserError(f"configuration: {one_line(e)[:300]}") from None


def label(config: Config) -> str:
    return (
        f"{config.dataset.name} {config.fusion['name']} {config.strategy['name']} "
        f"trial={config.trial} seed={config.seed}"
    )


def percent(score: Mapping[str, Any]) -> str:
    return "nan" if score["metric"] is None else f"{100 * score['metric']:.1f}"


def describe(outcome: Outcome) -> str:
    """Test metrics of a finished run in percent, with its folder's name."""
    if outcome.summary is None:
        return f"another process is running {outcome.config.run_dir}"
    parts = [f"{name} {percent(score)}" for name, score in outcome.summary["test"].items()]
    text = f"test {' / '.join(parts)}  best epoch {outcome.summary['best_epoch']}  "
    if outcome.summary["status"] == "diverged":
        text = f"DIVERGED (the loss was not finite)  {text}"
    if outcome.status == "done":
        return text + duration(outcome.summary["cost"]["wall_s"])
    if outcome.stale:
        which = ", ".join(outcome.stale[:3]) + (", .." if len(outcome.stale) > 3 else "")
        return f"{text}already done, with other code ({which} changed since): rerun=true repeats it"
    c, files = outcome.config, {"weights": WEIGHTS, "predictions": PREDICTIONS}
    # a record that was packed elsewhere names what it left there
    if lacking := [k for k in c.keep if not (c.run_dir / files[k]).exists()]:
        return f"{text}already done, {' and '.join(lacking)} not kept: rerun=true keeps them"
    return f"{text}already done"


def _ended(outcome: Outcome) -> dict[str, Any]:
    """A run's line in the journal, with what the sweep's closing table shows of it."""
    c = outcome.config
    found = {"job": label(c), "folder": str(c.run_dir), "status": outcome.status}
    found["text"] = describe(outcome)
    if outcome.summary is None:
        return found
    scores = {split: outcome.summary[split]["fused"]["metric"] for split in ("val", "test")}
    return {**found, "cell": [c.dataset.name, c.fusion["name"], c.strategy["name"]], **scores}


def _keep(config: Config | None, log: str) -> str:
    """Keep a failed job's log in its run's folder; says where, for the line that reports it.

    A refused run that never began gets no folder; a bug in one does.
    """
    if config and ("\n" in log or os.path.isdir(config.run_dir)):  # noqa: PTH112 - Path's may raise
        if status_of(config.run_dir) in ("done", "running"):
            return ""
        with suppress(UserError):
            if path := RunRecord(config.run_dir).fail(log):
                return f" (log: {path})"
    if "\n" in log:
        print(log, file=sys.stderr, flush=True)
    return ""


@cache
def _process() -> str:
    """This process's name among all that share a sweep's folder, containers included."""
    return f"{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}"


def _beat_file(folder: Path) -> Path:
    return folder / f"epoch.{_process()}.json"


def _append(folder: Path, entry: dict[str, Any]) -> None:
    """Report to the launching process."""
    path = folder / f"journal.{_process()}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as e:  # the launching process then counts this job as lost
        print(f"{entry['job']}: {entry['text']} (cannot write {path}: {e})", file=sys.stderr)


@contextmanager
def _notes(alone: bool) -> Iterator[Any]:
    """What a sweep's worker prints goes into its journal: two processes do not share a terminal.

    Yields a function that gives the lines printed so far.
    """
    if alone or os.environ.get(PARENT) == str(os.getpid()):  # the launching process itself
        yield list
        return
    text = io.StringIO()
    with redirect_stdout(text), redirect_stderr(text):
        yield lambda: text.getvalue().splitlines()[:200]


class Heart:
    """Makes known which epoch a sweep's job is at."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self.name = _beat_file(folder), name
        self.last = 0.0

    def __call__(self, config: Config, row: Mapping[str, Any]) -> None:
        if time.monotonic() - self.last < BEAT_S:
            return
        self.last = time.monotonic()
        beat = {"job": self.name, "epoch": row["epoch"], "epochs": config.epochs}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(beat))
        except OSError:  # the run's own files say what is wrong with the disk
            return


class EpochLines:
    """Progress of a job that is not part of a sweep: a line an epoch, and what is left."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.first: int | None = None

    def __call__(self, config: Config, row: Mapping[str, Any]) -> None:
        self.first = row["epoch"] if self.first is None else self.first
        trained = row["epoch"] - self.first + 1
        left = (time.perf_counter() - self.started) / trained * (config.epochs - row["epoch"])
        heads = "  ".join(f"{k} {percent(s)}" for k, s in row["val"].items())
        text = f"epoch {row['epoch']}/{config.epochs}  val {heads}"
        if (delta := row["utilization"].get("delta")) is not None:
            text += f"  delta {delta:.2f}"
        print(f"{text}  left {duration(left)}", flush=True)
