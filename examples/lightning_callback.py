"""MILES with Lightning: a callback that reads the validation metrics."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from toy import Network, accuracy, dataset, loss

from miles_repro import MILES


class MilesCallback(lightning.Callback):
    """Steps MILES after each validation, and keeps its state in the checkpoint.

    The module logs ``val/fused`` and ``val/<modality>`` with ``on_epoch=True, sync_dist=True``.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.miles: MILES | None = None
        self.restored: dict[str, Any] | None = None

    def on_fit_start(self, trainer: lightning.Trainer, module: Any) -> None:
        groups = dict(module.network.branches.items())
        self.miles = MILES(trainer.optimizers[0], groups=groups, **self.options)
        if self.restored is not None:
            self.miles.load_state_dict(self.restored)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        if trainer.sanity_checking or self.miles is None:
            return
        found = trainer.callback_metrics
        factors = self.miles.step(**{k: found[f"val/{k}"] for k in ("fused", *self.miles.factors)})
        module.log_dict({f"factor/{m}": f for m, f in factors.items()})

    def state_dict(self) -> dict[str, Any]:
        return {} if self.miles is None else self.miles.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict or None


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> Tensor:
        image, audio, y = batch
        return loss(self.network(image, audio), y)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> None:
        image, audio, y = batch
        metrics = accuracy(self.network(image, audio), y)
        self.log_dict({f"val/{k}": v for k, v in metrics.items()}, on_epoch=True, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.groups(), lr=0.02)


def loader(n: int, seed: int) -> DataLoader[Any]:
    x, y = dataset(n, seed)
    return DataLoader(TensorDataset(x["image"], x["audio"], y), batch_size=50)


if __name__ == "__main__":
    lightning.seed_everything(0)
    callback = MilesCallback(tau=0.05)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(max_epochs=6, accelerator="cpu", callbacks=[callback], **quiet)
    trainer.fit(Module(), loader(400, 0), loader(200, 1))
    assert callback.miles is not None
    print(callback.miles.last_epoch, callback.miles.factors, callback.miles.get_last_lr())
