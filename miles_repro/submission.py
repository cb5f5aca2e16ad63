"""Records to share: one JSON file that another person's tables read beside their own records.

``docs/submission.schema.json`` is its published schema. Every record carries its configuration,
environment, commit and code; the hash tells a file that was cut short or edited. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from miles_repro.errors import UserError, one_line
from miles_repro.records import Summary, Text, to_json, write_atomic


class Submission(BaseModel):
    """by: who made the runs; sha256: of the records as canonical JSON."""

    model_config = ConfigDict(extra="forbid")

    submission: Literal[1]
    by: Text
    made: Text
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    records: Annotated[list[Summary], Field(min_length=1)]


def schema() -> dict[str, Any]:
    """The JSON schema of a submission."""
    return TypeAdapter(Submission).json_schema()


def write(path: Path, records: Sequence[Mapping[str, Any]], by: str) -> None:
    """Pack finished runs. Raises UserError where they or ``by`` do not fit the schema."""
    content = {
        "submission": 1,
        "by": by,
        "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "sha256": _digest(records),
        "records": list(records),
    }
    text = to_json(content) + "\n"
    _check(path, text)
    write_atomic(path, text)


def read(path: Path) -> list[Summary]:
    """The records of a submission, checked.

    Raises:
        UserError: no such file, not of the schema, or not what was packed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path} cannot be read: {one_line(e)}") from None
    _check(path, text)
    content = json.loads(text)
    if _digest(content["records"]) != content["sha256"]:
        raise UserError(f"{path}: its records are not those that were packed (sha256 differs)")
    return list(content["records"])


def beside(own: Sequence[Summary], paths: Sequence[Path]) -> list[Summary]:
    """Own records, then those of the submissions; of one run id the first counts."""
    found = {str(record["run_id"]): record for record in own}
    for path in paths:
        for record in read(path):
            found.setdefault(record["run_id"], record)
    return list(found.values())


def _digest(records: Sequence[Mapping[str, Any]]) -> str:
    text = json.dumps(json.loads(to_json(list(records))), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check(path: Path, text: str) -> None:
    try:
        Submission.model_validate_json(text)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where or 'file'}: {first['msg'].lower()}") from None


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
