"""What holds whatever the scores say: blocked and muted topics, pins, and caps on the first places."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking.profile import SECONDS_A_DAY
from edge_reranker.types import Candidate, Cap, RerankQuery

Indices = NDArray[np.intp]

# Where the first try breaks a cap, at most so many partial lists are looked at for one that breaks none:
# about 2 ms. Whether a set of overlapping caps can be kept is a packing problem, hard in general.
_MAX_TRIES = 1_000


class Constraints:
    """The hard part of one request's policy.

    ``blocked`` are the candidates that are not shown, ascending: with a muted topic (``muted``, casefolded),
    or with a tag that the request blocks. The user's word goes before the app's, and the app's word about one
    candidate before its word about many: a mute wins over a pin, a pin over a block of the same request.
    """

    def __init__(self, query: RerankQuery, muted: Collection[str], now_s: float) -> None:
        policy, candidates = query.policy, query.candidates
        self.n = len(candidates)
        place_of = {pin.id: pin.position for pin in policy.pins}
        muted = frozenset(muted)
        unwanted = muted.union(map(str.casefold, policy.blocked_tags))
        self.blocked: Indices = np.array(
            [
                index
                for index, tags in tagged_with(candidates, unwanted)
                if candidates[index].id not in place_of or not muted.isdisjoint(map(str.casefold, tags))
            ],
            np.intp,
        )
        self.shown = np.ones(self.n, np.bool_)
        self.shown[self.blocked] = False
        self.n_shown = self.n - len(self.blocked)
        self.pinned = self._placed(candidates, place_of)
        self.free = self.shown.copy()
        self.free[list(self.pinned.values())] = False
        self._free_places = np.ones(self.n_shown, np.bool_)
        self._free_places[list(self.pinned)] = False
        self._caps = _Caps(candidates, policy.caps, self.pinned, now_s) if policy.caps else None

    @property
    def moves(self) -> bool:
        """Whether anything but leaving out candidates is asked for."""
        return bool(self.pinned) or self._caps is not None

    def arrange(self, order: Indices) -> Indices:
        """The shown of ``order`` [n], best first, at their places: [n_shown].

        Pins are at theirs; where blocking made the list shorter than a pin's place, at its end. Where caps
        can be kept they are, and everybody else keeps the order; else, as few are broken as the next in line
        allow.
        """
        free = order[self.free[order]]
        if self._caps is not None:
            free = self._caps.keep(free, self.n_shown)
        if not self.pinned:
            return free
        result = np.empty(self.n_shown, np.intp)
        result[self._free_places] = free
        for place, index in self.pinned.items():
            result[place] = index
        return result

    def _placed(self, candidates: Sequence[Candidate], place_of: Mapping[str, int]) -> dict[int, int]:
        """The pinned candidates that are shown, by their places in what is left of the list."""
        if not place_of:
            return {}
        wanted = sorted(
            (place_of[candidate.id], index)
            for index, candidate in enumerate(candidates)
            if candidate.id in place_of and self.shown[index]
        )
        placed: dict[int, int] = {}
        last = self.n_shown
        for place, index in reversed(wanted):
            last = min(place, last - 1)
            placed[last] = index
        return placed


def tagged_with(
    candidates: Sequence[Candidate], tags: Collection[str]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The candidates with one of ``tags`` (casefolded), by index, and the tags that they have."""
    if not tags:
        return
    wanted = frozenset(tags)
    told: dict[tuple[str, ...], bool] = {}  # many have the same tags
    for index, candidate in enumerate(candidates):
        own = candidate.item.tags
        hit = told.get(own)
        if hit is None:
            hit = told[own] = not wanted.isdisjoint(map(str.casefold, own))
        if hit:
            yield index, own


