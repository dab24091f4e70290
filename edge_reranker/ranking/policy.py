"""What the list must look like, whatever the scores say."""

from __future__ import annotations

from collections.abc import Sequence

from edge_reranker.types import RerankQuery


def apply(order: Sequence[int], query: RerankQuery) -> list[int]:
    """Put candidates with a blocked tag last and pinned ones at their place.

    ``order`` is a permutation of the candidates' indices, best first; so is the answer. All others keep
    their relative order. A pin wins over a block: the app named this one candidate. Pins must name
    candidates of the request and distinct places in the list (the edge has checked it).
    """
    blocked_tags = {tag.casefold() for tag in query.policy.blocked_tags}
    candidates = query.candidates

    def blocked(index: int) -> bool:
        return any(tag.casefold() in blocked_tags for tag in candidates[index].item.tags)

    place_of = {pin.id: pin.position for pin in query.policy.pins}
    pinned = {
        place_of[candidate.id]: index
        for index, candidate in enumerate(candidates)
        if candidate.id in place_of
    }
    kept = set(pinned.values())
    free = [index for index in order if index not in kept]
    if blocked_tags:
        free.sort(key=blocked)
    rest = iter(free)
    return [pinned[place] if place in pinned else next(rest) for place in range(len(order))]
