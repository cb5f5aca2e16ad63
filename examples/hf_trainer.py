"""MILES with the Hugging Face Trainer: a callback that reads the evaluation's metrics."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from toy import Network, dataset, loss
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments

from miles_repro import MILES

NAMES = ("fused", "image", "audio")


class MilesCallback(TrainerCallback):
    """Steps MILES after each evaluation; metrics are ``eval_fused`` and ``eval_<modality>``."""

    def __init__(self, groups: dict[str, nn.Module], **options: Any) -> None:
        self.groups, self.options = groups, options
        self.miles: MILES | None = None

    def on_train_begin(self, *arguments: Any, optimizer: Any = None, **_: Any) -> None:
        self.miles = MILES(optimizer, groups=self.groups, **self.options)

    def on_evaluate(self, *arguments: Any, metrics: Any = None, **_: Any) -> None:
        if self.miles is not None:
            factors = self.miles.step(**{k: metrics[f"eval_{k}"] for k in NAMES})
            print({k: f"{metrics[f'eval_{k}']:.2f}" for k in NAMES}, factors)


class Model(nn.Module):
    """The network as Trainer calls it: the loss first, then the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def forward(self, image: Tensor, audio: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        logits = self.network(image, audio)
        return loss(logits, labels), *(logits[k] for k in NAMES)


def samples(n: int, seed: int) -> list[dict[str, Tensor]]:
    x, y = dataset(n, seed)
    return [{"image": x["image"][i], "audio": x["audio"][i], "labels": y[i]} for i in range(n)]


def accuracies(found: EvalPrediction) -> dict[str, float]:
    return {
        k: float((logits.argmax(1) == found.label_ids).mean())
        for k, logits in zip(NAMES, found.predictions, strict=True)
    }


if __name__ == "__main__":
    transformers.set_seed(0)
    model = Model()
    optimizer = torch.optim.Adam(model.network.groups(), lr=0.02)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=6,
            per_device_train_batch_size=50,
            eval_strategy="epoch",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )
        callback = MilesCallback(dict(model.network.branches.items()), tau=0.05)
        trainer = Trainer(
            model,
            arguments,
            train_dataset=samples(400, 0),
            eval_dataset=samples(200, 1),
            compute_metrics=accuracies,
            optimizers=(optimizer, None),
            callbacks=[callback],
        )
        trainer.train()
    assert callback.miles is not None
    print(callback.miles.last_epoch, callback.miles.get_last_lr())
