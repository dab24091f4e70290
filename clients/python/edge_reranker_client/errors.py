"""What can go wrong, as a caller sees it.

EdgeRerankerError            anything; the message says what happened and what to do
├── InvalidArgument          the input is bad: field, value, limit; or the request is too large
├── Unauthenticated          no token, or one that the service does not know
├── PermissionDenied         the call needs the owner's token
├── NotFound                 the named thing is not there
├── NotAvailableYet          this version of the service cannot do it
├── Overloaded               too many calls at once, or an answer that is too large
├── FailedPrecondition       something must be done first
│   ├── AlreadyRunning       another service holds the data directory
│   ├── Missing              a model, data set or optional package is not installed
│   ├── ModelInvalid         a model file is not what it should be
│   └── PackInvalid          a pack is not what it should be
├── StoreError               the store cannot do it
│   ├── StoreFull            no space is left on the device; nothing was stored
│   ├── StoreBusy            too many writers are waiting; nothing was stored
│   └── StoreCorrupt         the store is damaged, or its key is wrong
├── EngineError              the model's worker cannot do it
│   ├── EngineBusy           no turn came before the deadline
│   └── EngineDied           the worker stopped in the middle
├── ServiceUnavailable       nothing answers at the socket
│   └── Stopping             the service is shutting down
├── DeadlineExceeded         no answer came in time
└── Cancelled                the call was cancelled
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import grpc

KIND_KEY: Final = "edge-reranker-error"
"""Trailing metadata in which the service names its error's class."""


class EdgeRerankerError(Exception):
    """Base of all errors; ``status`` is the gRPC status, None when no call was made."""

    status: grpc.StatusCode | None = None


class InvalidArgument(EdgeRerankerError):
    """The input is bad; the message names field, value and limit."""


class Unauthenticated(EdgeRerankerError):
    """No token, or one that the service does not know."""


class PermissionDenied(EdgeRerankerError):
    """The call needs the owner's token: ``EdgeReranker(owner=True)``."""


class NotFound(EdgeRerankerError):
    """The named thing is not there."""


class NotAvailableYet(EdgeRerankerError):
    """This version of the service cannot do it."""


class Overloaded(EdgeRerankerError):
    """Too many calls at once, or an answer that is too large."""


class FailedPrecondition(EdgeRerankerError):
    """Something must be done first; the message says what."""


class AlreadyRunning(FailedPrecondition):
    """Another service holds the data directory."""


class Missing(FailedPrecondition):
    """A model, data set or optional package is not installed."""


class ModelInvalid(FailedPrecondition):
    """A model file is not what it should be."""


class PackInvalid(FailedPrecondition):
    """A pack is not what it should be."""


class StoreError(EdgeRerankerError):
    """The store cannot do it."""


class StoreFull(StoreError):
    """No space is left on the device; nothing was stored."""


class StoreBusy(StoreError):
    """Too many writers are waiting; nothing was stored."""


class StoreCorrupt(StoreError):
    """The store is damaged, or its key is wrong."""


class EngineError(EdgeRerankerError):
    """The model's worker cannot do it."""


class EngineBusy(EngineError):
    """No turn came before the deadline."""


class EngineDied(EngineError):
    """The worker stopped in the middle; it is being restarted."""


class ServiceUnavailable(EdgeRerankerError):
    """Nothing answers at the socket."""


class Stopping(ServiceUnavailable):
    """The service is shutting down and takes no new calls."""


class DeadlineExceeded(EdgeRerankerError):
    """No answer came in time."""


class Cancelled(EdgeRerankerError):
    """The call was cancelled."""


KINDS: Final[Mapping[str, type[EdgeRerankerError]]] = {
    kind.__name__: kind
    for kind in (
        EdgeRerankerError,
        InvalidArgument,
        Unauthenticated,
        PermissionDenied,
        NotFound,
        NotAvailableYet,
        Overloaded,
        Stopping,
        FailedPrecondition,
        AlreadyRunning,
        Missing,
        ModelInvalid,
        PackInvalid,
        StoreError,
        StoreFull,
        StoreBusy,
        StoreCorrupt,
        EngineError,
        EngineBusy,
        EngineDied,
    )
}
"""The way back from the service's name of an error."""

STATUSES: Final[Mapping[grpc.StatusCode, type[EdgeRerankerError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNIMPLEMENTED: NotAvailableYet,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.DATA_LOSS: StoreCorrupt,
    grpc.StatusCode.UNAVAILABLE: ServiceUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
}
"""The way back from a status alone, when gRPC itself made it. Others are EdgeRerankerError."""


def kind_of(error: grpc.RpcError) -> str:
    """The service's name of the error; "" when gRPC itself made it."""
    metadata: Any = error.trailing_metadata() or ()
    return next((str(value) for key, value in metadata if key == KIND_KEY), "")


def from_rpc(error: grpc.RpcError, where: str) -> EdgeRerankerError:
    """The error that stands for a failed call to the service at ``where``, ready to be raised."""
    code: grpc.StatusCode = error.code()
    details: str = error.details() or ""
    kind = KINDS.get(kind_of(error))
    if kind is None:
        kind = STATUSES.get(code, EdgeRerankerError)
        details = _hint(kind, details, where)
    made = kind(details)
    made.status = code
    return made


def _hint(kind: type[EdgeRerankerError], details: str, where: str) -> str:
    if kind is ServiceUnavailable:
        return f"nothing answers at {where}: is the service running? start it with `edge-reranker serve`"
    if kind is DeadlineExceeded:
        return "no answer came in time; give the call a longer timeout_s, or a budget_ms below it"
    if kind is Cancelled:
        return "the call was cancelled before its answer came"
    return details or f"the call failed at {where}"
