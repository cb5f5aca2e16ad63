"""Jobs and sweeps as a person sees them: progress, failures as they happen, one exit code.

Every job, in whatever process or machine the launcher puts it, appends one line to its process's
journal in the sweep's folder; the launching process follows the journals, so progress and failures
look the same under every launcher. A failing job never ends a sweep.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from miles_repro.composing import load
from miles_repro.config import Config
from miles_repro.errors import UserError
from miles_repro.records import RunRecord, status_of
from miles_repro.run import Outcome, run

failures: list[str] = []
"""One line for each failed job this process knows of; the exit code follows from it."""

elsewhere: list[str] = []
"""One line for each run that another process was training: not failed, not finished either."""


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def job(composed: DictConfig) -> str:
    """Run one composed configuration, in a sweep or alone. Never raises for a failing run."""
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    command = "python train.py " + " ".join(overrides)
    alone = hydra.mode == RunMode.RUN
    entry: dict[str, Any] = {"job": " ".join(overrides)}
    settings: list[Config] = []
    try:
        settings = [load(composed, overrides)]
        entry["job"] = label(settings)
        report = EpochLines(settings) if alone else lambda config, row: None
        outcomes = [run(settings[0], command, report)]
        status = min((o.status for o in outcomes), key=("busy", "done", "skipped").index)
        entry |= {"status": status, "text": "; ".join(map(describe, outcomes))}
    except UserError as e:
        entry |= {"status": "failed", "text": str(e) + _keep(settings, str(e))}
    except (Exception, SystemExit) as e:
        line = f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
        entry |= {"status": "failed", "text": line + _keep(settings, traceback.format_exc())}
    if alone:
        show(entry)
    else:
        _append(Path(hydra.sweep.dir), entry)
    return str(entry["status"])


def label(configs: Sequence[Config]) -> str:
    """One run's name, or that of a stack."""
    first = configs[0]
    trials = ",".join(dict.fromkeys(str(c.trial) for c in configs))
    seeds = ",".join(dict.fromkeys(str(c.seed) for c in configs))
    return (
        f"{first.dataset.name} {first.fusion['name']} {first.strategy['name']} "
        f"trial={trials} seed={seeds}"
    )


def describe(outcome: Outcome) -> str:
    """Test metrics of a finished run in percent, with its folder's name."""
    if outcome.summary is None:
        return f"another process is running {outcome.config.run_dir}"
    scores = outcome.summary["test"]
    parts = [f"{name} {100 * s['metric']:.1f}" for name, s in scores.items()]
    return f"test {' / '.join(parts)}  best epoch {outcome.summary['best_epoch']}  " + (
        f"{outcome.summary['cost']['wall_s']:.0f} s" if outcome.status == "done" else "already done"
    )


def show(entry: dict[str, Any], prefix: str = "", console: Any = print) -> None:
    line = f"{entry['job']}: {entry['text']}"
    if entry["status"] == "failed":
        failures.append(line)
        console(f"{prefix}error: {line}")
        return
    if entry["status"] == "busy":
        elsewhere.append(line)
    console(f"{prefix}{line}")


def _keep(settings: Sequence[Config], log: str) -> str:
    """Keep a failed job's log in its runs' folders; says where, for the line that reports it."""
    folders = [c.run_dir for c in settings if c.run_dir.is_dir()]
    cut_off = [f for f in folders if status_of(f) not in ("done", "running")]
    paths = [RunRecord(folder).fail(log) for folder in cut_off]
    if paths and paths[0] is not None:
        return f" (log: {paths[0]})"
    if "\n" in log:
        print(log, file=sys.stderr, flush=True)
    return ""


def _append(folder: Path, entry: dict[str, Any]) -> None:
    """Report to the launching process. Each process has its own file: machines share the folder."""
    path = folder / f"journal.{platform.node()}.{os.getpid()}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as e:  # the launching process then counts this job as lost
        print(f"{entry['job']}: {entry['text']} (cannot write {path}: {e})", file=sys.stderr)


