"""What the W&B tests share: starting processes, and reading the client's offline files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from wandb_server import KEY, Run, WandbServer

REPO = Path(__file__).resolve().parents[1]


def environment(server: WandbServer | str | None, home: Path | None = None) -> dict[str, str]:
    """A bare environment: no terminal, no key unless there is a server, and that home."""
    env = {"PATH": os.environ["PATH"], "HOME": str(home or "/proc/no-home"), "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = str(REPO)
    if "MILES_DATA" in os.environ:
        env["MILES_DATA"] = os.environ["MILES_DATA"]
    if server is not None:
        url = server if isinstance(server, str) else server.url
        env |= {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": url}
    return env


def python(
    script: str, *args: str, env: dict[str, str], cwd: Path = REPO, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a script of the repository without a terminal."""
    return subprocess.run(
        [sys.executable, str(REPO / script), *args],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def track(env: dict[str, str], **options: Any) -> tuple[dict[str, Any], str]:
    """Run tracked_runs.py; its timings and what it printed on stderr."""
    options["root"] = str(options["root"])
    done = python("tests/tracked_runs.py", json.dumps(options), env=env)
    if options.get("kill_at"):
        return {}, done.stderr
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def kill_after_rows(command: list[str], server: WandbServer, rows: int) -> Run:
    """SIGKILL a process once the server has that many rows of its run (sent every 15 s)."""
    with subprocess.Popen(command, env=environment(server), cwd=REPO) as process:
        deadline = time.monotonic() + 120
        while len(getattr(_first(server), "lines", ())) < rows and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    run = _first(server)
    assert run is not None
    assert process.returncode == -signal.SIGKILL
    assert run.state == "running"
    return run


def _first(server: WandbServer) -> Run | None:
    return next(iter(server.runs.values()), None)


def offline_file(run_dir: Path) -> Path:
    """The one offline log of a run."""
    (found,) = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    return found


def read_offline(path: Path) -> dict[str, Any]:
    """The records of a .wandb file: LevelDB's log framing around protobuf messages."""
    from wandb.proto import wandb_internal_pb2 as pb

    data, position, parts = path.read_bytes(), 7, b""
    read: dict[str, Any] = {"rows": [], "summary": {}, "config": {}, "metrics": {}, "exit": None}
    read["records"] = []
    while position + 7 <= len(data):
        room = 32768 - position % 32768
        if room < 7:
            position += room
            continue
        length, kind = (
            int.from_bytes(data[position + 4 : position + 6], "little"),
            data[position + 6],
        )
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = pb.Record.FromString(parts)
            parts = b""
            _add(read, record)
    return read


def _add(read: dict[str, Any], record: Any) -> None:
    if record.HasField("run"):
        read["run"] = record.run
        read["config"] |= {
            item.key: json.loads(item.value_json)
            for item in record.run.config.update
            if item.key != "_wandb"
        }
    elif record.HasField("history"):
        row = {_name(item): json.loads(item.value_json) for item in record.history.item}
        read["rows"].append({k: v for k, v in row.items() if not k.startswith("_")})
    elif record.HasField("summary"):
        read["summary"] |= {_name(i): json.loads(i.value_json) for i in record.summary.update}
    elif record.HasField("metric"):
        metric = record.metric
        read["metrics"][metric.name or metric.glob_name] = metric
    elif record.HasField("request") and record.request.HasField("log_artifact"):
        _add_artifact(read, record.request.log_artifact.artifact)
    elif record.HasField("artifact"):
        _add_artifact(read, record.artifact)
    elif record.HasField("exit"):
        read["exit"] = record.exit.exit_code


def _add_artifact(read: dict[str, Any], artifact: Any) -> None:
    for entry in artifact.manifest.contents:
        if entry.path == "summary.json":
            read["records"].append(json.loads(Path(entry.local_path).read_text()))


def _name(item: Any) -> str:
    return item.key or ".".join(item.nested_key)
