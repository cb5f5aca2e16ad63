"""A W&B server of standard-library lines: just enough of the API for the real client.

It understands what ``wandb.init``, ``log``, ``finish``, tables, artifacts, saved workspaces and
reports, ``wandb sweep`` and ``agent``, and the public API's ``runs`` send; it keeps everything in
memory and listens on the loopback address only. History lines are stored by the offset they are
sent with. A request it does not know is answered with an error and kept in ``unknown``.

``delay`` (seconds per answer) and ``status`` (an HTTP error) make it a bad server, once the number
of requests in ``good`` has been answered well.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from wandb_server_extras import Artifacts, Sweeps, Views

from miles_repro.tracking.mirror import artifact_name

ENTITY = "lab"
KEY = "0123456789abcdef" * 2 + "01234567"  # forty characters, as a real key has


@dataclass
class Run:
    """What the server knows of one run."""

    name: str
    project: str
    fields: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    lines: dict[int, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    state: str = "running"

    @property
    def history(self) -> list[dict[str, Any]]:
        """Logged rows in order, without the client's own ``_`` keys."""
        rows = (json.loads(self.lines[i]) for i in sorted(self.lines))
        return [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]

    @property
    def values(self) -> dict[str, Any]:
        """The configuration as the user gave it."""
        return {k: v["value"] for k, v in self.config.items() if k != "_wandb"}


