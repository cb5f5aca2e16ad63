"""A W&B server of standard-library lines: just enough of the API for the real client.

It understands what ``wandb.init``, ``log``, ``finish``, ``wandb sync``, tables, artifacts, saved
workspaces and the public API's ``runs`` send, keeps everything in memory, and listens on the
loopback address only. ``delay`` (seconds per answer) and ``status`` (an HTTP error for every
request) make it a bad server. History lines are stored by offset, as the real one does, so a line
that is sent twice is stored once.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

ENTITY = "lab"
DEBUG = 0
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
    exit_code: int | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """Logged rows in order, without the client's own ``_`` keys."""
        rows = (json.loads(self.lines[i]) for i in sorted(self.lines))
        return [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]

    @property
    def values(self) -> dict[str, Any]:
        """The configuration as the user gave it."""
        return {k: v["value"] for k, v in self.config.items() if k != "_wandb"}


class WandbServer:
    """Start with ``with WandbServer() as server``; point WANDB_BASE_URL at ``server.url``."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.operations: list[str] = []
        self.unknown: list[str] = []
        self.delay = 0.0
        self.status = 200
        self.good = 0  # so many requests are answered well before delay and status apply
        self.lock = threading.RLock()

    def __enter__(self) -> WandbServer:
        handler = type("Handler", (_Handler,), {"state": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    # -- GraphQL ---------------------------------------------------------------------------
    def graphql(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        match = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
        operation = match.group(1) if match else ""
        self.operations.append(operation)
        answer = getattr(self, f"do_{operation}", None)
        if answer is None:
            self.unknown.append(query)
            return {"errors": [{"message": f"unknown operation {operation!r}"}]}
        return {"data": answer(v)}

    def do_Viewer(self, v: dict[str, Any]) -> dict[str, Any]:
        return {
            "viewer": {
                "id": "u1",
                "entity": ENTITY,
                "username": ENTITY,
                "email": "lab@localhost",
                "flags": "{}",
                "teams": {"edges": []},
            }
        }

    def do_UpsertBucket(self, v: dict[str, Any]) -> dict[str, Any]:
        name = v["name"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, Run(name, v["project"]))
        run.fields.update({k: x for k, x in v.items() if x is not None})
        if v.get("config"):
            run.config.update(json.loads(v["config"]))
        if v.get("state"):
            run.state = v["state"]
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": inserted}}

    def _bucket(self, run: Run) -> dict[str, Any]:
        entity = {"id": "e1", "name": ENTITY}
        return {
            "id": run.name,
            "name": run.name,
            "displayName": run.fields.get("displayName") or run.name,
            "description": "",
            "config": json.dumps(run.config),
            "sweepName": run.fields.get("sweep"),
            "project": {"id": "p1", "name": run.project, "entity": entity},
            "historyLineCount": len(run.lines),
        }

    def do_RunResumeStatus(self, v: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(v["name"])
        bucket = None
        if run is not None:
            last = [run.lines[i] for i in sorted(run.lines)[-1:]]
            bucket = self._bucket(run) | {
                "summaryMetrics": json.dumps(run.summary),
                "logLineCount": 0,
                "eventsLineCount": 0,
                "historyTail": json.dumps(last),
                "eventsTail": "[]",
                "tags": run.fields.get("tags") or [],
                "notes": run.fields.get("notes"),
                "wandbConfig": json.dumps({"t": 1}),
            }
        entity = {"id": "e1", "name": ENTITY}
        return {"model": {"id": "p1", "name": v["project"], "entity": entity, "bucket": bucket}}

    def do_GetDefaultEntity(self, v: dict[str, Any]) -> dict[str, Any]:
        return self.do_Viewer(v)

    def do_Runs(self, v: dict[str, Any]) -> dict[str, Any]:
        runs = [run for run in self.runs.values() if run.project == v["project"]]
        if not runs:
            return {"project": None}
        first = int(v.get("cursor") or 0)
        page = runs[first : first + v["perPage"]]
        info = {"endCursor": str(first + len(page)), "hasNextPage": first + len(page) < len(runs)}
        edges = [
            {"node": self._node(run), "cursor": str(first + i + 1)} for i, run in enumerate(page)
        ]
        connection = {"edges": edges, "pageInfo": info}
        return {
            "project": {
                "internalId": "1",
                "runCount": len(runs),
                "readOnly": False,
                "runs": connection,
            }
        }

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

    # -- artifacts -------------------------------------------------------------------------
    def do_ServerFeaturesQuery(self, v: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def do_ArtifactType(self, v: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def do_CreateArtifact(self, v: dict[str, Any]) -> dict[str, Any]:
        name = v["input"]["artifactCollectionName"]
        self.artifacts.setdefault(name, {})
        sequence = {"latestArtifact": None}
        artifact = {"id": name, "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": artifact}}

    def do_CreateArtifactManifest(self, v: dict[str, Any]) -> dict[str, Any]:
        url = f"{self.url}/storage/manifest/{v['artifactID']}" if v["includeUpload"] else None
        file = {"id": "f1", "uploadUrl": url, "uploadHeaders": []}
        manifest = {"id": v["artifactID"], "file": file}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def do_CreateArtifactFiles(self, v: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            {
                "storagePath": None,
                "uploadUrl": f"{self.url}/storage/artifact/{file['artifactID']}/{file['name']}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            for file in v["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def do_CommitArtifact(self, v: dict[str, Any]) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": "0"}}}

    # -- workspaces and reports ------------------------------------------------------------
    def do_UpsertView2(self, v: dict[str, Any]) -> dict[str, Any]:
        name = v.get("id") or f"view{len(self.views)}"
        self.views[name] = v | {"id": name, "spec": json.loads(v["spec"])}
        return {"upsertView": {"view": v | {"id": name}, "inserted": True}}

    do_upsertView = do_UpsertView2

    def do_View(self, v: dict[str, Any]) -> dict[str, Any]:
        kind = v.get("viewType", "runs")
        nodes = [
            x | {"spec": json.dumps(x["spec"]), "user": None, "updatedAt": None, "createdAt": None}
            for x in self.views.values()
            if x["type"] == kind and v.get("viewName") in (None, x["name"])
        ]
        edges = [{"node": node, "cursor": node["id"]} for node in nodes]
        info = {"endCursor": None, "hasNextPage": False}
        return {"project": {"allViews": {"edges": edges, "pageInfo": info}}}

    do_ProjectViews = do_View

    def do_GetProjects(self, v: dict[str, Any]) -> dict[str, Any]:
        names = sorted({run.project for run in self.runs.values()})
        edges = [
            {
                "cursor": name,
                "node": {
                    "__typename": "Project",
                    "id": name,
                    "name": name,
                    "entityName": ENTITY,
                    "createdAt": "2026-01-01T00:00:00",
                    "isBenchmark": False,
                    "user": None,
                },
            }
            for name in names
        ]
        info = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"edges": edges, "pageInfo": info}}

    # -- files -----------------------------------------------------------------------------
    def do_CreateRunFiles(self, v: dict[str, Any]) -> dict[str, Any]:
        files = [
            {"name": n, "uploadUrl": f"{self.url}/storage/{v['run']}/{n}"} for n in v["files"]
        ]
        return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}

    def file_stream(self, name: str, body: dict[str, Any]) -> None:
        run = self.runs[name]
        for file, chunk in (body.get("files") or {}).items():
            if file == "wandb-history.jsonl":
                for i, line in enumerate(chunk["content"], start=chunk["offset"]):
                    run.lines[i] = line
            elif file == "wandb-summary.json":
                run.summary = json.loads(chunk["content"][-1])
        if body.get("complete"):
            run.exit_code = body.get("exitcode")
            run.state = "finished" if run.exit_code == 0 else "failed"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: WandbServer

    def log_message(self, *_: object) -> None:
        """Silent."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if DEBUG and b'otel' not in self.path.encode(): print(self.command,self.path,body[:DEBUG])
        self.state.good -= 1
        bad = self.state.good < 0
        time.sleep(self.state.delay if bad else 0)
        status, payload = self.state.status if bad else 200, b"{}"
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
        elif parts[:2] == ["storage", "artifact"]:
            self.state.artifacts[parts[2]]["/".join(parts[3:])] = body
        elif parts[:2] == ["storage", "manifest"]:
            self.state.artifacts[parts[2]]["manifest"] = body
        elif parts[0] == "storage" and self.command == "PUT":
            self.state.runs[parts[1]].files["/".join(parts[2:])] = body
        elif parts[0] == "storage":
            return self.state.runs[parts[1]].files["/".join(parts[2:])]
        return b"{}"
