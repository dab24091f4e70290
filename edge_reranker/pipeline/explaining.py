"""Says why: of a past ranking, and of what is believed about a user."""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.errors import InvalidArgument, NotFound
from edge_reranker.explained import Explained, Explanation, Reason, ReasonsMissing, UserProfile
from edge_reranker.pipeline.answers import Answer
from edge_reranker.pipeline.basis import Basis
from edge_reranker.ranking import explain
from edge_reranker.ranking.beliefs import beliefs
from edge_reranker.ranking.context import PRIORS, contexts
from edge_reranker.ranking.explain import Change, Scored
from edge_reranker.ranking.features import word_scores
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.learning.shown import Shown
from edge_reranker.ranking.policy import Arranged
from edge_reranker.ranking.profile import profile
from edge_reranker.scoring import Tiers, User, Users
from edge_reranker.scoring.epochs import Owner
from edge_reranker.store import Store
from edge_reranker.types import Candidate, Item, Ranking, RerankQuery

MAX_REASONS = 5
# Of each namespace, and of all together. 100 films and a history of 200 take 400 KB.
_MAX_RANKINGS = 16
_MAX_BYTES = 16 * 1024 * 1024
_ECHO_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that was answered: with ``basis`` and ``shown`` when the order is by scores."""

    query: RerankQuery
    ranking: Ranking
    basis: Basis | None = None
    shown: Shown | None = None

    size_bytes: int = field(init=False, compare=False)
    """About what it takes in memory, without the user, who is the same until the next event."""

    def __post_init__(self) -> None:
        matrix = 0 if self.basis is None else 4 * self.basis.columns.nbytes
        size = 4_096 + matrix + sum(map(_candidate_bytes, self.query.candidates))
        object.__setattr__(self, "size_bytes", size)


class Recent:
    """The newest requests of each namespace, in memory alone. Thread-safe.

    Whose take up most give way when there is no room for all.
    """

    def __init__(self, max_rankings: int = _MAX_RANKINGS, max_bytes: int = _MAX_BYTES) -> None:
        self._max_rankings = max_rankings
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: dict[str, OrderedDict[str, tuple[int, Answered]]] = {}
        self._sizes: dict[str, int] = {}
        self._users: dict[str, tuple[User, int]] = {}  # the newest of each namespace, and their size

    def put(self, namespace: str, answered: Answered) -> None:
        """Keeps one as the newest; one that is larger than the room is not kept."""
        size = answered.size_bytes
        if answered.basis is not None:
            size += self._user_bytes(namespace, answered.basis.user)
        if size > self._max_bytes:
            return
        with self._lock:
            mine = self._kept.setdefault(namespace, OrderedDict())
            mine[answered.ranking.ranking_id] = (size, answered)
            self._sizes[namespace] = self._sizes.get(namespace, 0) + size
            if len(mine) > self._max_rankings:
                self._drop_oldest(namespace)
            while sum(self._sizes.values()) > self._max_bytes:
                self._drop_oldest(max(self._sizes, key=self._sizes.__getitem__))

    def get(self, namespace: str, ranking_id: str) -> Answered | None:
        """The request that was answered with this ranking, if it is still there."""
        with self._lock:
            mine = self._kept.get(namespace)
            found = None if mine is None else mine.get(ranking_id)
        return None if found is None else found[1]

    def forget(self, namespace: str | None = None) -> None:
        """Drops what is kept of a namespace, or of all."""
        with self._lock:
            for kept in (self._kept, self._sizes, self._users):
                if namespace is None:
                    kept.clear()
                else:
                    kept.pop(namespace, None)

    def _user_bytes(self, namespace: str, user: User) -> int:
        """What the user's events take; reckoned once, until there are others."""
        known = self._users.get(namespace)
        if known is None or known[0] is not user:
            events = user.context.events
            items = [event.item for event in events if event.item is not None]
            known = self._users[namespace] = (user, 1_024 * len(events) + sum(map(_item_bytes, items)))
        return known[1]

    def _drop_oldest(self, namespace: str) -> None:
        _, (size, _) = self._kept[namespace].popitem(last=False)
        self._sizes[namespace] -= size


