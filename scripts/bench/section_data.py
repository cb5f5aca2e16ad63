"""7. Prepared arrays against decoding for every sample."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.report import Section, Table
from bench.timing import Clock, Span, interleaved
from bench.work import Work
from miles_repro.data.reader import PreparedData
from miles_repro.data.writer import Card, Preparation

SIZE, BATCH = 224, 64
TEXT = """\
Samples per second of normalised, shuffled batches, on one core, reading alone. *Memory-mapped*:
the prepared arrays, as sets too large for memory are read; *resident*: float32 tensors, as small
ones are. *Decoding*: the raw files read, decoded and resized for every sample, as a `Dataset`
without preparation does in every epoch. The raw files are synthetic and of the real ones' size: for
CREMA-D a wav of 2.5 s at 16 kHz and a JPEG frame of 480 x 360 (a video would cost more), for
MM-IMDb a JPEG poster of 300 x 440 and a plot of 90 words. All files are in the page cache.
"""


def measure(work: Work) -> Section:
    table = Table(
        [
            "like",
            "decoding, samples/s",
            "memory-mapped",
            "resident",
            "memory-mapped / decoding, CPU",
        ]
    )
    raw = {}
    for name, make in (("cremad", cremad), ("mmimdb", mmimdb)):
        folder = work.folder()
        decode, arrays = make(folder / "raw", work.size.data_rows)
        data = prepared(folder / name, name, arrays, work.size.data_rows)
        series = interleaved(
            {
                "decoding": partial(reading, work, decode),
                "memory-mapped": partial(reading, work, partial(batches, data, resident_mb=0)),
                "resident": partial(reading, work, partial(batches, data, resident_mb=1 << 20)),
            },
            work.size.repeats,
        )
        rate = {k: work.size.data_rows / series.median(k).cpu for k in series.spans}
        table.add(
            name,
            f"{rate['decoding']:,.0f}",
            f"{rate['memory-mapped']:,.0f}",
            f"{rate['resident']:,.0f}",
            series.ratio("decoding", "memory-mapped"),
        )
        raw[name] = series.raw()
    return Section("data", "Prepared data and decoding", TEXT, [table], raw=raw)


def reading(work: Work, source: Callable[[], Iterator[int]]) -> list[Span]:
    """Time to go through all samples once; the source is set up before the clock starts."""
    samples = source()
    next(samples)
    clock = Clock()
    seen = sum(samples)
    span = clock.read()
    assert seen == work.size.data_rows, seen
    return [span]


def batches(data: PreparedData, resident_mb: int) -> Iterator[int]:
    part = data.part("train", torch.device("cpu"), resident_mb)
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))
    yield 0  # set up
    for _, y in part.batches(order, BATCH):
        yield len(y)


def decoding(decode: Callable[[int], dict[str, NDArray[Any]]], rows: int) -> Iterator[int]:
    order = np.random.default_rng(0).permutation(rows).tolist()
    yield 0
    for i in range(0, rows, BATCH):
        samples = [decode(row) for row in order[i : i + BATCH]]
        for m in samples[0]:
            x = torch.from_numpy(np.stack([s[m] for s in samples]))
            if m != "text":
                x.to(torch.float32).sub_(1.0).div_(2.0)
        yield len(samples)


Shapes = dict[str, tuple[tuple[int, ...], str]]
Made = tuple[Callable[[], Iterator[int]], Shapes]


def cremad(raw: Path, rows: int) -> Made:
    import soundfile

    from miles_repro.data.cremad import Settings
    from miles_repro.data.cremad import decode as decode_clip

    raw.mkdir()
    rng = np.random.default_rng(0)
    for i in range(rows):
        soundfile.write(raw / f"{i}.wav", rng.uniform(-0.5, 0.5, 40_000), 16_000)
        picture(raw / f"{i}.jpg", (480, 360), rng)
    settings = Settings("first", SIZE, 16_000, 3.0, 512, 353, 1e-12)

    def decode(i: int) -> dict[str, NDArray[Any]]:
        return decode_clip((str(i), raw / f"{i}.wav", raw / f"{i}.jpg"), settings, lenient=False)

    shapes: Shapes = {"video": ((3, SIZE, SIZE), "uint8"), "audio": ((1, SIZE, SIZE), "float16")}
    return partial(decoding, decode, rows), shapes


def mmimdb(raw: Path, rows: int) -> Made:
    from miles_repro.data.mmimdb import decode as decode_poster
    from miles_repro.data.words import split_words

    raw.mkdir()
    rng = np.random.default_rng(0)
    words = ["".join(letters) for letters in itertools.product("bdfgklmnprst", "aeiou", repeat=2)]
    for i in range(rows):
        picture(raw / f"{i}.jpg", (300, 440), rng)
        (raw / f"{i}.txt").write_text(" ".join(rng.choice(words, 90)))
    index = {word: i + 2 for i, word in enumerate(words)}

    def decode(i: int) -> dict[str, NDArray[Any]]:
        plot = [index[word] for word in split_words((raw / f"{i}.txt").read_text())]
        poster = decode_poster((raw / f"{i}.jpg", 0), SIZE, shifted=False, lenient=False)
        return {**poster, "text": np.array(plot + [0] * (256 - len(plot)), dtype=np.int32)}

    shapes: Shapes = {"image": ((3, SIZE, SIZE), "uint8"), "text": ((256,), "int32")}
    return partial(decoding, decode, rows), shapes


def picture(path: Path, size: tuple[int, int], rng: np.random.Generator) -> None:
    """A JPEG that compresses as a photograph does: noise of a few pixels' size."""
    from PIL import Image

    small = rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, quality=85)


def prepared(out: Path, name: str, arrays: Shapes, rows: int) -> PreparedData:
    """A prepared folder of random values; every row is a training row."""
    rng = np.random.default_rng(0)
    card = Card(name, 1, "multiclass", ("a", "b"), "synthetic", "none")
    with Preparation(out, card, workers=1) as prep:
        for m, (shape, dtype) in arrays.items():
            prep.write(m, rng.integers(0, 255, (rows, *shape), dtype=np.uint8).astype(dtype))
            if m != "text":
                prep.normalise(m, constants=(np.float32(1.0), np.float32(2.0)))
        prep.write("labels", np.zeros(rows, dtype=np.int64))
        nothing = np.arange(0)
        prep.split("main", train=np.arange(rows), val=nothing, test=nothing)
        prep.finish()
    return PreparedData(out, "main", list(arrays))
