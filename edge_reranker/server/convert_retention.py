"""A rule of retention in: what it may say, and nothing that would have no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_reranker.errors import InvalidArgument
from edge_reranker.server import limits
from edge_reranker.types import EventType, Retention, TypeRetention

if TYPE_CHECKING:
    from edge_reranker.v1 import context_service_pb2

_EVENT_TYPES = {int(kind): kind for kind in EventType if kind is not EventType.UNSPECIFIED}


def rule(message: context_service_pb2.SetRetentionRequest) -> Retention:
    """The rule, checked, its types in order; raises InvalidArgument."""
    found = message.retention
    _age("retention.max_age_days", found.max_age_days)
    by_type = [_of_type(f"retention.by_type[{i}]", each, found) for i, each in enumerate(found.by_type)]
    seen: dict[EventType, int] = {}
    for index, each in enumerate(by_type):
        first = seen.setdefault(each.type, index)
        if first != index:
            problem = f"{each.type.name} appears twice, first as by_type[{first}]; once is allowed"
            raise InvalidArgument(f"retention.by_type[{index}].type", problem)
    by_type.sort(key=lambda each: each.type)
    return Retention(found.max_age_days, found.max_events, tuple(by_type))


def _of_type(
    path: str, message: context_service_pb2.TypeRetention, of_all: context_service_pb2.Retention
) -> TypeRetention:
    kind = _EVENT_TYPES.get(message.type)
    if kind is None:
        problem = f"{int(message.type)} is not a type that this version knows; see EventType"
        raise InvalidArgument(f"{path}.type", problem)
    _age(f"{path}.max_age_days", message.max_age_days)
    if not message.max_age_days and not message.max_events:
        raise InvalidArgument(
            path, f"sets nothing for {kind.name}; set max_age_days or max_events, or leave it out"
        )
    for name in ("max_age_days", "max_events"):
        given, most = getattr(message, name), getattr(of_all, name)
        if most and given > most:
            problem = f"{given:,} is more than the {most:,} for all types; at most that is allowed"
            raise InvalidArgument(f"{path}.{name}", problem)
    return TypeRetention(kind, message.max_age_days, message.max_events)


def _age(path: str, days: int) -> None:
    if days > limits.MAX_AGE_DAYS:
        raise InvalidArgument(
            path, f"{days:,} is too many; 0 (no limit) to {limits.MAX_AGE_DAYS:,} are allowed"
        )
