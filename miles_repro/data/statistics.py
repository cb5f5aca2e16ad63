"""Mean and standard deviation of memory-mapped training rows, in blocks of bounded size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 64 * 2**20


def mean_and_std(
    array: NDArray[Any], rows: NDArray[np.integer], axes: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Population mean and standard deviation over ``rows`` and over some axes of a sample.

    Args:
        array: (N, ...) numbers; may be memory-mapped. NaN (padding of sequences) does not count.
        rows: which of the N count.
        axes: axes of one sample to average over; kept with length 1 in the result.

    Returns:
        mean, std: float32, broadcastable to one sample. A std of exactly 0 (an element that never
        changes) is returned as 1, so that dividing by it is harmless.
    """
    rows = np.sort(rows)  # the order of summation must not depend on the order of the split
    over = (0, *(axis + 1 for axis in axes))
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(array.shape[1:]))
    per_row = int(np.prod([array.shape[axis + 1] for axis in axes], dtype=np.int64))
    if len(rows) * per_row == 0:
        raise ValueError("no training rows: mean and standard deviation are undefined")
    per_block = max(1, BLOCK_BYTES // (8 * int(np.prod(array.shape[1:], dtype=np.int64))))
    blocks = [rows[at : at + per_block] for at in range(0, len(rows), per_block)]
    mean, count = np.zeros(shape), np.full(shape, len(rows) * per_row)
    for block in blocks:
        values = array[block]
        total = values.sum(axis=over, dtype=np.float64).reshape(shape)
        if np.isnan(total).any():  # padded sequences: what is not there does not count
            total = np.nansum(values, axis=over, dtype=np.float64).reshape(shape)
            count -= np.isnan(values).sum(axis=over).reshape(shape)
        mean += total
    mean /= np.maximum(count, 1)
    variance = np.zeros(shape)
    for block in blocks:  # a second pass: E[x^2] - E[x]^2 would lose digits
        squares = np.square(array[block] - mean)
        total = squares.sum(axis=over).reshape(shape)
        if np.isnan(total).any():
            total = np.nansum(squares, axis=over).reshape(shape)
        variance += total
    std = np.sqrt(variance / np.maximum(count, 1))
    return mean.astype(np.float32), np.where(std == 0, 1, std).astype(np.float32)
