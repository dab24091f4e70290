from edge_reranker.v1 import types_pb2 as _types_pb2
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
DIVERSITY_METHOD_UNSPECIFIED: DiversityMethod
DIVERSITY_METHOD_MMR: DiversityMethod
DIVERSITY_METHOD_DPP: DiversityMethod
DEGRADED_REASON_UNSPECIFIED: DegradedReason
DEGRADED_REASON_NO_MODEL: DegradedReason
DEGRADED_REASON_MODEL_UNAVAILABLE: DegradedReason
DEGRADED_REASON_MODEL_BUSY: DegradedReason
DEGRADED_REASON_DEADLINE: DegradedReason
DEGRADED_REASON_PACK_INVALID: DegradedReason
DEGRADED_REASON_STORE_UNAVAILABLE: DegradedReason
DEGRADED_REASON_NO_HISTORY: DegradedReason

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
    __slots__ = ("candidates", "query", "surface", "session_id", "top_n", "budget_ms", "policy")
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    candidates: _containers.RepeatedCompositeFieldContainer[_types_pb2.Candidate]
    query: str
    surface: str
    session_id: str
    top_n: int
    budget_ms: int
    policy: Policy
    def __init__(self, candidates: _Optional[_Iterable[_Union[_types_pb2.Candidate, _Mapping]]] = ..., query: _Optional[str] = ..., surface: _Optional[str] = ..., session_id: _Optional[str] = ..., top_n: _Optional[int] = ..., budget_ms: _Optional[int] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("ranking_id", "results", "coverage", "degraded_reason", "timings", "model", "pack", "final", "blocked_ids")
    RANKING_ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_REASON_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PACK_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_IDS_FIELD_NUMBER: _ClassVar[int]
    ranking_id: str
    results: _containers.RepeatedCompositeFieldContainer[Result]
    coverage: float
    degraded_reason: DegradedReason
    timings: Timings
    model: str
    pack: str
    final: bool
    blocked_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ranking_id: _Optional[str] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ..., coverage: _Optional[float] = ..., degraded_reason: _Optional[_Union[DegradedReason, str]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., model: _Optional[str] = ..., pack: _Optional[str] = ..., final: bool = ..., blocked_ids: _Optional[_Iterable[str]] = ...) -> None: ...

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
    __slots__ = ("ranking_id", "ids")
    RANKING_ID_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    ranking_id: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ranking_id: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("feature", "value")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    feature: str
    value: float
    def __init__(self, feature: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("id", "score", "contributions", "event_ids")
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    EVENT_IDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    score: float
    contributions: _containers.RepeatedCompositeFieldContainer[Contribution]
    event_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., score: _Optional[float] = ..., contributions: _Optional[_Iterable[_Union[Contribution, _Mapping]]] = ..., event_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("explanations",)
    EXPLANATIONS_FIELD_NUMBER: _ClassVar[int]
    explanations: _containers.RepeatedCompositeFieldContainer[Explanation]
    def __init__(self, explanations: _Optional[_Iterable[_Union[Explanation, _Mapping]]] = ...) -> None: ...
