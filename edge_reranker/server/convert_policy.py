"""A request's policy, as ``convert`` does the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from edge_reranker.errors import InvalidArgument
from edge_reranker.server import checks, limits
from edge_reranker.types import Cap, DiversityMethod, Pin, Policy

if TYPE_CHECKING:
    from edge_reranker.v1 import rerank_service_pb2

_DIVERSITY_METHODS = {int(method): method for method in DiversityMethod}


def policy(message: rerank_service_pb2.Policy, ids: Sequence[str]) -> Policy:
    """The policy of a request for these candidates, checked; raises InvalidArgument."""
    method = _DIVERSITY_METHODS.get(message.diversity_method)
    if method is None:
        number = int(message.diversity_method)
        problem = f"{number} is not a method that this version knows; see DiversityMethod"
        raise InvalidArgument("policy.diversity_method", problem)
    checks.few("policy.caps", len(message.caps), limits.MAX_CAPS)
    return Policy(
        blocked_tags=checks.tags("policy.blocked_tags", message.blocked_tags, limits.MAX_BLOCKED_TAGS),
        pins=_pins(message.pins, ids),
        diversity=checks.share("policy.diversity", message.diversity),
        diversity_method=method,
        calibration=checks.share("policy.calibration", message.calibration),
        exploration=checks.share("policy.exploration", message.exploration),
        caps=tuple(checks.each("policy.caps[{}]", message.caps, _cap)),
    )


def _cap(message: rerank_service_pb2.Cap) -> Cap:
    if not message.HasField("most"):
        raise InvalidArgument("most", f"is not set; 0 to {limits.MAX_CANDIDATES:,} are allowed")
    if message.most > limits.MAX_CANDIDATES:
        problem = f"{message.most:,} is too many; 0 to {limits.MAX_CANDIDATES:,} are allowed"
        raise InvalidArgument("most", problem)
    window = message.window or limits.DEFAULT_CAP_WINDOW
    if window > limits.MAX_CAP_WINDOW:
        raise InvalidArgument(
            "window", f"{window:,} is too many; at most {limits.MAX_CAP_WINDOW} are allowed"
        )
    match message.WhichOneof("kind"):
        case "attribute":
            name = checks.name("attribute", message.attribute)
            if not name:
                raise InvalidArgument("attribute", "is empty; give the name of an attribute")
            return Cap(message.most, window, attribute=name)
        case "tag":
            return Cap(message.most, window, tag=checks.tag("tag", message.tag))
        case "each_tag":
            if not message.each_tag:
                raise InvalidArgument(
                    "each_tag", "false counts nobody; set it to true, or choose another kind"
                )
            return Cap(message.most, window, each_tag=True)
        case "max_age_days":
            days = checks.finite("max_age_days", message.max_age_days)
            if not 0 < days <= limits.MAX_AGE_DAYS:
                problem = f"{days:g} is outside what is allowed, above 0 and at most {limits.MAX_AGE_DAYS:,}"
                raise InvalidArgument("max_age_days", problem)
            return Cap(message.most, window, max_age_days=days)
        case _:
            names = "attribute, tag, each_tag or max_age_days"
            raise InvalidArgument("kind", f"nothing is counted; set {names}")


def _pins(messages: Iterable[rerank_service_pb2.Pin], ids: Sequence[str]) -> tuple[Pin, ...]:
    known = set(ids)
    pins: list[Pin] = []
    pinned: set[str] = set()
    taken: set[int] = set()
    for index, message in enumerate(messages):
        path = f"policy.pins[{index}]"
        if message.id not in known:
            raise InvalidArgument(f"{path}.id", f'"{checks.echo(message.id)}" is not the id of a candidate')
        if message.position >= len(ids):
            problem = f"{message.position} is past the end; less than {len(ids)} is allowed"
            raise InvalidArgument(f"{path}.position", problem)
        if message.id in pinned:
            raise InvalidArgument(
                f"{path}.id", f'"{checks.echo(message.id)}" is pinned twice; once is allowed'
            )
        if message.position in taken:
            raise InvalidArgument(f"{path}.position", f"{message.position} is taken by another pin")
        pinned.add(message.id)
        taken.add(message.position)
        pins.append(Pin(message.id, message.position))
    return tuple(pins)
