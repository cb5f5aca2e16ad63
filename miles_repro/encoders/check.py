"""Whether encoders fit the data, asked before a training begins."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from miles_repro.errors import UserError, one_line


@torch.no_grad()
def check_inputs(encoders: Mapping[str, nn.Module], x: Mapping[str, Tensor]) -> None:
    """Encode one sample of every modality in evaluation mode; leaves encoders as they were.

    Args:
        encoders: modality -> encoder.
        x: modality -> a batch of the training data, (1, ...).

    Raises:
        UserError: names the modality, the shape its encoder expects and the shape given.
    """
    for modality, encoder in encoders.items():
        given = tuple(x[modality].shape[1:])
        kind, training = type(encoder).__name__, encoder.training
        encoder.eval()
        try:
            found = encoder(x[modality])
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise UserError(
                f"modality {modality}: its encoder {kind} expects {expected(encoder)}, the data "
                f"have {given}: change dataset.modalities.{modality}.encoder ({one_line(error)})"
            ) from None
        finally:
            encoder.train(training)
        width = getattr(encoder, "dim", None)
        if tuple(found.shape) != (len(x[modality]), width):
            raise UserError(
                f"modality {modality}: its encoder {kind} gives {tuple(found.shape[1:])} a sample "
                f"of shape {given}, its dim says ({width},)"
            )


def expected(encoder: nn.Module) -> str:
    """The shape of a sample that an encoder takes, in words."""
    if words := getattr(encoder, "expects", None):
        return str(words)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            return f"({module.in_channels}, height, width)"
        if isinstance(module, nn.Linear):
            return f"({module.in_features},)"
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            return "(length,) token ids"
    return "another shape"
