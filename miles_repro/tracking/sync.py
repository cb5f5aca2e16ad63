"""Bring a W&B project up to date with run records.

The server is asked what it has, and every finished or failed record it lacks is uploaded from the
record itself. So it does not matter whether a run was offline, lost its connection or was killed on
the way, and a second call finds nothing to do. (``wandb sync`` on the client's own files would
append the rows of a run that the server knows in part a second time.)
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import miles_repro.records as records
from miles_repro.data.pool import in_parallel
from miles_repro.tracking import HEADER, brief, header_of
from miles_repro.tracking.connection import require_server
from miles_repro.tracking.exchange import project_runs
from miles_repro.tracking.wandb_run import MARK, WandbTracker


@dataclass(frozen=True)
class Upload:
    """A record that W&B should have."""

    folder: Path
    tracker: dict[str, Any]
    header: dict[str, Any]
    rows: int
    state: str  # finished | failed

    @property
    def project(self) -> tuple[str | None, str]:
        return self.tracker.get("entity"), self.tracker["project"]


def plan(
    root: Path,
    default: dict[str, Any] | None = None,
    ignored: list[records.Ignored] | None = None,
) -> tuple[list[Upload], int]:
    """Records below ``root`` to upload, and how many are left out because they have not ended.

    Records of runs that were not mirrored at all count only where ``default`` says which tracker
    configuration to use for them. ``ignored`` gets what cannot be read, and why.
    """
    uploads, open_runs = [], 0
    for folder in records.run_folders(root, ignored):
        summary = records.read_summary(folder, ignored)
        marked = _mark(folder)
        if marked is None and default is None:
            continue
        if summary is None and (marked is None or records.status_of(folder) != "failed"):
            open_runs += 1
            continue
        header = marked["header"] if marked else header_of(summary or {})
        tracker = marked["tracker"] if marked else default
        rows = len(records.load_rows(folder))
        state = "finished" if summary else "failed"
        uploads.append(Upload(folder, dict(tracker or {}), header, rows, state))
    return uploads, open_runs


def _mark(folder: Path) -> dict[str, Any] | None:
    try:
        mark: dict[str, Any] = json.loads(records.read_regular(folder / "wandb" / MARK))
        whole = set(HEADER) <= set(mark["header"]) and mark["header"]["run_id"] == folder.name
        named = all(isinstance(mark["tracker"].get(k), str | None) for k in ("project", "entity"))
        return mark if whole and named and mark["tracker"]["project"] else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def missing(uploads: list[Upload]) -> list[Upload]:
    """Those of ``uploads`` that the server does not have completely."""
    known: dict[tuple[str | None, str], dict[str, tuple[str, int]]] = {}
    for project in {upload.project for upload in uploads}:
        known[project] = _on_server(*project)
    todo = []
    for upload in uploads:
        state, rows = known[upload.project].get(upload.header["run_id"], ("absent", 0))
        if state != upload.state or rows < upload.rows:
            todo.append(upload)
    return todo


def _on_server(entity: str | None, project: str) -> dict[str, tuple[str, int]]:
    """State and number of rows of every run of a project; empty where there is no project."""
    return {
        run.id: (run.state, int(run.historyLineCount or 0))
        for run in project_runs(entity, project, lazy=True)
    }


def upload(item: Upload) -> None:
    """Write one record to W&B, from the first row that the server lacks."""
    summary = records.read_summary(item.folder)
    error = None if summary else records.last_error(item.folder)
    rows = records.load_rows(item.folder) if item.rows else []
    with tempfile.TemporaryDirectory(prefix="miles-sync-") as scratch:
        mirror = WandbTracker(item.tracker, item.header, Path(scratch))
        mirror.connect("online", rows)
        mirror.end(summary, error)


def upload_all(items: list[Upload], jobs: int, report: Callable[[Upload, str | None], None]) -> int:
    """Upload in ``jobs`` processes; ``report(item, trouble)`` after each. Returns the failures.

    Raises:
        UserError: the server does not answer any more; the rest would fail too.
    """
    failures = 0
    with closing(in_parallel(_try, items, jobs)) as results:
        for at, trouble in results:
            report(items[at], trouble)
            if trouble is not None:
                failures += 1
                require_server()
    return failures


def _try(item: Upload) -> str | None:
    try:
        upload(item)
    except Exception as error:
        return brief(error)
    return None
