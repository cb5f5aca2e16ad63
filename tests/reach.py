"""What an object leads to."""

from __future__ import annotations

import gc
import os

import numpy as np
import torch


def reachable_arrays(start: object) -> list[np.ndarray]:
    """Every array and tensor an object leads to, by its attributes and whatever they hold."""
    seen, waiting, found = {id(start)}, [start], []
    stop = (type, type(os), torch.device, torch.dtype, np.dtype)
    while waiting:
        here = waiting.pop()
        if isinstance(here, torch.Tensor):
            found.append(here.detach().numpy())
        elif isinstance(here, np.ndarray):
            found.append(np.asarray(here))
        more = list(gc.get_referents(here))
        if isinstance(here, np.ndarray) and here.base is not None:
            more.append(here.base)
        if callable(here) and hasattr(here, "__globals__"):  # modules are not an object's own
            more = [cell.cell_contents for cell in here.__closure__ or ()]
        for value in more:
            if id(value) not in seen and not isinstance(value, stop):
                seen.add(id(value))
                waiting.append(value)
    return found
