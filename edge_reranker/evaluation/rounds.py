"""Simulated feedback, round after round: does what the device learns from clicks help the likes it never saw?

A person is one user of the log with the first few events known, and the new items liked afterwards parted by
chance in two halves. One half is what the person clicks on when it is seen (``clicks``); the other half is
held out: no list of a round has it, so nothing is learned of it, and every list that measures lacks the
first. So a gain cannot come from showing again what was clicked. Both halves take both parts, in two folds.

What is served, learned and gated is what the service does: ``lists``, ``fusion`` and ``ranking.learning``.
The clicks are simulated. Whatever comes from here is labelled so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import beyond, lists
from edge_reranker.evaluation.clicks import Attraction, ClickModel, PositionBased
from edge_reranker.evaluation.lists import NAMES, Listed, Lister
from edge_reranker.evaluation.log import Interaction
from edge_reranker.evaluation.protocol import Cut
from edge_reranker.ranking import fusion
from edge_reranker.ranking.learning.feedback import Choice, choice_of
from edge_reranker.ranking.learning.learned import Learned
from edge_reranker.ranking.learning.shown import Shown
from edge_reranker.types import EventType

N_ROUNDS = 50
CHECKPOINTS = (0, 5, 10, 20, 35, 50)
# Of the log's first cut: the less is known of somebody, the more there is to learn.
N_KNOWN = 10
FOLDS = (0, 1)
# Between two rounds; events age by it, and nothing else depends on it.
_ROUND_S = 3600.0

SERVER = "server"
NOTHING = "nothing learned"
WEIGHTS = "weights learned"
HISTORY = "history grown"
BOTH = "both"
SERVED = "served"
"""Orders of a list that measures. The last is what the service gives: both, or the server's by the gate."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who clicks. ``cut`` has the history, which no list shows, and as targets the likes held out.

    ``known`` is the history that the device goes by, the same but for people who test. ``liked`` is what a
    click falls on; it and the targets have nothing in common. ``ratings`` is what the log says of items that
    are not held out.
    """

    cut: Cut
    known: Sequence[Interaction]
    liked: frozenset[str]
    ratings: Mapping[str, EventType] = field(default_factory=dict)
    fold: int = 0


@dataclass(frozen=True, slots=True)
class Setting:
    """How the rounds go. With ``grows``, clicks become events of the history too, as in the service.

    With ``rates``, whoever clicks on an item also rates it as in the log, if it is there: the log's LIKE,
    VIEW or DISLIKE is one more event. Without ``gated``, ours is served whatever the gate says. A list has
    ``n`` candidates, the server's first that were not met yet. ``seed`` is of the clicks.
    """

    clicks: ClickModel = field(default_factory=PositionBased)
    attraction: Attraction = field(default_factory=Attraction)
    grows: bool = True
    rates: bool = False
    gated: bool = True
    n: int = 100
    n_rounds: int = N_ROUNDS
    checkpoints: tuple[int, ...] = CHECKPOINTS
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """One person after ``n_rounds``: every order's places of the targets on one and the same list.

    ``chances`` [n] are those behind the order of ``SERVED``, by the server's place; ``places_served`` [n] are
    the places that it gives the server's candidates, from 1.
    """

    n_rounds: int
    n_clicks: int
    by_server: bool
    places: Mapping[str, NDArray[np.int64]]
    chances: NDArray[np.float64]
    places_served: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trace:
    """One person's rounds, one mark a checkpoint."""

    person: Person
    marks: tuple[Mark, ...]


