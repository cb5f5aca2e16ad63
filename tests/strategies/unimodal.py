"""One modality alone."""

from rows import Row

ROW = Row(needed=("strategy.modality=audio",))
