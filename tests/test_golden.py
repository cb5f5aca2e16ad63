"""Every strategy against numbers computed elsewhere: papers' equations and the authors' code."""

from __future__ import annotations

import pytest
from rows import Vector, rows, vectors

VECTORS = vectors()


@pytest.mark.parametrize("strategy, vector", VECTORS, ids=[v["id"] for _, v in VECTORS])
def test_vector(strategy: str, vector: Vector) -> None:
    assert vector["source"]
    golden = rows()[strategy].golden
    next(f for prefix, f in golden.items() if vector["id"].startswith(prefix))(vector)


def test_no_check_is_without_a_vector() -> None:
    for name, row in rows().items():
        ids = [v["id"] for strategy, v in VECTORS if strategy == name]
        assert all(any(i.startswith(prefix) for i in ids) for prefix in row.golden), name
