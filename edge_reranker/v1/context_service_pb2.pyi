import datetime

from edge_reranker.v1 import types_pb2 as _types_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecordEventsRequest(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_types_pb2.Event]
    def __init__(self, events: _Optional[_Iterable[_Union[_types_pb2.Event, _Mapping]]] = ...) -> None: ...

class RecordEventsResponse(_message.Message):
    __slots__ = ("recorded", "duplicates")
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    recorded: int
    duplicates: int
    def __init__(self, recorded: _Optional[int] = ..., duplicates: _Optional[int] = ...) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListEventsResponse(_message.Message):
    __slots__ = ("events", "next_page_token")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_types_pb2.Event]
    next_page_token: str
    def __init__(self, events: _Optional[_Iterable[_Union[_types_pb2.Event, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class TimeRange(_message.Message):
    __slots__ = ("to",)
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    to: _timestamp_pb2.Timestamp
    def __init__(self, to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., **kwargs) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ("event_id", "item_id", "type", "time_range", "all", "tag", "all_namespaces", "namespace", "dry_run")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TIME_RANGE_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    ALL_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    item_id: str
    type: _types_pb2.EventType
    time_range: TimeRange
    all: bool
    tag: str
    all_namespaces: bool
    namespace: str
    dry_run: bool
    def __init__(self, event_id: _Optional[str] = ..., item_id: _Optional[str] = ..., type: _Optional[_Union[_types_pb2.EventType, str]] = ..., time_range: _Optional[_Union[TimeRange, _Mapping]] = ..., all: bool = ..., tag: _Optional[str] = ..., all_namespaces: bool = ..., namespace: _Optional[str] = ..., dry_run: bool = ...) -> None: ...

class ForgetResponse(_message.Message):
    __slots__ = ("events", "items", "vectors", "rankings", "prefixes", "backups", "remaining_digest", "choices")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    RANKINGS_FIELD_NUMBER: _ClassVar[int]
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    BACKUPS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    events: int
    items: int
    vectors: int
    rankings: int
    prefixes: int
    backups: int
    remaining_digest: str
    choices: int
    def __init__(self, events: _Optional[int] = ..., items: _Optional[int] = ..., vectors: _Optional[int] = ..., rankings: _Optional[int] = ..., prefixes: _Optional[int] = ..., backups: _Optional[int] = ..., remaining_digest: _Optional[str] = ..., choices: _Optional[int] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    def __init__(self, namespace: _Optional[str] = ...) -> None: ...

class ExportResponse(_message.Message):
    __slots__ = ("chunk",)
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    def __init__(self, chunk: _Optional[bytes] = ...) -> None: ...

class ImportRequest(_message.Message):
    __slots__ = ("chunk", "namespace")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    namespace: str
    def __init__(self, chunk: _Optional[bytes] = ..., namespace: _Optional[str] = ...) -> None: ...

class ImportResponse(_message.Message):
    __slots__ = ("recorded", "duplicates")
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    recorded: int
    duplicates: int
    def __init__(self, recorded: _Optional[int] = ..., duplicates: _Optional[int] = ...) -> None: ...

class GetProfileRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    def __init__(self, namespace: _Optional[str] = ...) -> None: ...

class Belief(_message.Message):
    __slots__ = ("topic", "weight", "event_ids")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    EVENT_IDS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    weight: float
    event_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, topic: _Optional[str] = ..., weight: _Optional[float] = ..., event_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetProfileResponse(_message.Message):
    __slots__ = ("beliefs",)
    BELIEFS_FIELD_NUMBER: _ClassVar[int]
    beliefs: _containers.RepeatedCompositeFieldContainer[Belief]
    def __init__(self, beliefs: _Optional[_Iterable[_Union[Belief, _Mapping]]] = ...) -> None: ...

class MuteTopicRequest(_message.Message):
    __slots__ = ("topic",)
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    topic: str
    def __init__(self, topic: _Optional[str] = ...) -> None: ...

class MuteTopicResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnmuteTopicRequest(_message.Message):
    __slots__ = ("topic",)
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    topic: str
    def __init__(self, topic: _Optional[str] = ...) -> None: ...

class UnmuteTopicResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TypeRetention(_message.Message):
    __slots__ = ("type", "max_age_days", "max_events")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_DAYS_FIELD_NUMBER: _ClassVar[int]
    MAX_EVENTS_FIELD_NUMBER: _ClassVar[int]
    type: _types_pb2.EventType
    max_age_days: int
    max_events: int
    def __init__(self, type: _Optional[_Union[_types_pb2.EventType, str]] = ..., max_age_days: _Optional[int] = ..., max_events: _Optional[int] = ...) -> None: ...

class Retention(_message.Message):
    __slots__ = ("max_age_days", "max_events", "by_type")
    MAX_AGE_DAYS_FIELD_NUMBER: _ClassVar[int]
    MAX_EVENTS_FIELD_NUMBER: _ClassVar[int]
    BY_TYPE_FIELD_NUMBER: _ClassVar[int]
    max_age_days: int
    max_events: int
    by_type: _containers.RepeatedCompositeFieldContainer[TypeRetention]
    def __init__(self, max_age_days: _Optional[int] = ..., max_events: _Optional[int] = ..., by_type: _Optional[_Iterable[_Union[TypeRetention, _Mapping]]] = ...) -> None: ...

class GetRetentionRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    def __init__(self, namespace: _Optional[str] = ...) -> None: ...

class GetRetentionResponse(_message.Message):
    __slots__ = ("retention", "reckoned_to", "sweeping")
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    RECKONED_TO_FIELD_NUMBER: _ClassVar[int]
    SWEEPING_FIELD_NUMBER: _ClassVar[int]
    retention: Retention
    reckoned_to: _timestamp_pb2.Timestamp
    sweeping: bool
    def __init__(self, retention: _Optional[_Union[Retention, _Mapping]] = ..., reckoned_to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sweeping: bool = ...) -> None: ...

class SetRetentionRequest(_message.Message):
    __slots__ = ("retention", "namespace")
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    retention: Retention
    namespace: str
    def __init__(self, retention: _Optional[_Union[Retention, _Mapping]] = ..., namespace: _Optional[str] = ...) -> None: ...

class SetRetentionResponse(_message.Message):
    __slots__ = ("retention",)
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    retention: Retention
    def __init__(self, retention: _Optional[_Union[Retention, _Mapping]] = ...) -> None: ...
