"""What holds whatever the scores say: blocked and muted topics, pins, and caps on the first places."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking.profile import SECONDS_A_DAY
from edge_reranker.types import Candidate, Cap, RerankQuery

Indices = NDArray[np.intp]

# Where the first try breaks a cap, a request looks at so many ways to go on for one that breaks none: about 3
# ms. Whether overlapping caps can be kept is a packing problem, hard in general.
_MAX_LOOKS = 10_000
# So many of the queue are looked at before more are needed.
_AT_ONCE = 64


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
        """Whether there is more to do than to leave out who is blocked."""
        return bool(self.pinned) or self.capped

    @property
    def capped(self) -> bool:
        """Whether there are caps."""
        return self._caps is not None

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
            (place_of[candidate.item.id], index)
            for index, candidate in enumerate(candidates)
            if candidate.item.id in place_of and self.shown[index]
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


class _Kinds(dict[int, tuple[int, ...]]):
    """What each candidate counts for, by its index, looked up when it is asked for.

    A kind is a number: one for a cap, or one for each value that a cap keeps apart. Of a kind the first
    ``windows`` places hold at most ``most``.
    """

    def __init__(self, candidates: Sequence[Candidate], caps: Sequence[Cap], now_s: float) -> None:
        super().__init__()
        self._candidates = candidates
        self._caps = caps
        self._oldest_s = [now_s - cap.max_age_days * SECONDS_A_DAY for cap in caps]
        self._apart: dict[tuple[int, str], int] = {}
        self._folded = [cap.tag.casefold() for cap in caps]
        self.most = [cap.most for cap in caps]
        self.windows = [cap.window for cap in caps]
        self.ending: dict[int, list[int]] = {}
        for number, window in enumerate(self.windows):
            self.ending.setdefault(window, []).append(number)

    def __missing__(self, index: int) -> tuple[int, ...]:
        candidate = self._candidates[index]
        found: list[int] = []
        for number, cap in enumerate(self._caps):
            if cap.attribute:
                value = candidate.item.attributes.get(cap.attribute)
                if value:
                    found.append(self._kind(number, value))
            elif cap.tag:
                if self._folded[number] in map(str.casefold, candidate.item.tags):
                    found.append(number)
            elif cap.each_tag:
                tags = dict.fromkeys(map(str.casefold, candidate.item.tags))
                found.extend({self._kind(number, tag): None for tag in tags})
            elif candidate.published_at is not None and candidate.published_at < self._oldest_s[number]:
                found.append(number)
        kinds = self[index] = tuple(found)
        return kinds

    def _kind(self, number: int, value: str) -> int:
        if not self.most[number]:
            return number  # none of any value: no need to keep them apart
        kind = self._apart.setdefault((number, value), len(self.most))
        if kind == len(self.most):
            self.most.append(self.most[number])
            self.windows.append(self.windows[number])
            self.ending[self.windows[number]].append(kind)
        return kind


class _Caps:
    """At most so many of a kind within the first places."""

    def __init__(
        self, candidates: Sequence[Candidate], caps: Sequence[Cap], pinned: Mapping[int, int], now_s: float
    ) -> None:
        self._kinds = _Kinds(candidates, caps, now_s)
        self._window = max(cap.window for cap in caps)
        self._pinned = pinned
        # What is known of partial lists does not depend on the order, so it is found out once.
        self._alike: dict[tuple[int, ...], int] = {}
        self._dead: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
        self._looks_left = _MAX_LOOKS

    def keep(self, free: Indices, n_shown: int) -> Indices:
        """``free``, best first, so that with the pins among them no cap is broken, where that is possible."""
        n_places = min(self._window, n_shown)
        head, waiting = self._first(free, n_places, stop=self._looks_left > 0)
        if head is None:
            found = self._searched(free.tolist(), waiting, n_places)
            if found is not None:
                rest = np.isin(free, found, invert=True)
                return np.concatenate([np.array(found, np.intp), free[rest]])
            head, waiting = self._first(free, n_places, stop=False)
            assert head is not None  # noqa: S101 - it does not stop
        return np.concatenate([np.array(head + waiting, np.intp), free[len(head) + len(waiting) :]])

    def _first(self, free: Indices, n_places: int, *, stop: bool) -> tuple[list[int] | None, list[int]]:
        """For each place the first that breaks nothing, and those that were passed over.

        Where there is none, takes the one that breaks fewest; with ``stop``, None and what there is so far.
        """
        kinds_of = self._kinds
        most, windows, ending = kinds_of.most, kinds_of.windows, kinds_of.ending
        counts = self._of_pins()
        full = {kind for kind in range(len(most)) if counts.get(kind, 0) >= most[kind]}
        head: list[int] = []
        waiting: list[int] = []
        fits_again = False
        queue = chain.from_iterable(free[at : at + _AT_ONCE].tolist() for at in range(0, len(free), _AT_ONCE))
        for place in range(n_places):
            if place in ending:
                full.difference_update(ending[place])
                fits_again = bool(waiting)
            if place in self._pinned:
                continue
            chosen = -1
            if fits_again:  # else counts have only grown since they were passed over
                chosen = next((index for index in waiting if full.isdisjoint(kinds_of[index])), -1)
                fits_again = chosen >= 0
                if fits_again:
                    waiting.remove(chosen)
            if chosen < 0:
                for index in queue:
                    if full.isdisjoint(kinds_of[index]):
                        chosen = index
                        break
                    waiting.append(index)
            if chosen < 0:
                if stop:
                    return None, head
                broken = [len(full.intersection(kinds_of[index])) for index in waiting[:_AT_ONCE]]
                chosen = waiting.pop(broken.index(min(broken)))
            head.append(chosen)
            for kind in kinds_of[chosen]:
                count = counts[kind] = counts.get(kind, 0) + 1
                if count >= most[kind] and place < windows[kind]:
                    full.add(kind)
        return head, waiting

    def _of_pins(self) -> dict[int, int]:
        counts: dict[int, int] = {}
        for place, index in self._pinned.items():
            for kind in self._kinds[index]:
                counts[kind] = counts.get(kind, 0) + (place < self._kinds.windows[kind])
        return counts

    def _searched(self, queue: Sequence[int], head: Sequence[int], n_places: int) -> list[int] | None:
        """The first list, by the places of the queue, that breaks no cap; None when there is none.

        Depth first from ``head`` back, over groups of candidates: those that count for the same caps differ
        only in their place in the queue, so the next of them is tried for all. A dead end is remembered by
        how many of each group were used, and how many count. None, too, when the request has no looks left.
        """
        places = [place for place in range(n_places) if place not in self._pinned]
        group_of = [self._alike.setdefault(self._kinds[index], len(self._alike)) for index in queue]
        groups, most, windows = list(self._alike), self._kinds.most, self._kinds.windows
        members: list[list[int]] = [[] for _ in groups]
        for position, group in enumerate(group_of):
            members[group].append(position)
        group_at = dict(zip(queue, group_of, strict=True))
        used = [0] * len(groups)
        of_pins = self._of_pins()
        counts = [of_pins.get(kind, 0) for kind in range(len(most))]
        chosen: list[tuple[int, int]] = []  # each place's group, and position in the queue

        def count(group: int, place: int, by: int) -> None:
            used[group] += by
            for kind in groups[group]:
                if place < windows[kind]:
                    counts[kind] += by

        for place, index in zip(places, head, strict=False):
            group = group_at[index]
            chosen.append((group, members[group][used[group]]))
            count(group, place, 1)
        after = -1
        while len(chosen) < len(places):
            if self._looks_left <= 0:
                return None
            self._looks_left -= len(members)
            place = places[len(chosen)]
            state = (tuple(used), tuple(counts))
            best = -1, len(queue)
            if state not in self._dead:
                for group, positions in enumerate(members):
                    if used[group] < len(positions) and after < positions[used[group]] < best[1]:
                        kinds = groups[group]
                        if all(place >= windows[kind] or counts[kind] < most[kind] for kind in kinds):
                            best = group, positions[used[group]]
            if best[0] >= 0:
                chosen.append(best)
                count(best[0], place, 1)
                after = -1
                continue
            self._dead.add(state)
            if not chosen:
                self._looks_left = 0  # there is none, whatever the order
                return None
            group, after = chosen.pop()
            count(group, places[len(chosen)], -1)
        return [queue[position] for _, position in chosen]
