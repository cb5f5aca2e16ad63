"""Run records on disk: the truth every table, plot and tracker is a view of.

``<runs_dir>/<dataset>/<fusion>/<strategy>/<run_id>/`` holds ``config.json`` (all that can move a
number), ``metrics.jsonl`` (a row an epoch), ``last.pt`` with ``last.sha256`` (state to resume from,
until the end), ``error.txt`` (only after a failure), on request ``weights.pt`` and
``predictions.npz``, and ``summary.json`` (written last, in one step: where it exists the run is
finished). Imports neither torch nor pandas.

- ``summary``: what a summary holds, and the rule for names: one typed model
- ``reading``: the tree of records, whatever lies in it
- ``glance``: a cache of what an overview of it says
- ``writing``: one run's folder, while it is being written
- ``disk``: whole files, locks, plain words on errors
"""

import sys

from miles_repro.api import Verb
from miles_repro.records.disk import (
    disk_errors,
    read_regular,
    require_writable,
    to_json,
    write_atomic,
)
from miles_repro.records.glance import Glances
from miles_repro.records.reading import (
    PLACE,
    Epochs,
    Ignored,
    in_training,
    last_error,
    load_rows,
    load_summaries,
    read_summary,
    run_folders,
    status_of,
    tell,
)
from miles_repro.records.summary import (
    SCHEMA,
    Name,
    NotASummary,
    Row,
    Summary,
    Text,
    check_name,
    check_parts,
    parse_summary,
    printable,
)
from miles_repro.records.writing import (
    CHECKSUM,
    CONFIG,
    ERROR,
    LAST,
    LOCK,
    PREDICTIONS,
    ROWS,
    SUMMARY,
    WEIGHTS,
    RunRecord,
)

__all__ = [
    "CHECKSUM",
    "CONFIG",
    "ERROR",
    "LAST",
    "LOCK",
    "PLACE",
    "PREDICTIONS",
    "ROWS",
    "SCHEMA",
    "SUMMARY",
    "WEIGHTS",
    "Epochs",
    "Glances",
    "Ignored",
    "Name",
    "NotASummary",
    "Row",
    "RunRecord",
    "Summary",
    "Text",
    "check_name",
    "check_parts",
    "disk_errors",
    "in_training",
    "last_error",
    "load_rows",
    "load_summaries",
    "parse_summary",
    "printable",
    "read_regular",
    "read_summary",
    "require_writable",
    "run_folders",
    "status_of",
    "tell",
    "to_json",
    "write_atomic",
]

sys.modules[__name__].__class__ = Verb  # miles_repro.records()
