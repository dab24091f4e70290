import datetime

from edge_reranker.v1 import types_pb2 as _types_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DiversityMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIVERSITY_METHOD_UNSPECIFIED: _ClassVar[DiversityMethod]
    DIVERSITY_METHOD_MMR: _ClassVar[DiversityMethod]
    DIVERSITY_METHOD_DPP: _ClassVar[DiversityMethod]

class Effort(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EFFORT_UNSPECIFIED: _ClassVar[Effort]
    EFFORT_SETTLED: _ClassVar[Effort]
    EFFORT_FULL: _ClassVar[Effort]

class DegradedReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEGRADED_REASON_UNSPECIFIED: _ClassVar[DegradedReason]
    DEGRADED_REASON_NO_MODEL: _ClassVar[DegradedReason]
    DEGRADED_REASON_MODEL_UNAVAILABLE: _ClassVar[DegradedReason]
    DEGRADED_REASON_MODEL_BUSY: _ClassVar[DegradedReason]
    DEGRADED_REASON_DEADLINE: _ClassVar[DegradedReason]
    DEGRADED_REASON_PACK_INVALID: _ClassVar[DegradedReason]
    DEGRADED_REASON_STORE_UNAVAILABLE: _ClassVar[DegradedReason]
    DEGRADED_REASON_NO_HISTORY: _ClassVar[DegradedReason]
    DEGRADED_REASON_SERVER_PREFERRED: _ClassVar[DegradedReason]

class ReasonsMissing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASONS_MISSING_UNSPECIFIED: _ClassVar[ReasonsMissing]
    REASONS_MISSING_NOT_KEPT: _ClassVar[ReasonsMissing]
    REASONS_MISSING_NOT_SCORED: _ClassVar[ReasonsMissing]
    REASONS_MISSING_DEADLINE: _ClassVar[ReasonsMissing]
DIVERSITY_METHOD_UNSPECIFIED: DiversityMethod
DIVERSITY_METHOD_MMR: DiversityMethod
DIVERSITY_METHOD_DPP: DiversityMethod
EFFORT_UNSPECIFIED: Effort
EFFORT_SETTLED: Effort
EFFORT_FULL: Effort
DEGRADED_REASON_UNSPECIFIED: DegradedReason
DEGRADED_REASON_NO_MODEL: DegradedReason
DEGRADED_REASON_MODEL_UNAVAILABLE: DegradedReason
DEGRADED_REASON_MODEL_BUSY: DegradedReason
DEGRADED_REASON_DEADLINE: DegradedReason
DEGRADED_REASON_PACK_INVALID: DegradedReason
DEGRADED_REASON_STORE_UNAVAILABLE: DegradedReason
DEGRADED_REASON_NO_HISTORY: DegradedReason
DEGRADED_REASON_SERVER_PREFERRED: DegradedReason
REASONS_MISSING_UNSPECIFIED: ReasonsMissing
REASONS_MISSING_NOT_KEPT: ReasonsMissing
REASONS_MISSING_NOT_SCORED: ReasonsMissing
REASONS_MISSING_DEADLINE: ReasonsMissing

class Policy(_message.Message):
    __slots__ = ("diversity", "calibration", "exploration", "blocked_tags", "pins", "diversity_method", "caps")
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    EXPLORATION_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_TAGS_FIELD_NUMBER: _ClassVar[int]
    PINS_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_METHOD_FIELD_NUMBER: _ClassVar[int]
    CAPS_FIELD_NUMBER: _ClassVar[int]
    diversity: float
    calibration: float
    exploration: float
    blocked_tags: _containers.RepeatedScalarFieldContainer[str]
    pins: _containers.RepeatedCompositeFieldContainer[Pin]
    diversity_method: DiversityMethod
    caps: _containers.RepeatedCompositeFieldContainer[Cap]
    def __init__(self, diversity: _Optional[float] = ..., calibration: _Optional[float] = ..., exploration: _Optional[float] = ..., blocked_tags: _Optional[_Iterable[str]] = ..., pins: _Optional[_Iterable[_Union[Pin, _Mapping]]] = ..., diversity_method: _Optional[_Union[DiversityMethod, str]] = ..., caps: _Optional[_Iterable[_Union[Cap, _Mapping]]] = ...) -> None: ...

class Cap(_message.Message):
    __slots__ = ("attribute", "tag", "each_tag", "max_age_days", "most", "window")
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    EACH_TAG_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_DAYS_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    attribute: str
    tag: str
    each_tag: bool
    max_age_days: float
    most: int
    window: int
    def __init__(self, attribute: _Optional[str] = ..., tag: _Optional[str] = ..., each_tag: bool = ..., max_age_days: _Optional[float] = ..., most: _Optional[int] = ..., window: _Optional[int] = ...) -> None: ...

class Pin(_message.Message):
    __slots__ = ("id", "position")
    ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    id: str
    position: int
    def __init__(self, id: _Optional[str] = ..., position: _Optional[int] = ...) -> None: ...

class RerankRequest(_message.Message):
    __slots__ = ("candidates", "query", "surface", "session_id", "top_n", "budget_ms", "policy", "context", "effort")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    EFFORT_FIELD_NUMBER: _ClassVar[int]
    candidates: _containers.RepeatedCompositeFieldContainer[_types_pb2.Candidate]
    query: str
    surface: str
    session_id: str
    top_n: int
    budget_ms: int
    policy: Policy
    context: _containers.ScalarMap[str, str]
    effort: Effort
    def __init__(self, candidates: _Optional[_Iterable[_Union[_types_pb2.Candidate, _Mapping]]] = ..., query: _Optional[str] = ..., surface: _Optional[str] = ..., session_id: _Optional[str] = ..., top_n: _Optional[int] = ..., budget_ms: _Optional[int] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., context: _Optional[_Mapping[str, str]] = ..., effort: _Optional[_Union[Effort, str]] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("id", "tier")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    id: str
    tier: int
    def __init__(self, id: _Optional[str] = ..., tier: _Optional[int] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue_ms", "context_ms", "tier0_ms", "tier1_ms", "tier2_ms", "fusion_ms", "total_ms")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_MS_FIELD_NUMBER: _ClassVar[int]
    TIER0_MS_FIELD_NUMBER: _ClassVar[int]
    TIER1_MS_FIELD_NUMBER: _ClassVar[int]
    TIER2_MS_FIELD_NUMBER: _ClassVar[int]
    FUSION_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    context_ms: float
    tier0_ms: float
    tier1_ms: float
    tier2_ms: float
    fusion_ms: float
    total_ms: float
    def __init__(self, queue_ms: _Optional[float] = ..., context_ms: _Optional[float] = ..., tier0_ms: _Optional[float] = ..., tier1_ms: _Optional[float] = ..., tier2_ms: _Optional[float] = ..., fusion_ms: _Optional[float] = ..., total_ms: _Optional[float] = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("ranking_id", "results", "coverage", "degraded_reason", "timings", "model", "pack", "final", "settled", "blocked_ids")
    RANKING_ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_REASON_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PACK_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_IDS_FIELD_NUMBER: _ClassVar[int]
    ranking_id: str
    results: _containers.RepeatedCompositeFieldContainer[Result]
    coverage: float
    degraded_reason: DegradedReason
    timings: Timings
    model: str
    pack: str
    final: bool
    settled: bool
    blocked_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ranking_id: _Optional[str] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ..., coverage: _Optional[float] = ..., degraded_reason: _Optional[_Union[DegradedReason, str]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., model: _Optional[str] = ..., pack: _Optional[str] = ..., final: bool = ..., settled: bool = ..., blocked_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class RerankStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: RerankRequest
    def __init__(self, request: _Optional[_Union[RerankRequest, _Mapping]] = ...) -> None: ...

class RerankStreamResponse(_message.Message):
    __slots__ = ("response",)
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    response: RerankResponse
    def __init__(self, response: _Optional[_Union[RerankResponse, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("ranking_id", "ids", "namespace")
    RANKING_ID_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ranking_id: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    namespace: str
    def __init__(self, ranking_id: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., namespace: _Optional[str] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("feature", "value")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    feature: str
    value: float
    def __init__(self, feature: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class Feature(_message.Message):
    __slots__ = ("name", "group", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    group: str
    description: str
    def __init__(self, name: _Optional[str] = ..., group: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("event_id", "namespace", "type", "title", "item_id", "occurred_at", "score_change", "place_change", "feature", "text")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    SCORE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    PLACE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    namespace: str
    type: _types_pb2.EventType
    title: str
    item_id: str
    occurred_at: _timestamp_pb2.Timestamp
    score_change: float
    place_change: int
    feature: str
    text: str
    def __init__(self, event_id: _Optional[str] = ..., namespace: _Optional[str] = ..., type: _Optional[_Union[_types_pb2.EventType, str]] = ..., title: _Optional[str] = ..., item_id: _Optional[str] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., score_change: _Optional[float] = ..., place_change: _Optional[int] = ..., feature: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("id", "score", "contributions", "event_ids", "tier", "server_place", "place", "score_place", "reasons", "title", "topics")
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    EVENT_IDS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    SERVER_PLACE_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    SCORE_PLACE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    id: str
    score: float
    contributions: _containers.RepeatedCompositeFieldContainer[Contribution]
    event_ids: _containers.RepeatedScalarFieldContainer[str]
    tier: int
    server_place: int
    place: int
    score_place: int
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    title: str
    topics: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., score: _Optional[float] = ..., contributions: _Optional[_Iterable[_Union[Contribution, _Mapping]]] = ..., event_ids: _Optional[_Iterable[str]] = ..., tier: _Optional[int] = ..., server_place: _Optional[int] = ..., place: _Optional[int] = ..., score_place: _Optional[int] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., title: _Optional[str] = ..., topics: _Optional[_Iterable[str]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("explanations", "features", "reasons_missing", "degraded_reason", "reading_held")
    EXPLANATIONS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    REASONS_MISSING_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_REASON_FIELD_NUMBER: _ClassVar[int]
    READING_HELD_FIELD_NUMBER: _ClassVar[int]
    explanations: _containers.RepeatedCompositeFieldContainer[Explanation]
    features: _containers.RepeatedCompositeFieldContainer[Feature]
    reasons_missing: ReasonsMissing
    degraded_reason: DegradedReason
    reading_held: bool
    def __init__(self, explanations: _Optional[_Iterable[_Union[Explanation, _Mapping]]] = ..., features: _Optional[_Iterable[_Union[Feature, _Mapping]]] = ..., reasons_missing: _Optional[_Union[ReasonsMissing, str]] = ..., degraded_reason: _Optional[_Union[DegradedReason, str]] = ..., reading_held: bool = ...) -> None: ...
