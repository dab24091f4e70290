"""What is wrong with an argument; asked only once converting it has failed, so good ones pay nothing."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from edge_reranker.v1 import types_pb2
from edge_reranker_client import records
from edge_reranker_client.errors import InvalidArgument

ODD: Final = (AttributeError, OverflowError, TypeError, ValueError)
"""What converting a bad argument raises, from Python or from protobuf."""

LONE: Final = (str, bytes, bytearray, dict)
"""Types that Python takes for a list of their parts, which nobody means."""

TEXT: Final = "valid Unicode text"
_COUNT: Final = "a whole number from 0 to 4,294,967,295"
_NUMBER: Final = "a finite number"

_TYPES: Final = ", ".join(name.removeprefix("EVENT_TYPE_") for name in types_pb2.EventType.keys()[1:])

# By annotation: what is allowed there, and in each part of it.
_ALLOWED: Final[Mapping[str, tuple[str, str]]] = {
    "str": (TEXT, ""),
    "str | None": (f"{TEXT}, or None", ""),
    "bool | None": ("True, False or None", ""),
    "int": (_COUNT, ""),
    "int | None": (f"{_COUNT}, or None", ""),
    "float": (_NUMBER, ""),
    "float | None": (f"{_NUMBER}, or None", ""),
    "datetime.datetime | float | None": ("a datetime, seconds since 1970, or None", ""),
    "Sequence[str]": ("a list of texts", TEXT),
    "Sequence[float]": ("a list of numbers", _NUMBER),
    "Sequence[Neighbour]": ("a list of neighbours", ""),
    "Sequence[Pin]": ("a list of pins", ""),
    "Sequence[Cap]": ("a list of caps", ""),
    "Sequence[TypeRetention]": ("a list of rules for types", ""),
    "Mapping[str, str]": ("a mapping from Unicode text to text", TEXT),
    "Mapping[str, float]": ("a mapping from Unicode text to numbers", _NUMBER),
    "Item | None": ("an Item, a mapping or None", ""),
}
_NESTED: Final[Mapping[str, type]] = {
    "Sequence[Neighbour]": records.Neighbour,
    "Sequence[Pin]": records.Pin,
    "Sequence[Cap]": records.Cap,
    "Sequence[TypeRetention]": records.TypeRetention,
    "Item | None": records.Item,
}
# A good record of each kind: with one field of a bad record put in, it tells whether that field is bad.
_GOOD: Final[Mapping[type, Any]] = {
    records.Candidate: records.Candidate("1"),
    records.Cap: records.Cap(1),
    records.Event: records.Event("VIEW"),
    records.Item: records.Item("1"),
    records.Neighbour: records.Neighbour("1", 1.0),
    records.Pin: records.Pin("1", 0),
    records.Policy: records.Policy(),
    records.Retention: records.Retention(),
    records.TypeRetention: records.TypeRetention("VIEW"),
}

Converters = Mapping[type, Callable[[Any], object]]


def bad(path: str, value: object, allowed: str) -> InvalidArgument:
    """The error about one value."""
    return InvalidArgument(f"{path}: {_shown(value)} is not {allowed}")


def several(path: str, kind: type, given: Iterable[object], converters: Converters) -> InvalidArgument:
    """The error about the first bad record among ``given``."""
    for index, each in enumerate(given):
        if _fails(converters[kind], each):
            return record(f"{path}[{index}]", kind, each, converters)
    return InvalidArgument(f"{path}: one of them cannot be sent")


def record(path: str, kind: type, given: object, converters: Converters) -> InvalidArgument:
    """The error about a bad record of this kind, or a mapping that stands for one."""
    name = f"{article(kind.__name__)} {kind.__name__}"
    if not isinstance(given, (kind, Mapping)):
        return bad(path, given, f"{name} or a mapping")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if isinstance(given, Mapping):
        for key in given:
            if key not in fields:
                problem = f"there is no field {_shown(key)}; {name} has {', '.join(fields)}"
                return InvalidArgument(f"{path}: {problem}")
        values = dict(given)
    else:
        values = {key: getattr(given, key) for key in fields}
    for key, field in fields.items():
        if key not in values:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                return InvalidArgument(f"{path}.{key}: is not given; {name} needs it")
            continue
        alone = _alone(converters[kind], kind, key)
        if _fails(alone, values[key]):
            return _field(f"{path}.{key}", kind, field, values[key], converters)
    if kind is records.Cap:
        kinds = "attribute, tag, each_tag and max_age_days"
        return InvalidArgument(
            f"{path}: {_shown(given)} counts several kinds; it needs exactly one of {kinds}"
        )
    return InvalidArgument(f"{path}: {_shown(given)} cannot be sent")


def message(kind: Any, values: Mapping[str, object]) -> InvalidArgument:
    """The error about the first of ``values`` that the message ``kind`` cannot have."""
    for name, value in values.items():
        if isinstance(value, bool) or _fails(lambda alone: kind(**alone), {name: value}):
            is_text = kind.DESCRIPTOR.fields_by_name[name].cpp_type == FieldDescriptor.CPPTYPE_STRING
            return bad(name, value, TEXT if is_text else _COUNT)
    return InvalidArgument(f"{', '.join(values)}: cannot be sent")


def texts(path: str, given: object) -> InvalidArgument:
    """The error about a bad mapping from texts to texts: about the part that is bad, if it is a mapping."""
    allowed, allowed_part = _ALLOWED["Mapping[str, str]"]
    for part, alone, shown in _parts("Mapping[str, str]", given):
        if _fails(lambda each: types_pb2.Item(attributes=each), alone):
            return bad(path + part, shown, allowed_part)
    return bad(path, given, allowed)


def article(word: str) -> str:
    """Which of "a" and "an" goes before the word."""
    return "an" if word[0] in "AEIOU" else "a"


def _field(
    path: str, kind: type, field: dataclasses.Field[Any], value: Any, converters: Converters
) -> InvalidArgument:
    """The error about a bad field: about the part of it that is bad, where it is the right kind of whole."""
    annotation = str(field.type)
    nested = _NESTED.get(annotation)
    if nested is records.Item and value is not None and isinstance(value, (records.Item, Mapping)):
        return record(path, nested, value, converters)
    allowed, allowed_part = _ALLOWED[annotation]
    if field.name == "type" and kind in (records.Event, records.TypeRetention):
        allowed = f"one of {_TYPES}"
    if field.name == "diversity_method":
        allowed = "MMR, DPP or empty"
    for part, alone, shown in _parts(annotation, value):
        if nested is not None:
            if _fails(converters[nested], shown):
                return record(path + part, nested, shown, converters)
        elif _fails(_alone(converters[kind], kind, field.name), alone):
            return bad(path + part, shown, allowed_part)
    return bad(path, value, allowed)


def _parts(annotation: str, value: Any) -> Iterator[tuple[str, Any, Any]]:
    """For each part of a list or mapping: its place, the field's value with only this part, the part."""
    if annotation.startswith("Mapping") and isinstance(value, Mapping):
        for key, each in value.items():
            # A bad name is the whole's fault: that is not a mapping from text.
            if not _fails(lambda name: types_pb2.Item(id=name), key):
                yield f"[{_shown(key)}]", {key: each}, each
    elif annotation.startswith("Sequence") and isinstance(value, Iterable) and not isinstance(value, LONE):
        for index, each in enumerate(value):
            yield f"[{index}]", [each], each


def _alone(convert: Callable[[Any], object], kind: type, name: str) -> Callable[[Any], object]:
    """Converts a record that is good but for this field."""
    return lambda value: convert(dataclasses.replace(_GOOD[kind], **{name: value}))


def _shown(value: object) -> str:
    """The value, short and on one line."""
    return "".join(c if c.isprintable() else " " for c in reprlib.repr(value))


def _fails(convert: Callable[[Any], object], value: object) -> bool:
    try:
        convert(value)
    except ODD:
        return True
    return False
