"""The parts of the W&B test server that are not runs: artifacts, views, sweeps."""

from __future__ import annotations

import json
from typing import Any

_CREATED = "2026-01-01T00:00:00"


class Artifacts:
    """Artifacts are stored by name as ``{file: bytes}``, their manifest among them."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.artifacts: dict[str, dict[str, bytes]] = {}

    def do_ServerFeaturesQuery(self, v: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def do_ArtifactType(self, v: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def do_CreateArtifact(self, v: dict[str, Any]) -> dict[str, Any]:
        name = v["input"]["artifactCollectionName"]
        self.artifacts.setdefault(name, {})
        artifact = {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def do_CreateArtifactManifest(self, v: dict[str, Any]) -> dict[str, Any]:
        url = f"{self.url}/storage/artifact/{v['artifactID']}/manifest"
        file = {"id": "f1", "uploadUrl": url if v["includeUpload"] else None, "uploadHeaders": []}
        return {
            "createArtifactManifest": {"artifactManifest": {"id": v["artifactID"], "file": file}}
        }

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


class Views:
    """Workspaces (type ``project-view``) and reports (type ``runs``)."""

    runs: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.views: dict[str, dict[str, Any]] = {}

    def do_upsertView(self, v: dict[str, Any]) -> dict[str, Any]:
        key = v.get("id") or f"view{len(self.views)}"
        self.views[key] = v | {"id": key}
        return {"upsertView": {"view": self.views[key], "inserted": True}}

    do_UpsertView2 = do_upsertView

    def do_View(self, v: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            view | {"user": None, "updatedAt": _CREATED, "createdAt": _CREATED}
            for view in self.views.values()
            if view["type"] == v.get("viewType", "runs")
            and v.get("viewName") in (None, view["name"])
        ]
        edges = [{"node": node, "cursor": node["id"]} for node in nodes]
        info = {"endCursor": None, "hasNextPage": False}
        return {"project": {"allViews": {"edges": edges, "pageInfo": info}}}

    do_ProjectViews = do_View

    def do_GetProjects(self, v: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            {
                "__typename": "Project",
                "id": name,
                "name": name,
                "entityName": v["entity"],
                "createdAt": _CREATED,
                "isBenchmark": False,
                "user": None,
            }
            for name in sorted({run.project for run in self.runs.values()})
        ]
        info = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"edges": [{"node": node} for node in nodes], "pageInfo": info}}


class Sweeps:
    """One sweep: hand ``trials`` (parameter dicts) to the agent that asks, then send it home."""

    def __init__(self) -> None:
        super().__init__()
        self.sweep: dict[str, Any] = {}
        self.trials: list[dict[str, Any]] = []

    def do_UpsertSweep(self, v: dict[str, Any]) -> dict[str, Any]:
        self.sweep = v
        project = {"id": "p1", "name": v["projectName"], "entity": {"id": "e1", "name": "lab"}}
        return {
            "upsertSweep": {
                "sweep": {"id": "s1", "name": "sweep1", "project": project},
                "configValidationWarnings": [],
            }
        }

    def do_SweepWithRuns(self, v: dict[str, Any]) -> dict[str, Any]:
        return {
            "project": {
                "sweep": {
                    "id": "s1",
                    "name": "sweep1",
                    "method": "bayes",
                    "state": "RUNNING",
                    "description": None,
                    "config": self.sweep["config"],
                    "createdAt": _CREATED,
                    "heartbeatAt": None,
                    "updatedAt": None,
                    "earlyStopJobRunning": False,
                    "bestLoss": None,
                    "controller": None,
                    "scheduler": None,
                    "runs": {"edges": []},
                }
            }
        }

    def do_CreateAgent(self, v: dict[str, Any]) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": "a1"}}}

    def do_Heartbeat(self, v: dict[str, Any]) -> dict[str, Any]:
        commands: list[dict[str, Any]] = []
        if not any(json.loads(v["runState"]).values()):
            commands = [self._next()]
        return {"agentHeartbeat": {"agent": {"id": "a1"}, "commands": json.dumps(commands)}}

    def _next(self) -> dict[str, Any]:
        if not self.trials:
            return {"type": "exit"}
        args = {name: {"value": value} for name, value in self.trials.pop(0).items()}
        run_id = f"trial{len(self.trials)}"
        return {"type": "run", "run_id": run_id, "program": "train.py", "args": args}
