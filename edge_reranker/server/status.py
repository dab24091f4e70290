"""The one table from errors to gRPC status. The client holds the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc

from edge_reranker import errors

STATUS: Final[Mapping[type[errors.EdgeRerankerError], grpc.StatusCode]] = {
    errors.EdgeRerankerError: grpc.StatusCode.INTERNAL,
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Stopping: grpc.StatusCode.UNAVAILABLE,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AlreadyRunning: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Missing: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StoreError: grpc.StatusCode.INTERNAL,
    errors.StoreFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StoreBusy: grpc.StatusCode.UNAVAILABLE,
    errors.StoreCorrupt: grpc.StatusCode.DATA_LOSS,
    errors.ModelInvalid: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PackInvalid: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EngineError: grpc.StatusCode.INTERNAL,
    errors.EngineBusy: grpc.StatusCode.UNAVAILABLE,
    errors.EngineDied: grpc.StatusCode.UNAVAILABLE,
}

KIND_KEY: Final = "edge-reranker-error"
"""Trailing metadata that names the error's class, where several share one status."""

INTERNAL_MESSAGE: Final = "something went wrong inside the service; its log names the kind of error"
"""What a caller reads about an error that is not one of ours: its own text may hold a user's words."""


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str, str]:
    """Status, message and kind for an error; what is not ours is INTERNAL with a fixed message."""
    if isinstance(error, errors.EdgeRerankerError):
        for kind in type(error).__mro__:
            if kind in STATUS:
                return STATUS[kind], str(error), kind.__name__
    return grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE, errors.EdgeRerankerError.__name__
