"""Tier 1: a model's hidden states become one small vector per item, and those become the user's.

One vector serves both towers. A candidate stands for itself; the history's vectors are summed and turned by
a learned map ("what follows this" differs from "what is like this"). So what the store caches, and what a
backend may send, is 128 halves of a float per item.

A vector has two parts, each of length 1. The learned part is made by what people liked next, and is good for
the items that they knew. The content part is the hidden state itself, centred and cut to its main directions:
nothing is learned from people there, so it is as good for an item that nobody has seen yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

CLIP = 6.0
_LARGEST = 65504.0  # of half precision

Float32 = NDArray[np.float32]


class HeadWeights(Protocol):
    """The arrays of a trained head, as a pack holds them."""

    @property
    def shift(self) -> NDArray[np.floating]:
        """Mean of the hidden states, [n_embd]."""

    @property
    def scale(self) -> NDArray[np.floating]:
        """One over their standard deviation, [n_embd]."""

    @property
    def project(self) -> NDArray[np.floating]:
        """From standardised hidden states to item vectors, [n_embd, n_dims]: learned part, then content."""

    @property
    def bias(self) -> NDArray[np.floating]:
        """Added after ``project``, [n_dims]."""

    @property
    def turn(self) -> NDArray[np.floating]:
        """From the learned part to what follows it, [n_learned, n_learned]; n_learned is n_dims at most."""


@dataclass(frozen=True, slots=True)
class Towers:
    """Covington et al., "Deep Neural Networks for YouTube Recommendations", 2016, cut down to two maps."""

    shift: Float32
    scale: Float32
    project: Float32
    bias: Float32
    turn: Float32

    @classmethod
    def of(cls, head: HeadWeights) -> Towers:
        """Single-precision copies of a pack's arrays, ready to use."""
        arrays = (head.shift, head.scale, head.project, head.bias, head.turn)
        return cls(*(np.asarray(array, np.float32) for array in arrays))

    @property
    def n_dims(self) -> int:
        """Numbers in an item vector, both parts."""
        return int(self.project.shape[1])

    @property
    def n_learned(self) -> int:
        """Numbers in the learned part, which comes first."""
        return len(self.turn)

    def content_only(self) -> Towers:
        """The same without the learned part."""
        at = self.n_learned
        return Towers(
            self.shift, self.scale, self.project[:, at:], self.bias[at:], np.zeros((0, 0), np.float32)
        )

    def item_vectors(self, hidden: NDArray[np.floating]) -> NDArray[np.float16]:
        """Mean-pooled hidden states [n, n_embd] to item vectors [n, n_dims], each part of length 1.

        Each depends on its own row only. Raises ``ValueError`` when n_embd is another model's.
        """
        hidden = np.asarray(hidden, np.float32)
        if hidden.ndim != 2 or hidden.shape[1] != len(self.shift):
            raise ValueError(f"hidden states are {hidden.shape}; this head reads [n, {len(self.shift)}]")
        standard = np.clip((hidden - self.shift) * self.scale, -CLIP, CLIP)
        # Row by row: a blocked matrix product may round a row differently with the number of rows.
        vectors = np.stack([row @ self.project for row in standard]) if len(standard) else standard
        return self._of_length_1(vectors.reshape(len(hidden), self.n_dims) + self.bias).astype(np.float16)

    def user_vector(self, vectors: NDArray[np.floating], weights: NDArray[np.floating]) -> Float32:
        """History's vectors [m, n_dims] and weights [m] to the user's [n_dims], each part of length 1.

        All zeros when nothing is known, so that every score is 0.
        """
        if len(vectors) == 0:
            return np.zeros(self.n_dims, np.float32)
        pooled = np.asarray(np.asarray(weights, np.float32) @ self.trusted(vectors), np.float32)
        pooled[: self.n_learned] = pooled[: self.n_learned] @ self.turn
        return np.asarray(self._of_length_1(pooled[None])[0], np.float32)

    def scores(self, user: Float32, vectors: NDArray[np.floating]) -> tuple[Float32, Float32]:
        """Cosines of the user with every candidate's vector [n, n_dims]: by the learned part, by content.

        [n] each, between -1 and 1; all 0 for a part that there is not.
        """
        return self.cosines(user, self.trusted(vectors))

    def cosines(self, user: Float32, trusted: Float32) -> tuple[Float32, Float32]:
        """``scores`` of vectors that are ``trusted`` already, so that it is done once for many users."""
        at = self.n_learned
        return trusted[:, :at] @ user[:at], trusted[:, at:] @ user[at:]

    def trusted(self, vectors: NDArray[np.floating]) -> Float32:
        """Parts made of length 1: a vector that a backend sent must not gain weight by being long."""
        values = np.asarray(vectors, np.float32)
        if not np.isfinite(values).all():  # seldom, and to look is cheaper than to replace
            values = np.asarray(np.nan_to_num(values, posinf=_LARGEST, neginf=-_LARGEST), np.float32)
        return self._of_length_1(values)

    def _of_length_1(self, rows: Float32) -> Float32:
        result = np.empty_like(rows)
        for part in (slice(None, self.n_learned), slice(self.n_learned, None)):
            result[:, part] = _unit_rows(rows[:, part])
        return result


def _unit_rows(rows: Float32) -> Float32:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)