class _Caps:
    """At most so many of a kind within the first places.

    Each kind is a number; a candidate counts for those in ``kinds_of``, of which the first ``windows`` places
    hold at most ``most``.
    """

    def __init__(
        self, candidates: Sequence[Candidate], caps: Sequence[Cap], pinned: Mapping[int, int], now_s: float
    ) -> None:
        kinds: dict[tuple[int, Hashable], int] = {}
        self.most: list[int] = []
        self.windows: list[int] = []
        kinds_of: list[list[int]] = [[] for _ in candidates]
        for number, cap in enumerate(caps):
            for index, kind in _kinds(cap, candidates, now_s):
                known = kinds.setdefault((number, kind), len(kinds))
                if known == len(self.most):
                    self.most.append(cap.most)
                    self.windows.append(cap.window)
                kinds_of[index].append(known)
        self.kinds_of = list(map(tuple, kinds_of))
        self.window = max((cap.window for cap in caps), default=0)
        self._ending: dict[int, list[int]] = {}
        for number, window in enumerate(self.windows):
            self._ending.setdefault(window, []).append(number)
        self.pinned = pinned
        # Whether they can be kept does not depend on the order, so it is found out once.
        self._hopeless = False

    def keep(self, free: Indices, n_shown: int) -> Indices:
        """``free``, best first, so that with the pins among them no cap is broken, where that is possible."""
        n_places = min(self.window, n_shown)
        queue = free.tolist()
        head, waiting, n_taken = self._first(queue, n_places, stop=not self._hopeless)
        if n_taken < 0:
            found = self._searched(queue, n_places)
            if found is not None:
                taken = set(found)
                return np.array([*found, *(index for index in queue if index not in taken)], np.intp)
            self._hopeless = True
            head, waiting, n_taken = self._first(queue, n_places, stop=False)
        return np.concatenate([np.array(head + waiting, np.intp), free[n_taken:]])

    def _first(
        self, queue: Sequence[int], n_places: int, *, stop: bool
    ) -> tuple[list[int], list[int], int]:
        """For each place the first that breaks nothing; those passed over; how much of the queue was used.

        Where there is none: -1 is how much, or with ``stop`` false the one is taken that breaks fewest.
        """
        counts = self._of_pins()
        full = {kind for kind, count in enumerate(counts) if count >= self.most[kind]}
        kinds_of, most = self.kinds_of, self.most
        head: list[int] = []
        waiting: list[int] = []
        fits_again = False
        at = 0
        for place in range(n_places):
            if place in self._ending:
                full.difference_update(self._ending[place])
                fits_again = bool(waiting)
            if place in self.pinned:
                continue
            chosen = -1
            if fits_again:  # else counts have only grown since they were passed over
                fits_again = False
                chosen = next((index for index in waiting if full.isdisjoint(kinds_of[index])), -1)
                if chosen >= 0:
                    waiting.remove(chosen)
                    fits_again = True
            while chosen < 0 and at < len(queue):
                index = queue[at]
                at += 1
                if full.isdisjoint(kinds_of[index]):
                    chosen = index
                else:
                    waiting.append(index)
            if chosen < 0:
                if stop:
                    return head, waiting, -1
                broken = [len(full.intersection(kinds_of[index])) for index in waiting]
                chosen = waiting.pop(broken.index(min(broken)))
            head.append(chosen)
            for kind in kinds_of[chosen]:
                counts[kind] += 1
                if counts[kind] >= most[kind] and place < self.windows[kind]:
                    full.add(kind)
        return head, waiting, at

    def _of_pins(self) -> list[int]:
        counts = [0] * len(self.most)
        for place, index in self.pinned.items():
            for kind in self.kinds_of[index]:
                counts[kind] += place < self.windows[kind]
        return counts

    def _fits(self, index: int, place: int, counts: Sequence[int]) -> bool:
        for kind in self.kinds_of[index]:
            if place < self.windows[kind] and counts[kind] >= self.most[kind]:
                return False
        return True

    def _searched(self, queue: Sequence[int], n_places: int) -> list[int] | None:
        """The first list, by the places of the queue, that breaks no cap; None when there is none.

        Depth first over kinds of candidates: those that count for the same caps differ only in their place in
        the queue, so the next of them is tried for all. A dead end is remembered by how many of each were
        used, and how many count.
        """
        places = [place for place in range(n_places) if place not in self.pinned]
        alike: dict[tuple[int, ...], list[int]] = {}
        for place, index in enumerate(queue):
            alike.setdefault(self.kinds_of[index], []).append(place)
        groups = list(alike.items())
        used = [0] * len(groups)
        counts = self._of_pins()
        found: list[int] = []
        dead: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
        tries = 0

        def filled(depth: int) -> bool:
            nonlocal tries
            if depth == len(places):
                return True
            tries += 1
            state = (tuple(used), tuple(counts))
            if tries > _MAX_TRIES or state in dead:
                return False
            place = places[depth]
            next_up = sorted(
                (members[used[group]], group)
                for group, (_, members) in enumerate(groups)
                if used[group] < len(members) and self._fits(queue[members[0]], place, counts)
            )
            for at, group in next_up:
                within = [kind for kind in groups[group][0] if place < self.windows[kind]]
                used[group] += 1
                for kind in within:
                    counts[kind] += 1
                found.append(queue[at])
                if filled(depth + 1):
                    return True
                found.pop()
                used[group] -= 1
                for kind in within:
                    counts[kind] -= 1
            dead.add(state)
            return False

        return found if filled(0) else None


def _kinds(cap: Cap, candidates: Sequence[Candidate], now_s: float) -> Iterator[tuple[int, Hashable]]:
    """The candidates that ``cap`` counts, each with what it counts as; one of many tags is of many kinds."""
    if cap.attribute:
        for index, candidate in enumerate(candidates):
            value = candidate.item.attributes.get(cap.attribute)
            if value:
                yield index, value
    elif cap.tag:
        for index, _ in tagged_with(candidates, (cap.tag.casefold(),)):
            yield index, cap.tag
    elif cap.each_tag:
        for index, candidate in enumerate(candidates):
            for tag in dict.fromkeys(map(str.casefold, candidate.item.tags)):
                yield index, tag
    elif not math.isnan(cap.max_age_days):
        oldest_s = now_s - cap.max_age_days * SECONDS_A_DAY
        for index, candidate in enumerate(candidates):
            if candidate.published_at is not None and candidate.published_at < oldest_s:
                yield index, None
