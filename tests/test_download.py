"""Downloads from a server on the loopback address: size and licence first, resumed, checked."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from miles_repro.data import command, cremad, luma, mmimdb, smnist
from miles_repro.data.download import Source, download
from miles_repro.errors import UserError

pytest.importorskip("pooch", reason="downloads were not tested: pip install pooch")


class Server(ThreadingHTTPServer):
    """files: name -> content; cut: names whose next answer ends in the middle."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.ranges: list[str] = []
        self.listing: dict[str, Any] | None = None
        self.ignores_ranges = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def list_zenodo(self, **wrong: str) -> None:
        self.listing = {
            "files": [
                {
                    "key": name,
                    "size": len(content),
                    "checksum": f"md5:{wrong.get(name.split('.')[0]) or md5(content)}",
                }
                for name, content in self.files.items()
            ]
        }


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.strip("/").split("?")[0]
        if name == "listing":
            return self.answer(200, json.dumps(self.server.listing).encode())
        content = self.server.files.get(name)
        if content is None:
            return self.answer(404, b"")
        first = 0
        if (asked := self.headers.get("Range")) and not self.server.ignores_ranges:
            self.server.ranges.append(asked)
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
        end = len(content)
        if name in self.server.cut:
            self.server.cut.remove(name)
            end = (first + len(content)) // 2
        return self.answer(206 if first else 200, content[first:end], len(content) - first)

    def answer(self, status: int, content: bytes, announced: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if announced is None else announced))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def module_of(server: Server, **changes: Any) -> ModuleType:
    """A preparer whose files lie on the server."""
    module = ModuleType("preparer")
    address = server.address
    source = Source(
        "the page", f"{address}/listing", ("a.npy", "b.npy"), f"{address}/{{name}}", "L"
    )
    module.DOWNLOAD = replace(source, **changes)  # type: ignore[attr-defined]
    return module


