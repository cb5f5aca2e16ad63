"""``conf/dataset/<name>.yaml`` for a user's own prepared data, with encoders chosen by shape."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from miles_repro import places
from miles_repro.errors import UserError

PACKAGE = "miles_repro.encoders"


def encoders(shape: list[int], tokens: int | None) -> tuple[str, str]:
    """Nodes of the encoder for small budgets and of the one for budget=paper."""
    if tokens is not None:
        size = f"vocab_size: {max(tokens, 3)}"
        return (
            f"{{_target_: {PACKAGE}.text.Bow, {size}, embed_dim: 64, dim: 64}}",
            f"{{_target_: {PACKAGE}.text.Gru, {size}, embed_dim: 128, dim: 128}}",
        )
    if len(shape) == 1:
        width = f"{{_target_: {PACKAGE}.mlp.MLP, in_features: {shape[0]}"
        return f"{width}, width: 64, depth: 1}}", f"{width}, width: 256, depth: 2, dropout: 0.1}}"
    if len(shape) == 2:
        target = f"{{_target_: {PACKAGE}.sequence"
        step = f"in_features: {shape[1]}"
        return f"{target}.GRU, {step}, dim: 64}}", f"{target}.Transformer, {step}, dim: 128}}"
    channels = f"in_channels: {shape[0]}"
    return (
        f"{{_target_: {PACKAGE}.small.SmallCNN, {channels}, channels: 16}}",
        f"{{_target_: {PACKAGE}.resnet.resnet, depth: 18, {channels}}}",
    )


def text(name: str, manifest: Mapping[str, Any]) -> str:
    """The yaml of a data set that ``data.table`` prepared."""
    outputs = len(manifest["classes"])
    if manifest["task"] in ("regression", "binary"):
        outputs = 1
    chosen = {
        m: encoders(entry["shape"], manifest["parameters"]["tokens"].get(m))
        for m, entry in manifest["modalities"].items()
    }
    lines = [
        f"# {manifest['rows']:,} samples of your own, written from their table; edit it",
        f"name: {name}",
        "preparer: miles_repro.data.table",
        f"task: {manifest['task']}",
        f"num_classes: {outputs}",
        f"scheme: {next(iter(manifest['schemes']))} # or rotate: another held-out side a seed",
        "strong: null # found out by the unimodal runs",
        "weak: null",
        "batch_size: 64",
        "epochs: {smoke: 2, mini: 20, paper: 50}",
        "modalities:",
        *(f'  {m}: {{encoder: "${{dataset.encoders.${{budget.encoders}}.{m}}}"}}' for m in chosen),
        "encoders:",
        "  small:",
        *(f"    {m}: {small}" for m, (small, _) in chosen.items()),
        "  paper:",
        *(f"    {m}: {large}" for m, (_, large) in chosen.items()),
    ]
    return "\n".join(lines) + "\n"


def write(name: str, manifest: Mapping[str, Any], folder: Path, force: bool) -> tuple[Path, bool]:
    """Write ``<folder>/<name>.yaml``, whole or not at all; an older one stays but for ``force``.

    Returns:
        The file, and whether it was written.
    """
    path = folder / f"{name}.yaml"
    if path.exists() and not force:
        return path, False
    new = path.with_suffix(".yaml.new")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        new.write_text(text(name, manifest), encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}: give conf_dir=<folder>") from None
    return path, True


def next_commands(
    name: str, manifest: Mapping[str, Any], conf_dir: Path | None, out: str = ""
) -> list[str]:
    """What a user types next: each modality alone, two strategies, the whole protocol.

    ``out``: the data folder, where it is not the default one.
    """
    where = ""
    if conf_dir is not None:
        place = places.quoted(f"file://{conf_dir.resolve()}")
        where += f" {shlex.quote(f'hydra.searchpath=[{place}]')}"
    if out:
        where += f" {shlex.quote(f'runtime.data_dir={places.quoted(out)}')}"
    modalities = ",".join(manifest["modalities"])
    train = f"{places.command('train')} -m dataset={name}{where}"
    return [
        f"{train} strategy=unimodal strategy.modality={modalities}",
        f"{train} strategy=vanilla,miles seed=1,2,3",
        f"{places.command('reproduce')} run --datasets {name} --budget mini{where}",
    ]