def people(
    of_user: Mapping[str, Sequence[Interaction]], *, n_known: int = N_KNOWN, seed: int = 0
) -> list[Person]:
    """Every user with at least two new likes after ``n_known`` events, once a fold.

    The likes count as in ``protocol``: strictly later than the last known event, items not met before.
    """
    found = []
    for user, interactions in of_user.items():
        history = tuple(interactions[:n_known])
        if len(history) < n_known:
            continue
        met = {each.item_id for each in history}
        liked = list(
            dict.fromkeys(
                each.item_id
                for each in interactions[n_known:]
                if each.liked and each.at_s > history[-1].at_s and each.item_id not in met
            )
        )
        if len(liked) < 2:
            continue
        first = set(np.random.default_rng([seed, *user.encode()]).permutation(liked)[: len(liked) // 2])
        for fold in FOLDS:
            held = tuple(each for each in liked if (each in first) == bool(fold))
            ratings = {each.item_id: each.type for each in interactions[n_known:] if each.item_id not in held}
            rest = frozenset(liked) - set(held)
            found.append(Person(Cut(user, n_known, history, held), history, rest, ratings, fold))
    return found


def run(who: Sequence[Person], lister: Lister, start: Learned, setting: Setting) -> list[Trace]:
    """Everybody's rounds."""
    own = replace(lister, n=setting.n)
    return [Trace(person, tuple(_rounds(person, own, start, setting))) for person in who]


def shown(listed: Listed, learned: Learned, *, gated: bool = True) -> Shown:
    """The list as the service shows and logs it: by the learned weights, or by the gate as it came."""
    weights = learned.with_model
    ours = fusion.order(fusion.fuse(listed.matrix, NAMES, weights))
    by_server = gated and learned.gate.server_wins
    return Shown(
        ids=listed.ids,
        names=NAMES,
        weights=_aligned(weights),
        matrix=listed.matrix,
        order=np.arange(len(ours)) if by_server else ours,
        ours=ours,
        exposure=None,
        with_model=True,
        by_server=by_server,
        pack=learned.pack,
    )


def _aligned(weights: fusion.Weights) -> NDArray[np.float64]:
    mean_of = dict(zip(weights.names, weights.mean, strict=True))
    return np.array([mean_of.get(name, 0.0) for name in NAMES])


def _rounds(person: Person, lister: Lister, start: Learned, setting: Setting) -> Iterator[Mark]:
    learned, clicked = start, list[Interaction]()
    held = set(person.cut.targets)
    served: Shown | None = None
    for at in range(setting.n_rounds + 1):
        if at in setting.checkpoints:
            yield _mark(at, person, lister, (start, learned), clicked, setting)
        if at == setting.n_rounds:
            return
        if served is None:
            listed = _listed(person, lister, held, clicked, setting.grows)
            if not listed.ids:
                continue  # everything that the server has was met
            served = shown(listed, learned, gated=setting.gated)
        new = _clicks(at, person, served, setting)
        for choice, event in new:
            learned = learned if choice is None else learned.after(choice)
            clicked.append(event)
        if new:
            served = None  # what was clicked is seen now, and known


def _listed(
    person: Person, lister: Lister, unseen: set[str], clicked: Sequence[Interaction], grows: bool
) -> Listed:
    """What the server sends now: neither what was met or clicked on, nor ``unseen``."""
    cut = person.cut
    out = unseen | {each.item_id for each in (*cut.history, *clicked)}
    known = (*person.known, *clicked) if grows else person.known
    return lister.among(cut, lister.server.candidates(cut.history, out, lister.n), known=known)


def _clicks(
    at: int, person: Person, served: Shown, setting: Setting
) -> list[tuple[Choice | None, Interaction]]:
    """One reading of the list, as feedback and as events."""
    ids = [served.ids[row] for row in served.order]
    attractive = setting.attraction.of(ids, person.liked)
    user = person.cut.user_id
    rng = np.random.default_rng([setting.seed, *user.encode(), person.fold, at])
    at_s = person.cut.now_s + (at + 1) * _ROUND_S
    found = []
    for place in setting.clicks.clicks(attractive, rng):
        rating = person.ratings.get(ids[place]) if setting.rates else None
        for type_ in (EventType.CLICK, *(() if rating is None else (rating,))):
            choice = choice_of(served, ids[place], type_, position=place)
            found.append((choice, Interaction(user, ids[place], type_, at_s)))
    return found


def _mark(
    at: int,
    person: Person,
    lister: Lister,
    learned: tuple[Learned, Learned],
    clicked: Sequence[Interaction],
    setting: Setting,
) -> Mark:
    """``learned`` is of the start, and of now."""
    start, now = (each.with_model for each in learned)
    as_it_was = _listed(person, lister, set(person.liked), clicked, False)
    grown = (
        _listed(person, lister, set(person.liked), clicked, True) if setting.grows and clicked else as_it_was
    )
    places = {
        SERVER: lists.server_places([as_it_was]),
        NOTHING: lists.places([as_it_was], start),
        WEIGHTS: lists.places([as_it_was], now),
        HISTORY: lists.places([grown], start),
        BOTH: lists.places([grown], now),
    }
    by_server = setting.gated and learned[1].gate.server_wins
    places[SERVED] = places[SERVER] if by_server else places[BOTH]
    scores = fusion.fuse(grown.matrix, NAMES, now)
    order = np.arange(len(scores)) if by_server else fusion.order(scores)
    places_served = np.argsort(order, kind="stable") + 1
    n_clicks = sum(each.type == EventType.CLICK for each in clicked)
    return Mark(at, n_clicks, by_server, places, beyond.chances(scores), places_served)
