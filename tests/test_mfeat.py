"""UCI Multiple Features: verified members of one wheel, three views, one stratified split."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import REPO
from support import compose

from miles_repro.config import build
from miles_repro.data import mfeat
from miles_repro.data.manifest import read_manifest, verify
from miles_repro.data.reader import PreparedData
from miles_repro.encoders.check import check_inputs
from miles_repro.errors import UserError

WIDTHS = {"mor": 6, "zer": 47, "fou": 76, "kar": 64, "pix": 240, "fac": 216}


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel of made-up views; the first feature is the row's number."""
    folder = tmp_path / "raw"
    folder.mkdir()
    hashes = {}
    with zipfile.ZipFile(folder / mfeat._member("mor").wheel, "w") as wheel:
        for view, width in WIDTHS.items():
            table = np.zeros((2000, width + 1), int)
            table[:, 0], table[:, -1] = np.arange(2000), np.arange(2000) // 200
            lines = [",".join(map(str, row)) for row in [range(width + 1), *table.tolist()]]
            content = "\r\n".join(lines).encode()
            wheel.writestr(mfeat._member(view).path, content)
            hashes[view] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(mfeat, "VIEWS", hashes)
    return folder


def test_views_line_up_and_the_split_is_stratified(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "mfeat"
    manifest = mfeat.prepare(raw, out, modalities="mor,zer,fou")
    verify(out)
    assert {m: e["shape"] for m, e in manifest["modalities"].items()} == {
        m: [WIDTHS[m]] for m in ("mor", "zer", "fou")
    }
    labels = np.load(out / "labels.npy")
    for view in manifest["modalities"]:
        np.testing.assert_array_equal(np.load(out / f"{view}.npy")[:, 0] // 200, labels)
    assert manifest["schemes"]["fixed"]["per_class"] == {
        "train": [120] * 10,
        "val": [40] * 10,
        "test": [40] * 10,
    }
    assert "CC BY 4.0" in manifest["licence"]
    again = mfeat.prepare(raw, tmp_path / "again", modalities="mor,zer,fou")
    assert again["fingerprint"] == manifest["fingerprint"]


def test_all_six_views(raw: Path, tmp_path: Path) -> None:
    manifest = mfeat.prepare(raw, tmp_path / "mfeat", modalities="fac,pix,kar,fou,zer,mor")
    assert list(manifest["modalities"]) == ["fac", "pix", "kar", "fou", "zer", "mor"]


@pytest.mark.parametrize("names", ["mor", "mor,mor", "mor,xyz", ""])
def test_other_views_are_refused(names: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two or more of mor, zer, fou, kar, pix, fac"):
        mfeat.prepare(tmp_path, tmp_path / "mfeat", modalities=names)


def test_a_changed_member_is_refused(raw: Path, tmp_path: Path) -> None:
    (raw / "mfeat-zer.csv").write_text("0,1\n1,0\n")
    with pytest.raises(UserError, match=r"sha256 of mfeat-zer\.csv"):
        mfeat.prepare(raw, tmp_path / "mfeat", modalities="mor,zer")
    assert not (tmp_path / "mfeat").exists()


# hashes of the arrays, which are copies of verified numbers and so the same on every machine
REAL: dict[str, str] = {
    "mor.npy": "d6316d8179445820b174db833d090938b94dd1e089974f802e628cbaddbd02f5",
    "zer.npy": "718a03bd825aeb27b903bb929e1d9c1895041e0a058093e93f646d415b73b3b7",
    "fou.npy": "6139a88eb08fecd7d69301ff2083567cd2751d820dc209f240f4c7dbef0973d7",
    "labels.npy": "3ed441e994fc31ebc6698b584e0c339185f346ac6c14028bef7733bfa1c9751b",
    "splits.npz": "b945b97cc4fc35d71269c8e5f22b47a97e1232a8a95cca95c230b70d94869091",
}


def test_the_real_set_is_the_same_everywhere_and_fits_its_encoders() -> None:
    folder = Path(os.environ.get("MILES_DATA", REPO / "data")) / "mfeat"
    if not (folder / "manifest.json").exists():
        pytest.skip(f"{folder} is not prepared: run scripts/prepare_data.py dataset=mfeat")
    files = read_manifest(folder)["files"]
    assert {name: files[name]["sha256"] for name in REAL} == REAL
    views = ["mor", "zer", "fou"]
    sample, _ = (
        PreparedData(folder, "fixed", views)
        .part("val", torch.device("cpu"), 64)
        .batch(torch.arange(1))
    )
    for nodes in compose("dataset=mfeat").dataset.encoders.values():
        check_inputs({m: build(nodes[m]) for m in views}, sample)
