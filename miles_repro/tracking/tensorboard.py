"""TensorBoard event files beside the run's record, in the keys of the W&B mirror."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from miles_repro.errors import UserError
from miles_repro.tracking.mirror import flat_config, history_row, summary_values

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:
    raise UserError(
        "tracker=tensorboard needs TensorBoard: pip install 'miles-repro[tensorboard]'"
    ) from None


class TensorBoard:
    """Scalars by epoch in ``<run_dir>/tensorboard``; at the end a line of the HPARAMS table.

    A resumed run begins the folder anew from ``history``: what a kill cut short is in the record.
    """

    def __init__(
        self, header: Mapping[str, Any], run_dir: Path, history: Sequence[Mapping[str, Any]]
    ) -> None:
        self._header = header
        folder = run_dir / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))
        for row in history:
            self.log(row)

    def log(self, row: Mapping[str, Any]) -> None:
        """Write an epoch's scalars."""
        values = history_row(row, self._header["metric"])
        for key in values.keys() - {"epoch"}:
            self._writer.add_scalar(key, values[key], row["epoch"])

    def finish(self, summary: Mapping[str, Any] | None, error: str | None = None) -> None:
        """Write configuration and results side by side, or the error as text."""
        if summary is not None:
            options = {
                key: value if isinstance(value, bool | int | float) else str(value)
                for key, value in flat_config(self._header).items()
            }
            found = summary_values(summary)
            numbers = {k: v for k, v in found.items() if isinstance(v, int | float)}
            self._writer.add_hparams(options, numbers, run_name=".")
        if error is not None:
            self._writer.add_text("error", error)
        self._writer.close()
