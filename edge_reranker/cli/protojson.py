"""The protos' JSON mapping, with the short enum names that people type."""

from __future__ import annotations

import json
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from edge_reranker.errors import InvalidArgument
from edge_reranker.types import DiversityMethod, Effort, EventType

M = TypeVar("M", bound=Message)


def parse(text: str, message: M, where: str) -> M:
    """Fills ``message`` from JSON text. Raises InvalidArgument that names ``where``."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(where, f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgument(where, "must be a JSON object")
    try:
        return json_format.ParseDict(_long_names(value), message)
    except SystemError:  # protobuf's own, for a name with half a surrogate pair
        problem = "a name in it is not valid Unicode text"
    except (json_format.ParseError, OverflowError, ValueError) as error:
        problem = " ".join(str(error).split())
    name = message.DESCRIPTOR.name
    raise InvalidArgument(where, f"not {'an' if name[0] in 'AEIOU' else 'a'} {name}: {problem}")


def dump(message: Message, *, indent: int | None = None) -> str:
    """JSON text of a message; one line unless ``indent`` is given."""
    return json_format.MessageToJson(message, indent=indent, ensure_ascii=False)


def _long_names(value: dict[str, object]) -> dict[str, object]:
    """{"type": "LIKE"} becomes {"type": "EVENT_TYPE_LIKE"}; so do an effort and a policy's method."""
    name, policy, effort = value.get("type"), value.get("policy"), value.get("effort")
    if isinstance(effort, str) and effort in Effort.__members__:
        value = {**value, "effort": f"EFFORT_{effort}"}
    if isinstance(name, str) and name in EventType.__members__:
        value = {**value, "type": f"EVENT_TYPE_{name}"}
    if isinstance(policy, dict):
        for field in ("diversityMethod", "diversity_method"):
            method = policy.get(field)
            if isinstance(method, str) and method in DiversityMethod.__members__:
                value = {**value, "policy": {**policy, field: f"DIVERSITY_METHOD_{method}"}}
    return value
