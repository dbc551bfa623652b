"""A version number of weights that changes with their values, by `fingerprint.c`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from pyg_schnet.kernels.c.library import library


class WeightsVersion:
    """Version of tensors: a number that differs after any change of them, except with probability 2⁻³².

    It detects changes that autograd does not count. It keeps the addresses of the tensors, which take longer
    to collect than to read; types and shapes must not change.
    """

    def __init__(self):
        self._known: tuple[list[int], tuple] = ([], ())  # replaced as a whole, for threads read it

    def read(self, tensors: Sequence[Tensor]) -> int:
        """Return the version of some tensors.

        Args:
            tensors: Tensors of any shapes, the same in each call.
        """
        plain = not all(t.is_cpu and t.is_contiguous() for t in tensors)
        if plain or (loaded := library(torch.float32)) is None:
            flat = (t.detach().contiguous().view(-1).view(torch.uint8) for t in tensors)
            return hash(tuple(t.cpu().numpy().tobytes() for t in flat))
        known, places = self._known, [*map(Tensor.data_ptr, tensors)]
        if places != known[0] or not places:
            addresses = (ctypes.c_void_p * len(tensors))(*places)
            sizes = (ctypes.c_int64 * len(tensors))(*(t.numel() * t.element_size() for t in tensors))
            known = self._known = (places, (addresses, sizes, len(tensors)))
        return loaded.fingerprint(*known[1])
