"""A pack's map from items to others that the same people like: its arrays, and what they must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

PREFIX = "item_to_item_"


@dataclass(frozen=True, slots=True)
class ItemToItem:
    """Rows in compressed sparse form; shapes as in ``ranking.item_to_item.ItemToItemArrays``.

    ``keys`` [n_items] ascend; ``starts`` [n_items + 1]; ``others`` and ``weights`` [n]; ``unit`` [].
    """

    keys: NDArray[np.uint64]
    starts: NDArray[np.uint32]
    others: NDArray[np.uint16]
    weights: NDArray[np.int8]
    unit: NDArray[np.float16]

    def named(self) -> dict[str, NDArray[Any]]:
        """The arrays under the names that they have in a pack's file."""
        return {PREFIX + field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def problem(self) -> str:
        """What is wrong with them; empty when nothing is."""
        n_items, n = len(self.keys), len(self.others)
        wanted: Mapping[str, tuple[type, tuple[int, ...]]] = {
            "keys": (np.uint64, (n_items,)),
            "starts": (np.uint32, (n_items + 1,)),
            "others": (np.uint16, (n,)),
            "weights": (np.int8, (n,)),
            "unit": (np.float16, ()),
        }
        for name, (kind, shape) in wanted.items():
            array = getattr(self, name)
            if array.dtype != kind or array.shape != shape:
                return f"{PREFIX}{name} is {array.dtype} {array.shape}, not {np.dtype(kind)} {shape}"
        if (self.keys[1:] <= self.keys[:-1]).any():
            return f"{PREFIX}keys do not ascend"
        if self.starts[0] != 0 or self.starts[-1] != n or (self.starts[1:] < self.starts[:-1]).any():
            return f"{PREFIX}starts do not part {n} entries into rows"
        if n and self.others.max() >= n_items:
            return f"{PREFIX}others name items beyond the {n_items} there are"
        return "" if np.isfinite(self.unit) else f"{PREFIX}unit is not finite"


def read(arrays: Mapping[str, NDArray[Any]]) -> ItemToItem | None:
    """The map among a pack's arrays; None if it has none. Raises KeyError if a part is missing."""
    if not any(name.startswith(PREFIX) for name in arrays):
        return None
    return ItemToItem(**{field.name: arrays[PREFIX + field.name] for field in fields(ItemToItem)})
