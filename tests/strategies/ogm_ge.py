"""OGM-GE: noise on both encoders."""

from rows import Row

ROW = Row(
    needed=("strategy.ends=1.0",),
    touches=[{"encoder.image", "encoder.audio"}],
    neutral=[({"strategy.ends": 0.0}, "vanilla")],
)
