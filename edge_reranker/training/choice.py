"""Which encoder suits a log: what a pack on each reaches for the users who fit the prior, never the later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import lists, metrics
from edge_reranker.evaluation.log import Log
from edge_reranker.models.pack import Encoder
from edge_reranker.training import prior, recipe
from edge_reranker.training.head import Recipe


@dataclass(frozen=True, slots=True)
class Choice:
    """The encoder with the highest NDCG@10, and what each reached, by its model's name.

    ``lead`` is the best less the second, paired; None where there was nothing to choose.
    """

    encoder: Encoder
    reached: Mapping[str, metrics.Interval]
    n_users: int
    lead: metrics.Interval | None

    def as_text(self) -> str:
        """For the card: the figures, and whether they could have come out the other way."""
        figures = ", ".join(f"{name} {_shown(found, '.4f')}" for name, found in self.reached.items())
        text = (
            f"The encoder was chosen by NDCG@10 for the {self.n_users} users who fit the prior, each half of "
            f"them under weights fitted on the other: {figures}."
        )
        if self.lead is None:
            return f"{text} No other was on the device."
        sure = "" if self.lead.low > 0 else ": chance could have turned it"
        return f"{text} The lead is {_shown(self.lead, '+.4f')}{sure}."


def choose(
    data: Log, hidden_of: Sequence[tuple[Encoder, NDArray[np.floating]]], *, seed: int, settings: Recipe
) -> Choice:
    """The best of encoders by their hidden states [n_items, n_embd]; of equals, the first named.

    One pack is trained for each, with ``seed``. Raises as ``recipe.make_pack``, and ``ValueError`` without
    encoders.
    """
    if not hidden_of:
        raise ValueError("no encoders to choose from")
    encoder_of = {encoder.model: encoder for encoder, _ in hidden_of}
    places: dict[str, metrics.Places] = {}
    users: list[str] = []
    given = recipe.Given.of(data, recipe.TASTE)
    for encoder, hidden in hidden_of:
        _, listed, _ = recipe.drafted(data, hidden, seed=seed, recipe=settings, encoder=encoder, given=given)
        by_half = halves(listed)
        places[encoder.model] = np.concatenate(
            [lists.places(by_half[at], prior.pooled(by_half[1 - at])) for at in (0, 1)]
        )
        users = lists.users([*by_half[0], *by_half[1]])
    reached = {name: metrics.bootstrap(metrics.ndcg(found), users) for name, found in places.items()}
    best, *others = sorted(places, key=lambda name: -reached[name].mean)
    lead = metrics.compare(places[best], places[others[0]], users).ndcg10 if others else None
    return Choice(encoder_of[best], reached, len(set(users)), lead)


def halves(listed: Sequence[lists.Listed]) -> tuple[list[lists.Listed], list[lists.Listed]]:
    """The lists of every other user, and of the rest."""
    names = dict.fromkeys(each.cut.user_id for each in listed)
    first = set(list(names)[::2])
    return (
        [each for each in listed if each.cut.user_id in first],
        [each for each in listed if each.cut.user_id not in first],
    )


def _shown(found: metrics.Interval, how: str) -> str:
    return f"{found.mean:{how}} [{found.low:{how}}, {found.high:{how}}]"