class EpochLines:
    """Progress of a job that is not part of a sweep: a line an epoch, and what is left."""

    def __init__(self, configs: Sequence[Config]) -> None:
        self.started = time.perf_counter()
        self.first: int | None = None
        self.stack = len(configs) > 1

    def __call__(self, config: Config, row: dict[str, Any]) -> None:
        self.first = row["epoch"] if self.first is None else self.first
        trained = row["epoch"] - self.first + 1
        left = (time.perf_counter() - self.started) / trained * (config.epochs - row["epoch"])
        heads = "  ".join(f"{k} {100 * s['metric']:.1f}" for k, s in row["val"].items())
        delta = row["utilization"].get("delta")
        text = f"epoch {row['epoch']}/{config.epochs}  val {heads}"
        if self.stack:
            text = f"trial {config.trial} seed {config.seed}  {text}"
        if delta is not None:
            text += f"  delta {delta:.2f}"
        print(f"{text}  left {duration(left)}", flush=True)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Progress(Callback):
    """Hydra's hook around a sweep. Launchers send it to other processes, so it holds nothing."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _following.append(Follower(config))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        _following.pop().end()


def break_off(reason: str) -> bool:
    """End the display of a sweep that its launcher gave up. False where no sweep was on."""
    if not _following:
        return False
    print(f"error: the sweep broke off: {reason}", file=sys.stderr, flush=True)
    _following.pop().end()
    return True


class Follower:
    """Follows a sweep's journals from the launching process and shows them."""

    def __init__(self, config: DictConfig) -> None:
        self.folder = Path(config.hydra.sweep.dir)
        self.total = count_jobs(config)
        self.started = time.perf_counter()
        self.counts = dict.fromkeys(("done", "skipped", "busy", "failed"), 0)
        self.lines_read: Counter[Path] = Counter()
        warn_about_threads(config)
        print(f"sweep of {self.total} runs", flush=True)
        self.bar = _bar(self.total)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def end(self) -> None:
        self.over.set()
        self.thread.join()
        self._read()
        if self.bar:
            self.bar.stop()
        summary = ", ".join(f"{n} {status}" for status, n in self.counts.items() if n)
        print(
            f"sweep over in {duration(time.perf_counter() - self.started)}: {summary}", flush=True
        )
        lost = self.total - sum(self.counts.values())
        if lost:
            failures.append(
                f"{lost} of {self.total} runs did not report (worker killed, out of "
                "memory, disk full?) or never began: the same command continues"
            )
        for line in failures:
            print(f"failed: {line}", file=sys.stderr, flush=True)
        if elsewhere:
            print(f"{len(elsewhere)} runs are still being trained by another process; exit code 3")

    def _follow(self) -> None:
        while not self.over.wait(0.2):
            self._read()

    def _read(self) -> None:
        for path in sorted(self.folder.glob("journal.*.jsonl")):
            lines = path.read_text().splitlines(keepends=True)
            for line in lines[self.lines_read[path] :]:
                if not line.endswith("\n"):
                    break
                self.lines_read[path] += 1
                self._show(json.loads(line))

    def _show(self, entry: dict[str, Any]) -> None:
        self.counts[entry["status"]] += 1
        finished = sum(self.counts.values())
        if self.bar:
            self.bar.advance(self.bar.task_ids[0])
        if entry["status"] == "skipped":
            return
        worked = finished - self.counts["skipped"]
        left = (time.perf_counter() - self.started) / worked * (self.total - finished)
        prefix = f"[{finished}/{self.total}, left {duration(left)}] "
        show(entry, prefix, self.bar.console.print if self.bar else _plain)


_following: list[Follower] = []


def warn_about_threads(config: DictConfig) -> None:
    workers = config.hydra.launcher.get("n_jobs") or 1
    threads, cores = config.runtime.threads, available_cores()
    if workers > 0 and workers * threads > cores:
        print(
            f"warning: {workers} workers x {threads} threads on {cores} cores slow each other "
            "down: lower hydra.launcher.n_jobs or runtime.threads",
            file=sys.stderr,
        )


def _plain(text: str) -> None:
    print(text, flush=True)


def _bar(total: int) -> Any:
    """A progress bar on a terminal; None in a log, where plain lines serve."""
    if not sys.stdout.isatty():
        return None
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar.add_task("runs", total=total)
    bar.start()
    return bar


def count_jobs(config: DictConfig) -> int:
    """How many jobs Hydra's basic sweeper will make of this multirun."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    params = config.hydra.sweeper.get("params") or {}
    texts = [f"{k}={v}" for k, v in params.items()] + list(config.hydra.overrides.task)
    parsed = OverridesParser.create().parse_overrides(texts)
    return sum(len(batch) for batch in BasicSweeper.split_arguments(parsed, None))
