"""Records to share: one JSON file that another person's tables read beside their own records.

``docs/submission.schema.json`` is its published schema. Every record carries its configuration,
environment, commit and code; the hash tells a file that was cut short or edited. A name that ends
in ``.xz`` is compressed. Imports no torch.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import lzma
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from miles_repro.data.progress import Progress
from miles_repro.errors import UserError, one_line
from miles_repro.records import (
    PLACE,
    Name,
    NotASummary,
    Row,
    RunRecord,
    Summary,
    Text,
    check_parts,
    read_regular,
    status_of,
    to_json,
)
from miles_repro.records.disk import replace

LARGEST = 1 << 30
"""Bytes of a submission's text, compressed or not."""
PIECE = 1 << 20
"""Bytes that are compressed from one sign of progress to the next."""


class Submission(BaseModel):
    """by: who made the runs; commit: of the code that packed them; epochs: run id -> its rows, for
    the runs whose curves a report shows; sha256: of records and epochs as canonical JSON."""

    model_config = ConfigDict(extra="forbid")

    submission: Literal[1]
    by: Text
    made: Text
    commit: Text
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    records: Annotated[list[Summary], FailFast(), Field(min_length=1)]
    epochs: dict[Name, Annotated[list[Row], FailFast()]]


class Packed(NamedTuple):
    """What a submission holds; see :class:`Submission`."""

    records: list[Summary]
    epochs: dict[str, list[Row]]
    commit: str


class Unpacked(NamedTuple):
    """How many runs were not there yet, and how many another process is training here."""

    new: int
    busy: int


def schema() -> dict[str, Any]:
    """The JSON schema of a submission."""
    return TypeAdapter(Submission).json_schema()


def write(
    path: Path,
    records: Sequence[Mapping[str, Any]],
    by: str,
    epochs: Mapping[str, Sequence[Row]] | None = None,
    commit: str = "unknown",
) -> None:
    """Pack finished runs. Raises UserError where they are too many, or something does not fit
    the schema."""
    content = {
        "submission": 1,
        "by": by,
        "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit,
        "sha256": "",
        "records": list(records),
        "epochs": dict(epochs or {}),
    }
    content["sha256"] = _digest(content)
    text = (to_json(content) + "\n").encode()
    if len(text) > LARGEST:
        raise UserError(
            f"{path} would hold {len(text) >> 20} MB, and at most {LARGEST >> 20} MB are read: "
            "pack fewer runs in a file"
        )
    _check(path, text)
    data = _compressed(path, text) if path.suffix == ".xz" else text
    replace(path, lambda new: new.write_bytes(data))


def read(path: Path) -> Packed:
    """A submission, checked.

    Raises:
        UserError: no such file, not of the schema, or not what was packed.
    """
    try:
        text = read_regular(path, LARGEST)
        if path.suffix == ".xz":
            text = _unpacked(text)
    except (OSError, lzma.LZMAError) as e:
        raise UserError(f"{path} cannot be read: {one_line(e)}") from None
    _check(path, text)
    content = json.loads(text)
    if _digest(content) != content["sha256"]:
        raise UserError(f"{path}: its records are not those that were packed (sha256 differs)")
    return Packed(content["records"], content["epochs"], content["commit"])


def unpack(paths: Sequence[Path], runs_dir: Path) -> Unpacked:
    """Put packed runs back among the run records, so that a study goes on from them.

    A record there that cannot be used counts as none. Weights and the other runs' curves are not
    packed.
    """
    packed, new, busy = together(paths), 0, 0
    with Progress(f"records into {runs_dir}", len(packed.records)) as bar:
        for one in packed.records:
            folder = runs_dir.joinpath(*(str(one[name]) for name in PLACE))  # type: ignore[literal-required]
            if status_of(folder) != "done":
                record = RunRecord(folder)
                with record.lease() as free:
                    if free:
                        _put(record, one, packed.epochs.get(one["run_id"]))
                new, busy = new + free, busy + (not free)
            bar.advance(1)
    return Unpacked(new, busy)


def _put(record: RunRecord, summary: Summary, rows: Sequence[Row] | None) -> None:
    record.write_config(dict(summary["config"]))
    if rows:
        record.rewrite_rows(rows)
    record.finish(summary)


def together(paths: Sequence[Path]) -> Packed:
    """Several submissions as one; of one run id the first counts."""
    packed = [read(path) for path in paths]
    epochs = {run_id: rows for one in reversed(packed) for run_id, rows in one.epochs.items()}
    commits = dict.fromkeys(one.commit for one in packed)
    return Packed(_first(*(one.records for one in packed)), epochs, ", ".join(commits))


def without_costs(
    records: Sequence[Summary], epochs: Mapping[str, Sequence[Row]]
) -> tuple[list[Summary], dict[str, list[Row]]]:
    """As if no time had been taken: of runs beside other work it says nothing."""
    bare = [{**r, "cost": dict.fromkeys(r["cost"])} for r in records]
    rows = {
        run_id: [{k: v for k, v in row.items() if k != "time"} for row in found]
        for run_id, found in epochs.items()
    }
    return bare, rows  # type: ignore[return-value]


def beside(own: Sequence[Summary], paths: Sequence[Path]) -> list[Summary]:
    """Own records, then those of the submissions; of one run id the first counts."""
    return _first(own, *(read(path).records for path in paths))


def _first(*groups: Sequence[Summary]) -> list[Summary]:
    found: dict[str, Summary] = {}
    for record in itertools.chain(*groups):
        found.setdefault(record["run_id"], record)
    return list(found.values())


def _compressed(path: Path, text: bytes) -> bytes:
    packer, found = lzma.LZMACompressor(preset=9), []
    with Progress(f"{path}: bytes", len(text)) as bar:
        for at in range(0, len(text), PIECE):
            found.append(packer.compress(piece := text[at : at + PIECE]))
            bar.advance(len(piece))
    return b"".join([*found, packer.flush()])


def _unpacked(data: bytes) -> bytes:
    """Raises LZMAError for what is damaged, or becomes too large."""
    unpacker = lzma.LZMADecompressor()
    text = unpacker.decompress(data, max_length=LARGEST)
    if not unpacker.eof:
        raise lzma.LZMAError(f"cut short, or more than {LARGEST >> 20} MB")
    return text


def _digest(content: Mapping[str, Any]) -> str:
    data = to_json({name: content[name] for name in ("records", "epochs")})
    text = json.dumps(json.loads(data), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check(path: Path, text: bytes) -> None:
    at = 0
    try:
        for record in Submission.model_validate_json(text).records:
            check_parts(record)
            at += 1
    except ValidationError as e:
        first = e.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where or 'file'}: {first['msg'].lower()}") from None
    except NotASummary as e:
        raise UserError(f"{path}: records.{at}: {e}") from None


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
