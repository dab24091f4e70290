"""Everything that can go wrong, as one tree.

EdgeRerankerError
├── InvalidArgument        the caller's input is bad: field, value, way out
├── Unauthenticated        no token, or one that is not known
├── PermissionDenied       the token's scope does not cover the call
├── NotFound               the named thing is not there
├── Overloaded             too many calls are being worked on at once
├── Stopping               the service is shutting down and takes no new calls
├── FailedPrecondition     something must be done first
│   ├── AlreadyRunning     another service holds the data directory
│   └── Missing            a model, data set or optional package is not installed
├── StoreError             the store cannot do it
│   ├── StoreFull          no space is left on the device
│   ├── StoreBusy          too many writers are waiting
│   └── StoreCorrupt       the file is not a database, is damaged, or the key is wrong
├── ModelInvalid           a model file is not what it should be
├── PackInvalid            a pack is not what it should be
└── EngineError            the model's worker cannot do it
    ├── EngineBusy         no turn came before the deadline
    └── EngineDied         the worker stopped in the middle
"""

from __future__ import annotations


class EdgeRerankerError(Exception):
    """Base of all errors; the message says what happened, to what, and what to do next."""


class InvalidArgument(EdgeRerankerError):
    """The caller's input is bad.

    ``field`` is its path in the request, ``problem`` says what is wrong with which value and what is
    allowed.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class Unauthenticated(EdgeRerankerError):
    """No token, or one that is not known."""


class PermissionDenied(EdgeRerankerError):
    """The token's scope does not cover the call."""


class NotFound(EdgeRerankerError):
    """The named thing is not there."""


class Overloaded(EdgeRerankerError):
    """Too many calls are being worked on at once; nothing was done for this one."""


class Stopping(EdgeRerankerError):
    """The service is shutting down and takes no new calls."""


class FailedPrecondition(EdgeRerankerError):
    """Something must be done first; the message says what."""


class AlreadyRunning(FailedPrecondition):
    """Another service holds the data directory."""


class Missing(FailedPrecondition):
    """A model, data set or optional package is not installed; the message names the command."""


class StoreError(EdgeRerankerError):
    """The store cannot do it."""


class StoreFull(StoreError):
    """No space is left on the device; nothing of the batch was stored."""


class StoreBusy(StoreError):
    """Too many writers are waiting; nothing of the batch was stored."""


class StoreCorrupt(StoreError):
    """The file is not a database, is damaged, or the key is wrong."""


class ModelInvalid(EdgeRerankerError):
    """A model file is not what it should be."""


class PackInvalid(EdgeRerankerError):
    """A pack is not what it should be."""


class EngineError(EdgeRerankerError):
    """The model's worker cannot do it."""


class EngineBusy(EngineError):
    """No turn came before the deadline."""


class EngineDied(EngineError):
    """The worker stopped in the middle; it is being restarted."""