class Explaining:
    """Explains rankings and users. Thread-safe.

    What each feature added is in the store, beside the ranking. What an event did can be told only while the
    request is in memory, because candidates are never stored.
    """

    def __init__(self, store: Store, users: Users, clock: Callable[[], float]) -> None:
        self._store = store
        self._users = users
        self._clock = clock
        self.recent = Recent()

    def keep(
        self,
        tiers: Tiers,
        owner: Owner,
        query: RerankQuery,
        ranking: Ranking,
        answer: Answer,
        arranged: Arranged,
    ) -> None:
        """Logs an answer, and keeps what explains it; nothing if the owner's epoch is over."""
        answered = Answered(query, ranking, answer.basis, _shown(query, answer, arranged))
        log = partial(
            self._store.put_ranking,
            owner.namespace,
            ranking,
            surface=query.surface,
            session_id=query.session_id,
            created_at=self._clock(),
            sources=self._store.sources(owner.namespace),
            detail=b"" if answered.shown is None else answered.shown.encode(),
        )

        def keep() -> None:
            log()
            self.recent.put(owner.namespace, answered)

        tiers.epochs.during(owner, keep)

    def explain(
        self, tiers: Tiers, namespace: str, ranking_id: str, ids: Sequence[str], deadline: Deadline
    ) -> Explained:
        """Why the candidates ``ids`` (none: all) stand where they stand.

        Raises NotFound for a ranking that is not there, InvalidArgument for an id that was not in it,
        StoreError.
        """
        answered = self.recent.get(namespace, ranking_id)
        if answered is not None:
            ranking, shown, query = answered.ranking, answered.shown, answered.query
        else:
            ranking, query = self._logged(namespace, ranking_id), None
            shown = _decoded(self._store.detail(namespace, ranking_id))
        wanted = _wanted(ranking, shown, query, ids)
        missing = ReasonsMissing.UNSPECIFIED if ranking.pack else ReasonsMissing.NOT_SCORED
        reasons: Mapping[str, tuple[Reason, ...]] = {}
        # Of a server's order that stands nothing is said of scores: they had no say in it.
        weighed = shown is not None and not shown.by_server
        basis = None if answered is None or not weighed else answered.basis
        if basis is not None and basis.tiers is tiers:
            reasons, done = self._reasons(basis, wanted, deadline)
            missing = missing if done else ReasonsMissing.DEADLINE
        elif ranking.pack:
            missing = ReasonsMissing.NOT_KEPT
        explanations = _explanations(ranking, shown, query, wanted, reasons)
        named = {part.feature for each in explanations for part in each.contributions}
        named |= {reason.feature for each in explanations for reason in each.reasons}
        names = () if shown is None else shown.names
        return Explained(
            explanations,
            tuple(explain.feature(name, tiers.named) for name in names if name in named),
            missing,
            ranking.degraded_reason,
            basis is not None and basis.reading_held,
        )

    def shown(self, namespace: str, ranking_id: str) -> Shown | None:
        """What a recent ranking showed, if it is still in memory."""
        answered = self.recent.get(namespace, ranking_id)
        return None if answered is None else answered.shown

    def profile(self, tiers: Tiers, namespace: str) -> UserProfile:
        """What is believed about a namespace's user. Raises StoreError."""
        muted = self._store.muted(namespace)
        context = self._users.now(tiers, namespace).context
        found, n_events = beliefs(context, tiers.taste, own=namespace, muted=muted)
        return UserProfile(found, tuple(sorted(muted)), n_events)

    def _logged(self, namespace: str, ranking_id: str) -> Ranking:
        found = self._store.ranking(namespace, ranking_id)
        if found is None:
            self._store.flush()  # it may be on its way
            found = self._store.ranking(namespace, ranking_id)
        if found is None:
            raise NotFound(
                f"there is no ranking {ranking_id[:_ECHO_CHARACTERS]!r}: it was never made, was forgotten, "
                "or is too old; rerank again and ask about that one"
            )
        return found

    def _reasons(
        self, basis: Basis, wanted: Sequence[str], deadline: Deadline
    ) -> tuple[Mapping[str, tuple[Reason, ...]], bool]:
        """By candidate, the events that moved it most; and whether there was time to look at all events."""
        now = explain.scored(basis.found.matrix, basis.found.names, basis.found.weights)
        changes: list[tuple[int, Change]] = []
        done = True
        for at, without in left_out(basis, deadline):
            if deadline.passed:  # so it may be cut short
                done = False
                break
            changes.append((at, explain.change(now, without)))
            with deadline.while_waiting():
                pass  # a request that is due sooner goes first
        row_of = {candidate.id: row for row, candidate in enumerate(basis.query.candidates)}
        return {id_: self._largest(basis, changes, row_of[id_]) for id_ in wanted}, done

    def _largest(self, basis: Basis, changes: Sequence[tuple[int, Change]], row: int) -> tuple[Reason, ...]:
        context, now_s = basis.user.context, self._clock()
        largest = sorted(changes, key=lambda each: -abs(each[1].score[row]))[:MAX_REASONS]
        found = []
        for at, change in largest:
            event, score = context.events[at], float(change.score[row])
            if not score:
                continue
            by = basis.found.names[change.feature[row]]
            found.append(
                Reason(
                    event.event_id,
                    context.namespaces[at] if context.namespaces else basis.user.namespace,
                    event.type,
                    explain.title(event),
                    "" if event.item is None else event.item.id,
                    event.occurred_at,
                    score,
                    int(change.place[row]),
                    by,
                    explain.phrase(event, score, by, now_s=now_s),
                )
            )
        return tuple(found)