class WandbServer(Artifacts, Views, Sweeps):
    """Start with ``with WandbServer() as server``; point WANDB_BASE_URL at ``server.url``.

    A method ``do_X`` answers the GraphQL operation X, given its variables.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, Run] = {}
        self.operations: list[str] = []
        self.unknown: list[str] = []
        self.lock = threading.RLock()
        self.behave()

    def behave(self, good: int = 0, delay: float = 0.0, status: int = 200) -> None:
        """Answer ``good`` more requests well, the others after ``delay`` s with ``status``."""
        self.good, self.delay, self.status = good, delay, status

    def __enter__(self) -> WandbServer:
        handler = type("Handler", (_Handler,), {"state": self})
        self.http = _QuietServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        match = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
        operation = match.group(1) if match else query.strip("{} ")
        self.operations.append(operation)
        answer = getattr(self, f"do_{operation}", None)
        if answer is None:
            self.unknown.append(query)
            return {"errors": [{"message": f"unknown operation {operation!r}"}]}
        try:
            return {"data": answer(variables)}
        except ValueError as error:  # as the real server refuses
            return {"errors": [{"message": str(error)}]}

    def do___typename(self, v: dict[str, Any]) -> dict[str, Any]:
        return {"__typename": "Query"}

    def do_Viewer(self, v: dict[str, Any]) -> dict[str, Any]:
        user = {"id": "u1", "entity": ENTITY, "username": ENTITY, "email": "lab@localhost"}
        return {"viewer": user | {"flags": "{}", "teams": {"edges": []}}}

    do_GetDefaultEntity = do_Viewer

    # -- runs ------------------------------------------------------------------------------
    def do_UpsertBucket(self, v: dict[str, Any]) -> dict[str, Any]:
        name = v["name"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, Run(name, v["project"]))
        run.fields.update({k: x for k, x in v.items() if x is not None})
        run.config.update(json.loads(v.get("config") or "{}"))
        run.state = v.get("state") or "running"
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": inserted}}

    def do_RunResumeStatus(self, v: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(v["name"])
        bucket = None
        if run is not None:
            bucket = self._bucket(run) | {
                "summaryMetrics": json.dumps(run.summary),
                "logLineCount": 0,
                "eventsLineCount": 0,
                "historyTail": json.dumps([run.lines[i] for i in sorted(run.lines)[-1:]]),
                "eventsTail": "[]",
                "tags": run.fields.get("tags") or [],
                "notes": run.fields.get("notes"),
                "wandbConfig": json.dumps({"t": 1}),
            }
        model = {"id": "p1", "name": v["project"], "entity": {"id": "e1", "name": ENTITY}}
        return {"model": model | {"bucket": bucket}}

    def _bucket(self, run: Run) -> dict[str, Any]:
        project = {"id": "p1", "name": run.project, "entity": {"id": "e1", "name": ENTITY}}
        return {
            "id": run.name,
            "name": run.name,
            "displayName": run.fields.get("displayName") or run.name,
            "description": "",
            "config": json.dumps(run.config),
            "sweepName": run.fields.get("sweep"),
            "project": project,
            "historyLineCount": len(run.lines),
        }

    def do_Runs(self, v: dict[str, Any]) -> dict[str, Any]:
        runs = [run for run in self.runs.values() if run.project == v["project"]]
        if not runs:
            return {"project": None}
        wanted = json.loads(v.get("filters") or "{}").items()
        runs = [run for run in runs if all(run.fields.get(k) == x for k, x in wanted)]
        first = int(v.get("cursor") or 0)
        last = min(first + v["perPage"], len(runs))
        edges = [{"node": self._node(runs[i]), "cursor": str(i + 1)} for i in range(first, last)]
        info = {"endCursor": str(last), "hasNextPage": last < len(runs)}
        project = {"internalId": "1", "runCount": len(runs), "readOnly": False}
        return {"project": project | {"runs": {"edges": edges, "pageInfo": info}}}

    def _node(self, run: Run) -> dict[str, Any]:
        return self._bucket(run) | {
            "projectId": 1,
            "tags": run.fields.get("tags") or [],
            "state": run.state,
            "group": run.fields.get("groupName"),
            "jobType": run.fields.get("jobType"),
            "commit": None,
            "readOnly": False,
            "createdAt": "2026-01-01T00:00:00",
            "heartbeatAt": "2026-01-01T00:00:00",
            "notes": run.fields.get("notes"),
            "systemMetrics": "{}",
            "summaryMetrics": json.dumps(run.summary),
            "user": {"name": ENTITY, "username": ENTITY},
            "historyKeys": None,
        }

    def do_CreateRunFiles(self, v: dict[str, Any]) -> dict[str, Any]:
        files = [
            {"name": name, "uploadUrl": f"{self.url}/storage/run/{v['run']}/{name}"}
            for name in v["files"]
        ]
        return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}

    def file_stream(self, name: str, body: dict[str, Any]) -> None:
        run = self.runs[name]
        for file, chunk in (body.get("files") or {}).items():
            if file == "wandb-history.jsonl":
                run.lines.update(enumerate(chunk["content"], start=chunk["offset"]))
            elif file == "wandb-summary.json":
                run.summary = json.loads(chunk["content"][-1])
        if body.get("complete"):
            run.state = "finished" if body.get("exitcode") == 0 else "failed"

    def record(self, run: Run) -> dict[str, Any]:
        """The ``summary.json`` that a run logged as an artifact."""
        version = f"{artifact_name(run.values)}:{run.values['run_id']}"
        found: dict[str, Any] = json.loads(self.artifacts[version]["summary.json"])
        return found

    def store(self, kind: str, owner: str, name: str, body: bytes) -> None:
        """Keep an uploaded file of a run or an artifact."""
        (self.runs[owner].files if kind == "run" else self.artifacts[owner])[name] = body


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: WandbServer

    def log_message(self, *_: object) -> None:
        """Silent."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.state.lock:
            self.state.good -= 1
            bad = self.state.good < 0
            delay, status = (self.state.delay, self.state.status) if bad else (0.0, 200)
        time.sleep(delay)
        payload = b'{"errors": [{"message": "refused"}]}'
        if status < 400:
            with self.state.lock:
                payload = self._route(unquote(urlsplit(self.path).path), body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = do_PUT = _answer

    def _route(self, path: str, body: bytes) -> bytes:
        parts = path.strip("/").split("/")
        if path == "/graphql":
            request = json.loads(body)
            answer = self.state.graphql(request["query"], request.get("variables") or {})
            return json.dumps(answer).encode()
        if parts[-1] == "file_stream":
            self.state.file_stream(parts[-2], json.loads(body))
        elif self.command == "GET" and parts[0] in ("storage", "artifactsV2"):
            return self.state.stored(path)
        elif parts[0] == "storage":
            self.state.store(parts[1], parts[2], "/".join(parts[3:]), body)
        return b"{}"
