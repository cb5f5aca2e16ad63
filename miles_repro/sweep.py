"""Sweeps as a person sees them: progress, failures as they happen, a table, one exit code.

The launching process follows the journals that jobs (:mod:`miles_repro.job`) write in the sweep's
folder, so it all looks the same under every launcher.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from miles_repro import places
from miles_repro.api import Verb
from miles_repro.errors import UserError
from miles_repro.hints import explain, of_hydra
from miles_repro.machine import duration, end_with_parent, lead, stop_on_signals, warn_about_threads
from miles_repro.records import SUMMARY, in_training, printable

SHOWN = ("dataset", "fusion", "strategy", "trial", "seed")
"""Keys that a job's label has anyway."""
LINE_EVERY_S, TABLE_ROWS = 60.0, 24


class Launch:
    """What the launching process knows of its jobs. One a process: Hydra offers no other place.

    failures: a line for each failed job; elsewhere: the folder of each run that another process
    trains; told: what workers printed.
    """

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.elsewhere: list[Path] = []
        self.follower: Follower | None = None
        self.told: set[str] = set()
        self.led = False  # by another command, which has its own last words

    def run(self, main: Callable[[], object]) -> int:
        """Run a command line to its exit status: 0, 2 failures or a mistake, 3 busy, 130."""
        self.led = end_with_parent()
        stop_on_signals()
        lead()
        try:
            main()
        except (HydraException, OmegaConfBaseException, UserError, RecursionError) as e:
            self._abandon()
            print(f"error: {explain(e)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            follower, self.follower = self.follower, None
            what = follower.stop() if follower else ""
            print(f"interrupted{what}: the same command continues", file=sys.stderr)
            return 130
        except Exception as e:  # the launcher's own: a job keeps its errors to itself
            if self.follower is None and not of_hydra(e):
                raise
            if self.follower is None:
                print(f"error: {explain(e)}", file=sys.stderr)
                return 2
            print(f"error: the sweep broke off: {type(e).__name__}: {explain(e)}", file=sys.stderr)
            if self.follower.total is not None:
                self.end()
            return 2
        finally:
            self._abandon()
        return 2 if self.failures else 3 if self.elsewhere else 0

    def begin(self, config: DictConfig) -> None:
        self.follower = Follower(config, self)

    def expect(self, runs: Sequence[Sequence[str]]) -> None:
        if self.follower is None:  # Hydra warns of an error in `begin` and goes on
            raise UserError("nobody follows this sweep: leave hydra.callbacks.progress as it is")
        self.follower.expect(runs)

    def end(self) -> None:
        """The sweep is over: last words."""
        follower, self.follower = self.follower, None
        if follower:
            follower.end()

    def _abandon(self) -> None:
        follower, self.follower = self.follower, None
        if follower:
            follower.stop()

    def show(self, entry: dict[str, Any], prefix: str = "", say: Callable = print) -> None:
        """Say how a job ended, and remember what the exit status depends on."""
        line = f"{entry['job']}: {entry['text']}" if entry["job"] else entry["text"]
        for note in entry.get("notes", ()):
            if note not in self.told:
                say(printable(note))
            self.told.add(note)
        if entry["status"] == "failed":
            self.failures.append(line)
            line = f"error: {line}"
        elif entry["status"] == "busy":
            self.elsewhere.append(Path(entry["folder"]))
        say(f"{prefix}{line}")


launch = Launch()


class Progress(Callback):
    """Hydra's hook around a sweep. Launchers send it to other processes, so it holds nothing."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        launch.begin(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        launch.end()


class Follower:
    """Follows a sweep's journals from the launching process and shows them."""

    def __init__(self, config: DictConfig, launch: Launch) -> None:
        self.launch = launch
        self.folder, self.runs_dir = Path(config.hydra.sweep.dir), str(config.runtime.runs_dir)
        self.total: int | None = None  # until a sweeper of ours says so
        self.differs: set[str] = set()
        self.started = self.said = time.perf_counter()
        self.counts = dict.fromkeys(("done", "skipped", "busy", "failed"), 0)
        self.lines_read: Counter[Path] = Counter()
        self.rows: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        warn_about_threads(config.hydra.launcher.get("n_jobs") or 1, config.runtime.threads)
        self.bar: Any = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def expect(self, runs: Sequence[Sequence[str]]) -> None:
        """What will be reported: the overrides of every run."""
        common = set(runs[0]).intersection(*runs) if runs else set()
        self.differs = {o.split("=")[0] for run in runs for o in run if o not in common}
        self.total = len(runs)
        print(f"sweep of {self.total} runs", flush=True)
        self.bar = _bar(self.total)

    def stop(self) -> str:
        """End the display. Returns how much is not finished, in words."""
        self.over.set()
        self.thread.join()
        self._read()
        if self.bar:
            self.bar.stop()
        if self.total is None:
            return ""
        open_runs = self.total - self.counts["done"] - self.counts["skipped"]
        return f", {open_runs} of {self.total} runs are not finished"

    def end(self) -> None:
        self.stop()
        open_runs = [
            f for f in self.launch.elsewhere if in_training(f) or not (f / SUMMARY).is_file()
        ]
        # the others were listed twice: another job of this sweep has finished them
        self.counts["skipped"] += self.counts["busy"] - len(open_runs)
        self.counts["busy"], self.launch.elsewhere = len(open_runs), open_runs
        took = duration(time.perf_counter() - self.started)
        summary = ", ".join(f"{n} {status}" for status, n in self.counts.items() if n)
        if not self.launch.led:
            for line in table(self.rows):
                print(line)
        print(f"sweep over in {took}: {summary}", flush=True)
        if self.total == 0:
            self.launch.failures.append("this sweep has no runs: is a range or list empty?")
        if self.total and (lost := self.total - sum(self.counts.values())) > 0:
            self.launch.failures.append(
                f"{lost} of {self.total} runs did not report (worker killed, out of "
                "memory, disk full?) or never began: the same command continues"
            )
        for line in self.launch.failures:
            print(f"failed: {line}", file=sys.stderr, flush=True)
        if n := len(self.launch.elsewhere):
            print(f"{n} runs are still being trained by another process; exit code 3")
        if self.rows and not self.launch.led:
            where = "" if self.runs_dir == "results/runs" else f" --runs-dir {self.runs_dir}"
            print(f"next: {places.command('reproduce')} tables{where}", flush=True)

    def _follow(self) -> None:
        while not self.over.wait(0.2):
            self._read()
            self._show_running()

    def _read(self) -> None:
        for path in sorted(self.folder.glob("journal.*.jsonl")):
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            except OSError:
                continue
            for line in lines[self.lines_read[path] :]:
                if not line.endswith("\n"):
                    break
                self.lines_read[path] += 1
                self._show(json.loads(line))

    def _show(self, entry: dict[str, Any]) -> None:
        self.counts[entry["status"]] += 1
        keys = self.differs.difference(SHOWN if entry["job"] else ())
        own = [o for o in entry.get("overrides", ()) if o.split("=")[0] in keys]
        entry["job"] = " ".join([*filter(None, [entry["job"]]), *own])
        if "cell" in entry:
            trial = [o for o in entry["overrides"] if o.startswith("trial=")]
            self.rows.setdefault((*entry["cell"], " ".join(trial + own)), []).append(entry)
        if entry["status"] == "skipped":
            return
        finished = sum(self.counts.values())
        left = "" if self.bar else f", left {self._left(finished)}"
        self.launch.show(entry, f"[{finished}/{self.total or '?'}{left}] ", self._say)

    def _say(self, line: str) -> None:
        if self.bar:  # as it is: no [markup] in it is meant
            self.bar.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
        else:
            print(line, flush=True)

    def _left(self, finished: float) -> str:
        worked = finished - self.counts["skipped"]
        if worked <= 0 or self.total is None:
            return "?"
        spent = time.perf_counter() - self.started
        return duration(spent / worked * max(0.0, self.total - finished))

    def _show_running(self) -> None:
        """Epochs of the runs in progress: in the bar, or now and then as a line."""
        beats = list(_beats(self.folder))
        finished = sum(self.counts.values()) + sum(b["epoch"] / b["epochs"] for b in beats)
        left, first = self._left(finished), beats[0] if beats else None
        now = f"{first['job']} epoch {first['epoch']}/{first['epochs']}" if first else ""
        if self.bar:
            text = f"left {left}  {now}"[:60].replace("[", "(")
            self.bar.update(self.bar.task_ids[0], completed=finished, description=text)
        elif first and time.perf_counter() - self.said >= LINE_EVERY_S:
            self.said = time.perf_counter()
            ended = sum(self.counts.values())
            print(
                f"[{ended}/{self.total or '?'}, left {left}] {len(beats)} running: {now}",
                flush=True,
            )


def _beats(folder: Path) -> Iterable[dict[str, Any]]:
    for path in sorted(folder.glob("epoch.*.json")):
        try:
            yield json.loads(path.read_bytes())
        except (OSError, ValueError):  # being written, or its job just ended
            continue


def table(rows: dict[tuple[str, ...], list[dict[str, Any]]]) -> Iterable[str]:
    """Mean fused metrics of a sweep's finished runs, a line for all seeds of one setting."""
    if sum(map(len, rows.values())) < 2:
        return
    yield f"{'data set':12} {'fusion':8} {'strategy':18} {'':16} {'runs':>5} {'val':>6} {'test':>6}"
    for (dataset, fusion, strategy, own), runs in list(rows.items())[:TABLE_ROWS]:
        means = []
        for split in ("val", "test"):
            found = [run[split] for run in runs if run[split] is not None]
            means.append(f"{100 * sum(found) / len(found):6.1f}" if found else f"{'nan':>6}")
        name = f"{dataset[:12]:12} {fusion[:8]:8} {strategy[:18]:18} {own[:16]:16}"
        yield f"{name} {len(runs):5} {' '.join(means)}"
    if len(rows) > TABLE_ROWS:
        yield f"... and {len(rows) - TABLE_ROWS} more settings"


def _bar(total: int) -> Any:
    """A progress bar on a terminal; None in a log, where plain lines serve."""
    if not sys.stdout.isatty():
        return None
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"))
    bar.add_task("", total=total)
    bar.start()
    return bar


sys.modules[__name__].__class__ = Verb  # miles_repro.sweep(...)
