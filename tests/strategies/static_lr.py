"""Control: one fixed modality slowed."""

from rows import Row

ROW = Row(
    like="vanilla_aux",
    touches=[{"encoder.image", "head.image"}],
    neutral=[({"strategy.mu": 1.0}, "vanilla_aux")],
)
