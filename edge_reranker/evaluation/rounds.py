"""Simulated feedback, round after round: does what the device learns from clicks help the likes it never saw?

A person is a user at a cut of ``protocol``: the events until then are known, and the targets, the new items
liked next, are held out: no list of a round has them, so nothing is learned of them. What the person clicks
on when it is seen (``clicks``) are the likes that come after them, and every list that measures lacks those.
So a gain cannot come from showing again what was clicked. The clicks come before the targets, though the log
has them later: nobody's taste is known to turn with the days.

What is served, learned and gated is what the service does: ``lists``, ``fusion`` and ``ranking.learning``.
The clicks are simulated. Whatever comes from here is labelled so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
# Of a made-up person's list, with replacement: enough for chance to say little.
N_DRAWN = 100
# Between two rounds; events age by it, and nothing else depends on it.
_ROUND_S = 3600.0

SERVER = "server"
NOTHING = "nothing learned"
WEIGHTS = "weights learned"
HISTORY = "history grown"
BOTH = "both"
SERVED = "served"
"""Orders of a list that measures. The last is what the service gives: both, or the server's by the gate."""


Appeal = Callable[[Listed], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Person:
    """Who clicks. ``cut`` has the history, which no list shows, and the targets, which are held out.

    ``known`` is the history that the device goes by, the same but for people who test. ``liked`` is what a
    click falls on; it and the targets have nothing in common. ``ratings`` is what the log says of items that
    are not held out. ``appeal`` replaces all of that for made-up people: every candidate's chance of a click
    once it is examined, [n]; the likes that measure are then ``N_DRAWN`` a list, drawn by it.
    """

    cut: Cut
    known: Sequence[Interaction]
    liked: frozenset[str]
    ratings: Mapping[str, EventType] = field(default_factory=dict)
    appeal: Appeal | None = None


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


def people(cuts: Sequence[Cut], of_user: Mapping[str, Sequence[Interaction]]) -> list[Person]:
    """Everybody at every cut; ``of_user`` has all their interactions, also those after it.

    Who likes nothing after the targets clicks by chance only.
    """
    found = []
    for cut in cuts:
        later = [each for each in of_user[cut.user_id][cut.n_events :] if each.item_id not in cut.targets]
        met = {each.item_id for each in cut.history}
        liked = {each.item_id for each in later if each.liked and each.at_s > cut.now_s} - met
        ratings = {each.item_id: each.type for each in later}
        history = tuple(cut.history)
        found.append(Person(replace(cut, history=history), history, frozenset(liked), ratings))
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
    attractive = np.zeros(0)
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
            attractive = _attractive(person, listed, setting)
        new = _clicks(at, person, served, attractive[served.order], setting)
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


def _attractive(person: Person, listed: Listed, setting: Setting) -> NDArray[np.float64]:
    if person.appeal is not None:
        return person.appeal(listed)
    return setting.attraction.of(listed.ids, person.liked)


def _clicks(
    at: int, person: Person, served: Shown, attractive: NDArray[np.float64], setting: Setting
) -> list[tuple[Choice | None, Interaction]]:
    """One reading of the list, as feedback and as events."""
    ids = [served.ids[row] for row in served.order]
    user = person.cut.user_id
    rng = np.random.default_rng([setting.seed, *user.encode(), person.cut.n_events, at])
    at_s = person.cut.now_s + (at + 1) * _ROUND_S
    found = []
    for place in setting.clicks.clicks(attractive, rng):
        rating = person.ratings.get(ids[place]) if setting.rates else None
        for type_ in (EventType.CLICK, *(() if rating is None else (rating,))):
            choice = choice_of(served, ids[place], type_, position=place)
            found.append((choice, Interaction(user, ids[place], type_, at_s)))
    return found


def _drawn(at: int, person: Person, listed: Listed, setting: Setting) -> Person:
    """The same person with likes to measure by, of this very list."""
    if not listed.ids or person.appeal is None:
        return person
    appeal = person.appeal(listed)
    rng = np.random.default_rng([setting.seed, *person.cut.user_id.encode(), person.cut.n_events, at, 1])
    rows = rng.choice(len(appeal), size=N_DRAWN, p=appeal / appeal.sum())
    return replace(person, cut=replace(person.cut, targets=tuple(listed.ids[row] for row in rows)))


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
    if person.appeal is not None:
        person = _drawn(at, person, _listed(person, lister, set(), clicked, False), setting)
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
