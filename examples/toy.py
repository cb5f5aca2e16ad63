"""A toy task for the examples: four classes, seen by a clean and by a noisy modality."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

NOISE = {"image": 0.4, "audio": 1.0}


def dataset(n: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs (n, 4) of each modality, and labels (n,)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (n,), generator=generator)
    noise = {m: s * torch.randn(n, 4, generator=generator) for m, s in NOISE.items()}
    return {m: torch.eye(4)[y] + e for m, e in noise.items()}, y


class Branch(nn.Module):
    """What belongs to one modality: its encoder and its own head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        return z, self.head(z)


class Network(nn.Module):
    """A branch for each modality, and a fusion layer over their features."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({m: Branch() for m in NOISE})
        self.fusion = nn.Linear(32, 4)

    def forward(self, image: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """Logits (n, 4) of the fused prediction and of each modality's own."""
        z_image, image_logits = self.branches["image"](image)
        z_audio, audio_logits = self.branches["audio"](audio)
        fused = self.fusion(torch.cat([z_image, z_audio], 1))
        return {"fused": fused, "image": image_logits, "audio": audio_logits}

    def groups(self) -> list[dict[str, object]]:
        """Parameter groups for an optimizer: one for each modality, and the fusion layer's."""
        modules = (*self.branches.values(), self.fusion)
        return [{"params": list(module.parameters())} for module in modules]


def loss(logits: dict[str, Tensor], y: Tensor) -> Tensor:
    """The sum of the fused and the unimodal losses (MILES Eq. 3)."""
    return torch.stack([cross_entropy(out, y) for out in logits.values()]).sum()


def accuracy(logits: dict[str, Tensor], y: Tensor) -> dict[str, float]:
    """Of ``fused`` and of each modality: what ``MILES.step`` wants."""
    return {k: float((out.argmax(1) == y).float().mean()) for k, out in logits.items()}
