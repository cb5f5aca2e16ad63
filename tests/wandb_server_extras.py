"""The parts of the W&B test server that are not runs: artifacts, views, sweeps."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_CREATED = "2026-01-01T00:00:00"


class Artifacts:
    """Artifacts are stored as ``{file: bytes}``, their manifest among them, by their name or, with
    an alias beside ``latest``, by ``name:alias``."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.artifacts: dict[str, dict[str, bytes]] = {}
        self.charts: dict[str, Any] = {}

    def do_ServerFeaturesQuery(self, v: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def do_ArtifactType(self, v: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def do_CreateArtifact(self, v: dict[str, Any]) -> dict[str, Any]:
        aliases = [alias["alias"] for alias in v["input"]["aliases"]]
        own = [f":{alias}" for alias in aliases if alias != "latest"]
        name = "".join([v["input"]["artifactCollectionName"], *own])
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

    def do_ArtifactMembershipByName(self, v: dict[str, Any]) -> dict[str, Any]:
        name, _, alias = v["name"].partition(":")
        if v["name"] not in self.artifacts:
            return {"project": {"artifactCollectionMembership": None}}
        entity = {"name": v["entity"]}
        project = {"id": "p1", "internalId": "1", "name": v["project"], "entity": entity}
        home = {"__typename": "ArtifactSequence", "name": name, "project": project}
        artifact = {
            "__typename": "Artifact",
            "id": v["name"],
            "artifactSequence": home,
            "versionIndex": 0,
            "artifactType": {"name": "record"},
            "tags": [],
            "state": "COMMITTED",
            "size": 1,
            "digest": "0",
            "fileCount": 1,
            "createdAt": _CREATED,
            "commitHash": "0",
            "metadata": "{}",
            **dict.fromkeys(("description", "historyStep", "updatedAt")),
            "ttlIsInherited": True,
            "ttlDurationSeconds": -1,
        }
        membership = {
            "__typename": "ArtifactCollectionMembership",
            "id": "m1",
            "versionIndex": 0,
            "createdAt": _CREATED,
            "artifactCollection": home,
            "artifact": artifact,
            "aliases": [{"__typename": "ArtifactAlias", "id": "a1", "alias": alias}],
        }
        return {"project": {"artifactCollectionMembership": membership}}

    def do_FetchArtifactManifest(self, v: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "f1", "directUrl": f"{self.url}/storage/artifact/{v['id']}/manifest"}
        return {"artifact": {"currentManifest": {"id": "m1", "file": file}}}

    def stored(self, path: str) -> bytes:
        """What GET returns: a manifest, or a file by its MD5 (``artifactsV2/.../md5/name``)."""
        *_, owner, name = path.split("/")
        if name == "manifest":
            return self.artifacts[owner][name]
        files = [body for held in self.artifacts.values() for body in held.values()]
        return next(f for f in files if hashlib.md5(f).hexdigest() == owner)

    def do_CreateCustomChart(self, v: dict[str, Any]) -> dict[str, Any]:
        if v["chartName"] in self.charts:
            raise ValueError("chart already exists")
        self.charts[v["chartName"]] = json.loads(v["spec"])
        return {"createCustomChart": {"chart": {"id": f"{v['entity']}/{v['chartName']}"}}}


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
