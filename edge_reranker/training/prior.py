"""The prior over fusion weights: what is believed before any choice, and after the fusion users' choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import lists
from edge_reranker.models.pack import Prior
from edge_reranker.ranking import features, fusion

# Mean and deviation before any data. Columns that the training data never fills keep them. A feature that
# the server knows as well (its score, recency) starts at 0: its order has it already. What only the device
# knows, and the words of a query, start with a cautious say.
BEFORE: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "server_rank": (0.0, 1.0),
        "server_score": (0.0, 0.3),
        "history_text": (0.0, 1.0),
        "query_text": (3.0, 1.5),
        "tags": (0.5, 1.0),
        "attributes": (0.5, 1.0),
        "recency": (0.0, 0.5),
        "neighbours": (0.5, 0.5),
        "public_vector": (2.0, 2.0),
        "towers": (0.0, 5.0),
        "towers_recent": (0.0, 5.0),
        "content": (1.0, 3.0),
        "content_recent": (0.5, 3.0),
        "query_content": (3.0, 2.0),
        "unseen": (0.0, 1.0),
        "item_to_item": (0.0, 10.0),
        "scorer": (0.0, 1.0),
    }
)


# Neighbours overlap with what the towers know: fitted on lists that had them (item-to-item cosine of the head
# users, ten each), their weight was 0.75 beside the towers and 1.9 without. docs/decisions has the figures.
BEFORE_WITHOUT_MODEL: Mapping[str, tuple[float, float]] = MappingProxyType(
    {**BEFORE, "neighbours": (1.0, 0.5)}
)

# Columns that only a model fills, of whichever tier.
OF_A_MODEL = features.OF_THE_ENCODER | {"scorer"}

# A covariance of 17 numbers is known well from so many users; of more, it takes every second, third, …
_MOST_USERS = 500
_N_MADE_UP = 1
_N_ROUNDS = 20


def before(*, model: bool = True) -> fusion.Weights:
    """The weights before any data, over all features that packs weigh, or those that need no model."""
    beliefs = BEFORE if model else BEFORE_WITHOUT_MODEL
    left_out = features.OF_THE_USER | (frozenset() if model else OF_A_MODEL)
    names = tuple(name for name in lists.NAMES if name not in left_out)
    return fusion.Weights(
        names,
        np.array([beliefs[name][0] for name in names]),
        np.diag([beliefs[name][1] ** 2 for name in names]),
    )


def pooled(
    listed: Sequence[lists.Listed], unseen: Sequence[lists.Listed] = (), *, model: bool = True
) -> fusion.Weights:
    """The posterior after all choices, as if one user had made them; its mean is ``fit``'s."""
    start = before(model=model)
    return fusion.fit(_choices(listed, unseen, start.names), start)


def fit(
    listed: Sequence[lists.Listed], unseen: Sequence[lists.Listed] = (), *, model: bool = True
) -> fusion.Weights:
    """The prior for a new user, learned from the choices in ``listed``; over the columns of ``before``.

    ``unseen`` are the same lists as a pack would see them that does not know some of the items: half of what
    the choices say is learned from these, if there are any. The mean is the posterior mode over all choices.
    The covariance is how unsure that is (Laplace) plus how much users differ from each other
    (``between_users``); a column that the data never fills keeps its deviation of ``BEFORE``.
    """
    start = before(model=model)
    of_user: dict[str, tuple[list[lists.Listed], list[lists.Listed]]] = {}
    for at, each in ((0, listed), (1, unseen)):
        for one in each:
            of_user.setdefault(one.cut.user_id, ([], []))[at].append(one)
    chosen = [_choices(*group, start.names) for group in of_user.values()]
    pooled = fusion.fit([part for parts in chosen for part in parts], start)
    filled = np.array(
        [
            any((part.matrix[:, :, at] != 0).any() for parts in chosen for part in parts)
            for at in range(len(start.names))
        ]
    )
    if not filled.any():
        return pooled
    covariance = pooled.covariance.copy()
    covariance[np.ix_(filled, filled)] += between_users(chosen, pooled, filled)
    return fusion.Weights(pooled.names, pooled.mean, covariance)


def between_users(
    chosen: Sequence[Sequence[fusion.Choices]], centre: fusion.Weights, filled: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Covariance [n_filled, n_filled] of users' own weights around ``centre``, by expectation maximisation.

    ``chosen`` holds each user's choices. Dempster, Laird and Rubin, "Maximum Likelihood from Incomplete
    Data via the EM Algorithm", 1977; each user's posterior is Laplace's, and ``_N_MADE_UP`` made-up
    users with the deviation of ``BEFORE`` keep it away from zero.
    """
    names = tuple(name for name, used in zip(centre.names, filled, strict=True) if used)
    mean = centre.mean[filled]
    unseen = np.diag([BEFORE[name][1] ** 2 for name in names])
    own = [
        [fusion.Choices(part.matrix[:, :, filled], part.counts, part.offset) for part in parts]
        for parts in chosen
        if parts
    ]
    own = own[:: max(1, -(-len(own) // _MOST_USERS))]
    spread = unseen
    for _ in range(_N_ROUNDS):
        total = _N_MADE_UP * unseen
        for parts in own:
            posterior = fusion.fit(parts, fusion.Weights(names, mean, spread))
            away = posterior.mean - mean
            total = total + posterior.covariance + np.outer(away, away)
        spread = total / (len(own) + _N_MADE_UP)
    return spread


def _choices(
    listed: Sequence[lists.Listed], unseen: Sequence[lists.Listed], names: Sequence[str]
) -> list[fusion.Choices]:
    """The lists' choices over these columns, each choice counted once: half and half if it is in both."""
    columns = [lists.NAMES.index(name) for name in names]
    share = 0.5 if unseen else 1.0
    return [
        fusion.Choices(part.matrix[:, :, columns], share * part.counts, part.offset)
        for part in (*lists.choices(listed), *lists.choices(unseen))
    ]


def as_prior(weights: fusion.Weights) -> Prior:
    """Weights as a pack stores them, rounded to six significant digits."""
    return Prior(
        weights.names,
        tuple(_rounded(value) for value in weights.mean),
        tuple(tuple(_rounded(value) for value in row) for row in weights.covariance),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
