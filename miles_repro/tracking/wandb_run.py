"""One W&B run that mirrors one run record.

The record is complete without W&B, so nothing here tries to save what W&B lost: whatever the
server lacks is uploaded from the record by ``scripts/sync_wandb.py`` (see ``sync.py``).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from miles_repro.records import SUMMARY, to_json
from miles_repro.tracking import NoTracker, Tracker, brief, say
from miles_repro.tracking.connection import (
    Mode,
    base_url,
    choose_mode,
    give_up,
    prepare_environment,
    probe,
    settings,
)
from miles_repro.tracking.mirror import (
    artifact_name,
    history_row,
    run_fields,
    summary_values,
)

MARK = "mirror.json"  # in <run_dir>/wandb: says that, and how, this record is mirrored


def open_run(
    header: Mapping[str, Any],
    run_dir: Path,
    history: Sequence[Mapping[str, Any]],
    *,
    mode: str = "auto",
    **options: Any,
) -> Tracker:
    """Open (or continue) the W&B run of this record, online where that works at once.

    ``options``: project, entity, tags, notes, system_metrics.
    """
    if mode == "disabled":
        return NoTracker()
    mirror = WandbTracker(options, header, run_dir)
    mirror.mark()
    prepare_environment(run_dir)
    chosen, reason = choose_mode(mode)
    if chosen == "online":
        try:
            mirror.connect("online", history)
            say("address", f"W&B: {mirror.address}")
            return mirror
        except Exception as error:
            reason = f"cannot open a run ({brief(error)})"
            give_up(base_url(), reason)
            drop_client()
    mirror.connect("offline", history)
    say("trouble", f"W&B is offline: {reason}. {how_to_sync(run_dir)}")
    return mirror


def how_to_sync(run_dir: Path) -> str:
    """The command that uploads this run and its neighbours."""
    runs = run_dir.parents[3] if len(run_dir.parents) > 3 else run_dir
    return f"Upload later with: python scripts/sync_wandb.py {os.path.relpath(runs)}"


def drop_client() -> None:
    """Stop the client's helper process, which still holds the id of a run it could not open."""
    import wandb

    wandb.teardown()


class WandbTracker:
    """Logs to W&B and, once connected, never raises."""

    def __init__(
        self, options: Mapping[str, Any], header: Mapping[str, Any], run_dir: Path
    ) -> None:
        self._options = options
        self._fields = run_fields(options, header)
        self._header = header
        self._run_dir = run_dir
        self._run: Any = None
        self._online = False
        self._known = 0

    def mark(self) -> None:
        """Start with an empty W&B folder: what a killed process left is in the record."""
        folder = self._run_dir / "wandb"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        if not os.environ.get("WANDB_SWEEP_ID"):  # a sweep's runs have ids of the sweep
            mark = {"tracker": self._options, "header": self._header}
            (folder / MARK).write_text(json.dumps(mark), encoding="utf-8")

    def connect(self, mode: Mode, history: Sequence[Mapping[str, Any]]) -> None:
        """Open the run and log the rows of ``history`` that W&B does not have yet.

        Online, an existing run of this id is continued: opened in any other way, the client would
        append the same rows a second time.
        """
        import wandb

        self._online = mode == "online"
        self._run = wandb.init(
            project=self._options.get("project"),
            entity=self._options.get("entity"),
            mode=mode,
            dir=self._run_dir,
            resume="allow" if self._online else None,
            reinit="create_new",
            settings=wandb.Settings(**settings(self._options)),
            **self._fields,
        )
        self._run.define_metric("epoch", hidden=True)
        self._run.define_metric("*", step_metric="epoch")
        self._known = self._run.step  # 0 for a new run, else the step after the last one W&B has
        for row in history:
            self._log(row)

    def _log(self, row: Mapping[str, Any]) -> None:
        """Send a row unless W&B has that epoch: a resumed run may train its last ones again."""
        if row["epoch"] >= self._known:
            self._run.log(history_row(row, self._header["metric"]), step=row["epoch"], commit=True)

    @property
    def address(self) -> str:
        """Where the project can be seen."""
        return str(self._run.project_url)

    def log(self, row: Mapping[str, Any]) -> None:
        """Mirror one epoch."""
        if self._run is not None:
            try:
                self._log(row)
            except Exception as error:
                self._lose(error)

    def finish(self, summary: Mapping[str, Any] | None, error: str | None = None) -> None:
        """Write the summary and upload what is left, in bounded time."""
        if self._run is not None:
            try:
                self.end(summary, error)
            except Exception as trouble:
                self._lose(trouble)

    def end(self, summary: Mapping[str, Any] | None, error: str | None) -> None:
        """As :meth:`finish`, but raises."""
        if self._online and (trouble := probe(base_url())):  # an artifact waits for it much longer
            raise ConnectionError(f"the server {trouble}")
        if summary is not None:
            self._run.summary.update(summary_values(summary))
            if summary["status"] == "diverged":
                self._run.tags += ("diverged",)
            self._log_record(summary)
        if error is not None:
            self._run.summary["error"] = error
        elif self._run.summary.get("error"):  # of an attempt before this one
            del self._run.summary["error"]
        self._run.finish(exit_code=0 if error is None else 1)

    def _log_record(self, summary: Mapping[str, Any]) -> None:
        """The whole ``summary.json`` as an artifact: tables can be rebuilt from W&B alone."""
        import wandb

        artifact = wandb.Artifact(artifact_name(self._header), type="record")
        with artifact.new_file(SUMMARY, encoding="utf-8") as file:
            file.write(to_json(summary))
        self._run.log_artifact(artifact, aliases=["latest", self._header["run_id"]])

    def _lose(self, error: Exception) -> None:
        """Give the mirror up, and after an online run the server too."""
        self._run = None
        if self._online:
            give_up(base_url(), f"was lost ({brief(error)})")
        say(
            "trouble",
            f"W&B lost a run ({brief(error)}), the record is whole. {how_to_sync(self._run_dir)}",
        )