def test_files_come_whole_after_size_and_licence(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = {"a.npy": bytes(3_000_000), "b.npy": b"bb"}
    server.list_zenodo()
    folder = download("set", module_of(server), tmp_path / "raw")
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == ["set: 2 file(s), 3.0 MB, from the page", "set: licence: L"]
    assert {p.name: p.read_bytes() for p in folder.glob("*.npy")} == server.files
    assert json.loads((folder / "a.npy.json").read_text())["published"] is True
    server.files = {}  # nothing is fetched twice
    assert download("set", module_of(server), tmp_path / "raw") == folder


@pytest.mark.parametrize("ignores_ranges", [False, True])
def test_a_broken_download_goes_on_where_it_stopped(
    server: Server, tmp_path: Path, ignores_ranges: bool
) -> None:
    rng = np.random.default_rng(0)
    server.files = {"a.npy": rng.bytes(5_000_000), "b.npy": b"bb"}
    server.list_zenodo()
    server.cut, server.ignores_ranges = {"a.npy"}, ignores_ranges
    with pytest.raises(UserError, match=r"set: the download broke off .*goes on from there"):
        download("set", module_of(server), tmp_path)
    kept = (tmp_path / "a.npy.part").stat().st_size
    assert 0 < kept < 5_000_000
    assert not (tmp_path / "a.npy").exists()
    download("set", module_of(server), tmp_path)
    assert (tmp_path / "a.npy").read_bytes() == server.files["a.npy"]
    assert server.ranges == ([] if ignores_ranges else [f"bytes={kept}-"])
    assert not list(tmp_path.glob("*.part"))


def test_another_hash_is_refused_and_nothing_kept(server: Server, tmp_path: Path) -> None:
    server.files = {"a.npy": b"aa", "b.npy": b"bb"}
    server.list_zenodo(b=md5(b"other"))
    with pytest.raises(UserError, match=r"set: .*hash.*b\.npy.*run the same command again"):
        download("set", module_of(server), tmp_path)
    assert not (tmp_path / "b.npy").exists()
    assert not list(tmp_path.glob("*.part"))


def test_where_no_hash_is_published_the_first_one_holds(server: Server, tmp_path: Path) -> None:
    server.files = {"a.npy": b"aa"}
    server.listing = {"files": [{"name": "a.npy", "size": "2"}]}
    module = module_of(server, files=("a.npy",))
    download("set", module, tmp_path)
    kept = json.loads((tmp_path / "a.npy.json").read_text())
    assert kept == {"hash": f"sha256:{hashlib.sha256(b'aa').hexdigest()}", "published": False}
    server.files = {"a.npy": b"zz"}
    (tmp_path / "a.npy").unlink()
    with pytest.raises(UserError, match="hash"):
        download("set", module, tmp_path)


def test_an_archive_is_unpacked_and_leaves_its_folder_nowhere(
    server: Server, tmp_path: Path
) -> None:
    def archive(name: str) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            info = tarfile.TarInfo(name)
            info.size = 2
            tar.addfile(info, io.BytesIO(b"{}"))
        return out.getvalue()

    server.files = {"set.tar.gz": archive("set/split.json")}
    server.listing = {"files": [{"name": "set.tar.gz", "size": len(server.files["set.tar.gz"])}]}
    module = module_of(server, files=("set.tar.gz",))
    folder = download("set", module, tmp_path / "good")
    assert (folder / "split.json").read_text() == "{}"
    assert download("set", module, tmp_path / "good") == folder
    server.files = {"set.tar.gz": archive("../evil.json")}
    server.listing = {"files": [{"name": "set.tar.gz", "size": len(server.files["set.tar.gz"])}]}
    with pytest.raises(UserError, match="cannot be unpacked"):
        download("set", module, tmp_path / "bad")
    assert not list(tmp_path.rglob("evil.json"))


def test_a_list_that_is_none_and_no_server_are_one_line(server: Server, tmp_path: Path) -> None:
    server.listing = {"files": [{"key": "c.npy", "size": 1}]}
    with pytest.raises(UserError, match=r"does not list the files as expected .*the page"):
        download("set", module_of(server), tmp_path)
    with pytest.raises(UserError, match="the download broke off"):
        download("set", module_of(server, listing="http://127.0.0.1:9/x"), tmp_path)


def test_the_command_downloads_and_prepares(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    rng = np.random.default_rng(0)
    for part, rows in (("train", 60), ("test", 20)):
        arrays = {
            "data_wr": rng.integers(0, 255, (rows, 784), dtype=np.uint8),
            "data_sp": rng.normal(size=(rows, 507)).astype(np.float32),
            "labels": np.arange(rows) % 10,
        }
        for kind, array in arrays.items():
            out = io.BytesIO()
            np.save(out, array)
            server.files[f"{kind}_{part}.npy"] = out.getvalue()
    server.list_zenodo()
    here = replace(
        smnist.DOWNLOAD, listing=f"{server.address}/listing", at=f"{server.address}/{{name}}"
    )
    monkeypatch.setattr(smnist, "DOWNLOAD", here)
    words = ["dataset=smnist", "download=true", f"out={tmp_path}", "workers=1"]
    sizes = ["train=20", "val=10", "test=10"]
    assert command.main([*words, *sizes]) == 0, capsys.readouterr().err
    assert (tmp_path / "smnist" / "manifest.json").is_file()
    assert len(list((tmp_path / ".cache" / "smnist").glob("*.npy"))) == 6


@pytest.mark.parametrize(
    "name, text",
    [
        ("cremad", "git clone https://github.com/CheyneyComputerScience/CREMA-D"),
        ("luma", "follow https://github.com/bezirganyan/LUMA"),
        ("mfeat", "nothing is to be downloaded"),
    ],
)
def test_where_there_is_nothing_to_download_a_line_says_what_to_do(
    name: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([f"dataset={name}", "download=true", f"out={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert text in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    "words, text",
    [
        (["dataset=smnist", "download=yes"], "download=yes: true or false"),
        (["dataset=smnist", "download=true", "raw=x"], "leave raw= and table= away"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(words) == 2
    assert text in capsys.readouterr().err


def test_addresses_are_those_that_the_documents_cite() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "data.md").read_text()
    for module in (smnist, mmimdb):
        assert module.DOWNLOAD.page in text
        assert module.DOWNLOAD.at.format(name=module.DOWNLOAD.files[0]).startswith("https://")
    for module in (cremad, luma):
        assert isinstance(module.DOWNLOAD, str)