def left_out(basis: Basis, deadline: Deadline) -> Iterator[tuple[int, Scored]]:
    """Of each event of the context that tells something, the newest first: its place there, and the scores
    as they would have been without it; exact for tiers 0 and 1, where there is time.

    That is: if the user had not done it, and the weights were the same.
    """
    context, taste = basis.user.context, basis.tiers.taste
    places = list(explain.telling(context, taste))
    profiles = [profile(explain.without(context, at), taste) for at in places]
    # Slow to find, so only where they have a say.
    told = basis.user.contexts
    heard = any(basis.found.weight_of(name) for name in PRIORS)
    # All at once, because the candidates' words are the same each time.
    *histories, asked = word_scores([each.words for each in profiles], basis.query)
    for at, found, words in zip(places, profiles, histories, strict=True):
        if heard:
            told = contexts(explain.without(context, at), taste)
        then = basis.of_history(found, told, np.stack([words, asked]), deadline)
        unknown = not found and not basis.query.query  # then the server's order would stand
        yield at, explain.scored(then.matrix, then.names, then.weights, as_served=unknown)


def _shown(query: RerankQuery, answer: Answer, arranged: Arranged) -> Shown | None:
    """By what an answer is to be explained later; nothing where the server's order stands."""
    basis = answer.basis
    if basis is None:
        return None
    found = basis.found
    if len(set(found.names)) < len(found.names):
        return None  # a pack that has the app's numbers under the name of a feature: nothing tells them apart
    return Shown(
        ids=tuple(candidate.id for candidate in query.candidates),
        names=found.names,
        weights=np.array([found.weight_of(name) for name in found.names]),
        matrix=found.matrix,
        order=arranged.order,
        ours=answer.order,
        with_model=basis.with_model,
        pack=basis.tiers.pack_id,
        by_server=answer.by_server,
        exposure=arranged.exposure,
    )


def _explanations(
    ranking: Ranking,
    shown: Shown | None,
    query: RerankQuery | None,
    wanted: Sequence[str],
    reasons: Mapping[str, tuple[Reason, ...]],
) -> tuple[Explanation, ...]:
    place_of = {result.id: place for place, result in enumerate(ranking.results)}
    tier_of = {result.id: result.tier for result in ranking.results}
    candidate_of = {} if query is None else {each.id: each for each in query.candidates}
    served = _served(shown, query)
    row_of = {id_: row for row, id_ in enumerate(served)}
    scored: Scored | None = None
    if shown is not None and not shown.by_server:
        weights = Weights(shown.names, shown.weights, np.zeros((0, 0)))
        scored = explain.scored(shown.matrix, shown.names, weights)
    found = []
    for id_ in wanted:
        candidate, row = candidate_of.get(id_), row_of.get(id_)
        each = Explanation(
            id_,
            tier_of.get(id_, 0),
            server_place=row,
            place=place_of.get(id_),
            reasons=reasons.get(id_, ()),
            title="" if candidate is None else candidate.item.title,
            topics=() if candidate is None else candidate.item.tags,
        )
        if scored is not None and shown is not None and row is not None:
            each = _with_score(each, scored, shown, row)
        found.append(each)
    return tuple(found)


def _with_score(each: Explanation, scored: Scored, shown: Shown, row: int) -> Explanation:
    return dataclasses.replace(
        each,
        score=float(scored.scores[row]),
        score_place=int(scored.place[row]),
        contributions=explain.contributions(scored.parts[row], shown.names),
    )


def _wanted(
    ranking: Ranking, shown: Shown | None, query: RerankQuery | None, ids: Sequence[str]
) -> Sequence[str]:
    """The candidates to explain: those asked for, or all in the order of the answer."""
    listed = [result.id for result in ranking.results]
    known = dict.fromkeys([*listed, *_served(shown, query)])
    for at, id_ in enumerate(ids):
        if id_ not in known:
            problem = f"{id_[:_ECHO_CHARACTERS]!r} is not the id of a candidate of this ranking"
            raise InvalidArgument(f"ids[{at}]", f"{problem}; leave ids empty for all of them")
    return list(dict.fromkeys(ids)) or list(known)


def _served(shown: Shown | None, query: RerankQuery | None) -> Sequence[str]:
    """The candidates' ids in the server's order, if it is known."""
    if query is not None:
        return [candidate.id for candidate in query.candidates]
    return () if shown is None else shown.ids


def _decoded(detail: bytes | None) -> Shown | None:
    try:
        return None if not detail else Shown.decode(detail)
    except ValueError:
        return None  # of another version


def _candidate_bytes(candidate: Candidate) -> int:
    parts = 3 * (len(candidate.features) + len(candidate.neighbours))
    return 512 + _item_bytes(candidate.item) + 96 * parts + 40 * len(candidate.vector)


def _item_bytes(item: Item) -> int:
    parts = len(item.tags) + 3 * len(item.attributes)
    return 512 + sys.getsizeof(item.title) + sys.getsizeof(item.text) + 96 * parts
