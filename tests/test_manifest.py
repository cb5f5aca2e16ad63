"""Manifests with wrong entries: one line, by --verify and by reading alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miles_repro.data.manifest import read_manifest, verify
from miles_repro.data.reader import PreparedData
from miles_repro.data.writer import Card, Preparation
from miles_repro.errors import UserError


@pytest.fixture
def small(tmp_path: Path) -> Path:
    with Preparation(tmp_path / "s", Card("s", 1, "multiclass", ("a",), "", ""), 1) as prep:
        prep.write("x", np.ones((9, 2), np.float32))
        prep.write("labels", np.zeros(9, np.int64))
        prep.split("m", train=np.arange(5), val=np.arange(5, 7), test=np.arange(7, 9))
        prep.finish()
    return tmp_path / "s"


@pytest.mark.parametrize(
    "key, value",
    [
        ("files", None),
        ("files", {}),
        ("files", {"../../x": {"sha256": "", "bytes": 0}}),
        ("files", {"x.npy": 3}),
        ("modalities", []),
        ("modalities", {"x": {}}),
        ("modalities", {"../x": {"shape": [2], "dtype": "float32"}}),
        ("schemes", {}),
        ("schemes", {"m": {"train": 1}}),
        ("schemes", {"m": 3}),
        ("classes", "abc"),
        ("version", "x"),
        ("fingerprint", 3),
        ("fingerprint", "0" * 64),
        ("parameters", None),
    ],
)
def test_a_manifest_with_wrong_entries(key: str, value: Any, small: Path) -> None:
    manifest = read_manifest(small) | {key: value}
    (small / "manifest.json").write_text(json.dumps(manifest))
    for read in (lambda: verify(small), lambda: PreparedData(small, "m", ["x"])):
        with pytest.raises(UserError, match=r"manifest\.json (has|does)") as error:
            read()
        assert "\n" not in str(error.value)
