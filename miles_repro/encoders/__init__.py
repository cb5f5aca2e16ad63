"""Unimodal encoders f_m: one module per family, each imported only when it is asked for.

An encoder is any ``nn.Module`` that turns a batch of one modality as the prepared data give it
(float32 (B, ...), token ids int64 (B, L)) into features (B, ``dim``), with ``dim`` an attribute.
It may have ``expects``: in words, the shape of one sample that it takes, for messages. A row's
feature must not depend on padding or, in evaluation mode, on the other rows of its batch.
"""
