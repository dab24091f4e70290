"""Simulated clicks on lists: people who look at the top first, and who like what they liked in MovieLens.

Nobody clicked here. Whatever is measured on these clicks is a simulation, and is labelled so wherever it is
shown.

Two click models, both of Craswell, Zoeter, Taylor and Ramsey, "An Experimental Comparison of Click
Position-Bias Models", WSDM 2008. A list's places are examined by a rule of the model's own; an examined item
is clicked with the chance of its ``Attraction``, whatever stands around it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# What an app shows at once and a little below; what is further down nobody sees.
DEPTH = 20


class ClickModel(Protocol):
    """How people read a list. ``attractive`` [n] is each place's chance of a click once it is examined."""

    def clicks(self, attractive: Float64, rng: np.random.Generator) -> list[int]:
        """The clicked places of one reading, from 0, in the order in which they were clicked."""

    def chances(self, attractive: Float64) -> Float64:
        """Each place's chance of a click, [n]: what ``clicks`` comes to on average."""


@dataclass(frozen=True, slots=True)
class PositionBased:
    """Every place k is examined by itself, with chance k^-``eta``: P(click at k) = k^-eta a_k, k from 1.

    The examination hypothesis; the form of k^-eta is that of Joachims, Swaminathan and Schnabel, "Unbiased
    Learning-to-Rank with Biased Feedback", WSDM 2017. Past ``depth`` nothing is examined.
    """

    eta: float = 1.0
    depth: int = DEPTH

    def examination(self, n: int) -> Float64:
        """Each place's chance to be examined, [n]."""
        places = np.arange(1, n + 1, dtype=np.float64)
        return np.where(places <= self.depth, places**-self.eta, 0.0)

    def clicks(self, attractive: Float64, rng: np.random.Generator) -> list[int]:
        """Any number of clicks, also none."""
        drawn = rng.random(len(attractive)) < self.chances(attractive)
        return [int(at) for at in np.flatnonzero(drawn)]

    def chances(self, attractive: Float64) -> Float64:
        """``examination`` times ``attractive``."""
        return self.examination(len(attractive)) * attractive


@dataclass(frozen=True, slots=True)
class Cascade:
    """Read from the top; a click ends the reading with chance ``stop``, and so does place ``depth``.

    P(click at k) = a_k times the product over the j before k of (1 - stop a_j). With ``stop`` 1 it is the
    cascade model; below 1 it goes on after a click as in Guo, Liu and Wang, "Efficient Multiple-Click
    Models in Web Search", WSDM 2009.
    """

    stop: float = 1.0
    depth: int = DEPTH

    def clicks(self, attractive: Float64, rng: np.random.Generator) -> list[int]:
        """At most one click when ``stop`` is 1."""
        wanted, ends = rng.random((2, len(attractive)))
        found = []
        for at in range(min(self.depth, len(attractive))):
            if wanted[at] < attractive[at]:
                found.append(at)
                if ends[at] < self.stop:
                    break
        return found

    def chances(self, attractive: Float64) -> Float64:
        """``attractive`` times the chance that the reading gets there."""
        goes_on = np.cumprod(1.0 - self.stop * attractive)
        reached = np.concatenate([[1.0], goes_on[:-1]]) if len(attractive) else goes_on
        reached[self.depth :] = 0.0
        return np.asarray(reached * attractive, np.float64)


@dataclass(frozen=True, slots=True)
class Attraction:
    """Chance of a click on what is examined: ``liked`` for what the user is known to like, ``other`` else.

    ``other`` is what clicks have of chance: an item that was never rated may be clicked all the same.
    """

    liked: float = 0.9
    other: float = 0.02

    def of(self, ids: Sequence[str], liked: Collection[str]) -> Float64:
        """The chance for each of ``ids``, [n]."""
        return np.array([self.liked if each in liked else self.other for each in ids], np.float64)
