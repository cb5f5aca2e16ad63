"""Control: a random modality slowed each epoch."""

from rows import Row

ROW = Row(
    like="vanilla_aux",
    touches=[{"encoder.image", "head.image"}, {"encoder.audio", "head.audio"}],
    neutral=[({"strategy.mu": 1.0}, "vanilla_aux")],
)
