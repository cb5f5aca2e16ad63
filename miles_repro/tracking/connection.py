"""Where a W&B run goes: online or offline, decided in bounded time."""

from __future__ import annotations

import base64
import netrc
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import ValidationError

from miles_repro.errors import UserError

PROBE_SECONDS = 3.0  # longest wait for a server that does not answer, once per process
INIT_SECONDS = 10.0  # longest wait for a server that answers the probe but not the run
FINISH_SECONDS = 10.0  # longest wait for the last uploads of one run
_MODES = {"dryrun": "offline", "run": "online", "shared": "online"}
Mode = Literal["online", "offline"]
_unusable: dict[str, str] = {}


def prepare_environment(run_dir: Path | None = None) -> None:
    """Keep the client's own files out of the home directory, and its chatter off the terminal.

    They go below ``run_dir``, or to the temporary folder where no run is concerned.
    """
    folder = run_dir / "wandb" if run_dir else Path(tempfile.gettempdir()) / f"miles-{os.getuid()}"
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        os.environ.setdefault(name, str((folder / "client").absolute()))
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")


def choose_mode(asked: str) -> tuple[Mode, str]:
    """``(mode, reason)``: mode is online or offline; reason says why not online.

    ``auto`` is online where a key is configured. A server that does not answer the probe is not
    asked again by this process.
    """
    mode = _MODES.get(asked, asked)
    if mode == "offline":
        return "offline", "asked for"
    if mode not in ("auto", "online"):
        return "offline", f"unknown mode {asked!r}: use auto, online, offline or disabled"
    url = base_url()
    if not has_key(url):
        return "offline", "no API key in WANDB_API_KEY or netrc"
    if url not in _unusable:
        trouble = probe(url)
        if trouble is None:
            return "online", ""
        give_up(url, trouble)
    return "offline", f"{url} {_unusable[url]}"


def give_up(url: str, trouble: str) -> None:
    """Stay offline for the rest of this process."""
    _unusable[url] = trouble


def client_settings() -> Any:
    """The client's own, of WANDB_... variables and settings files.

    Raises:
        UserError: one has a value that the client does not take.
    """
    import wandb

    try:
        return wandb.setup().settings
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]  # it may be a key
        name = "_".join(map(str, first["loc"]))
        raise UserError(
            f"W&B cannot use its setting {name} (WANDB_{name.upper()}, or a settings file): "
            f"{first['msg'].lower()}"
        ) from None


def base_url() -> str:
    """The W&B server: WANDB_BASE_URL, the user's W&B settings file, or the public one."""
    return str(client_settings().base_url).rstrip("/")


def project_url(project: str | None) -> str | None:
    """Where a browser shows ENTITY/PROJECT; None where the owner is not named."""
    if not project or "/" not in project:
        return None
    return f"{client_settings().app_url}/{quote(project)}"


def has_key(url: str) -> bool:
    """Whether credentials for ``url`` are configured, without reading more than needed."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    return any(found.authenticators(urlsplit(url).netloc) for found in _netrc_files())


def _netrc_files() -> Iterator[netrc.netrc]:
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path("~/.netrc"), Path("~/_netrc")]:
        try:
            found = netrc.netrc(path.expanduser())
        except (OSError, RuntimeError, ValueError, netrc.NetrcParseError):
            continue
        yield found


def probe(url: str, seconds: float = PROBE_SECONDS) -> str | None:
    """What is wrong with the server, in a few words; None where it answers in time.

    Any answer below 500 will do: whether the key is good is for the client to find out.
    """
    request = urllib.request.Request(
        f"{url}/graphql", b'{"query":"{__typename}"}', {"Content-Type": "application/json"}
    )
    try:
        urllib.request.urlopen(request, timeout=seconds).close()
    except urllib.error.HTTPError as error:
        return f"answers with error {error.code}" if error.code >= 500 else None
    except OSError as error:
        if "certificate" in str(error).lower():  # the client has its own certificate stores
            return None
        return f"does not answer within {seconds:g} s"
    return None


def require_server() -> None:
    """Raise UserError where nothing could be uploaded or read."""
    prepare_environment()
    url = base_url()
    if not has_key(url):
        raise UserError(
            f"no API key for {url}: set WANDB_API_KEY or run 'wandb login', here or on a "
            "machine that sees the same records"
        )
    if trouble := probe(url, 30.0):
        raise UserError(f"the W&B server {url} {trouble}: repeat the command later")


def hide_key(text: str) -> str:
    """``text`` without the configured API keys, plain, as sent (base64) or in an address."""
    for key in _keys():
        basic = [f"api:{key}", key, f"user:{key}"]
        forms = [base64.b64encode(form.encode()).decode() for form in basic]
        for form in (*forms, *(f.rstrip("=") for f in forms), quote(key, safe=""), key):
            text = text.replace(form, "[key]")
    return text


def _keys() -> list[str]:
    """API keys from the environment and from netrc, of whatever server; a part of another last."""
    entries = [entry for found in _netrc_files() for entry in found.hosts.values()]
    keys = {os.environ.get("WANDB_API_KEY"), *(password for _, _, password in entries)}
    return sorted((key for key in keys if key), key=len, reverse=True)


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Client settings: nothing that costs time or captures more than the record."""
    lean = {
        "console": "off",
        "save_code": False,
        "disable_git": True,
        "silent": True,
        "x_save_requirements": False,
        "x_disable_stats": not options.get("system_metrics", False),
        "x_disable_machine_info": not options.get("system_metrics", False),
    }
    bounded = {
        "init_timeout": INIT_SECONDS,
        "login_timeout": PROBE_SECONDS,
        "finish_timeout": FINISH_SECONDS,
        "finish_timeout_raises": True,
    }
    return lean | bounded
