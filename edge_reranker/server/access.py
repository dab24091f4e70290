"""Who may call what: two tokens on disk, and one table of every rpc's scope."""

from __future__ import annotations

import contextlib
import enum
import hmac
import os
import secrets
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_reranker.errors import FailedPrecondition, PermissionDenied, Unauthenticated

DEFAULT_NAMESPACE: Final = "default"
_TOKEN_BYTES: Final = 32
_SHORTEST: Final = 32


class Scope(enum.IntEnum):
    """What a token allows; each scope includes those below it."""

    NONE = 0
    APP = 1
    OWNER = 2


_V1 = "/edge_reranker.v1"
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

SCOPES: Final[Mapping[str, Scope]] = {
    f"{_V1}.RerankService/Rerank": Scope.APP,
    f"{_V1}.RerankService/RerankStream": Scope.APP,
    f"{_V1}.RerankService/Explain": Scope.OWNER,
    f"{_V1}.ContextService/RecordEvents": Scope.APP,
    f"{_V1}.ContextService/ListEvents": Scope.APP,
    f"{_V1}.ContextService/Forget": Scope.OWNER,
    f"{_V1}.ContextService/Export": Scope.OWNER,
    f"{_V1}.ContextService/Import": Scope.OWNER,
    f"{_V1}.ContextService/GetProfile": Scope.OWNER,
    f"{_V1}.ContextService/MuteTopic": Scope.OWNER,
    f"{_V1}.ContextService/UnmuteTopic": Scope.OWNER,
    f"{_V1}.ContextService/GetRetention": Scope.OWNER,
    f"{_V1}.ContextService/SetRetention": Scope.OWNER,
    f"{_V1}.NamespaceService/ListNamespaces": Scope.OWNER,
    f"{_V1}.NamespaceService/CreateNamespace": Scope.OWNER,
    f"{_V1}.NamespaceService/DeleteNamespace": Scope.OWNER,
    f"{_V1}.NamespaceService/GrantAccess": Scope.OWNER,
    f"{_V1}.NamespaceService/RevokeAccess": Scope.OWNER,
    f"{_V1}.ModelService/ListModels": Scope.OWNER,
    f"{_V1}.ModelService/GetModel": Scope.OWNER,
    f"{_V1}.ModelService/LoadModel": Scope.OWNER,
    f"{_V1}.ModelService/Warmup": Scope.OWNER,
    "/grpc.health.v1.Health/Check": Scope.NONE,
    "/grpc.health.v1.Health/List": Scope.NONE,
    "/grpc.health.v1.Health/Watch": Scope.NONE,
    _REFLECTION: Scope.NONE,
}
"""Every rpc's scope. One that is missing here needs the owner's."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a token stands for."""

    scope: Scope
    namespace: str


class Access:
    """Knows the tokens of a data directory."""

    def __init__(self, tokens: Mapping[str, Identity]) -> None:
        self._tokens = tuple((token.encode(), identity) for token, identity in tokens.items())

    @classmethod
    def open(cls, data_dir: Path) -> Access:
        """Reads ``tokens/app.token`` and ``tokens/owner.token``; makes those that are missing.

        Files are 0600 in a 0700 directory, whatever the umask. Raises FailedPrecondition for a token
        that is too short.
        """
        folder = data_dir / "tokens"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        return cls(
            {
                _token(folder / f"{scope.name.lower()}.token"): Identity(scope, DEFAULT_NAMESPACE)
                for scope in (Scope.APP, Scope.OWNER)
            }
        )

    def admit(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
        """Who calls ``method``; raises Unauthenticated or PermissionDenied."""
        needed = SCOPES.get(method, Scope.OWNER)
        if needed is Scope.NONE:
            return Identity(Scope.NONE, "")
        given = next((value for key, value in metadata if key == "authorization"), "")
        scheme, _, token = (given if isinstance(given, str) else "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(
                'no token; send metadata "authorization: Bearer TOKEN" (see tokens/app.token)'
            )
        identity = self._known(token.strip().encode())
        if identity is None:
            raise Unauthenticated("the token is not known; read tokens/app.token in the data directory again")
        if identity.scope < needed:
            name = method.rpartition("/")[2]
            raise PermissionDenied(f"{name} needs the owner's token; it is in tokens/owner.token")
        return identity

    def _known(self, token: bytes) -> Identity | None:
        found = None
        for known, identity in self._tokens:
            if hmac.compare_digest(known, token):
                found = identity
        return found


def _token(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        token = path.read_text(encoding="ascii", errors="replace").strip()
        if len(token) < _SHORTEST:
            raise FailedPrecondition(
                f"{path}: fewer than {_SHORTEST} characters; delete the file to have a new token made"
            )
        path.chmod(0o600)
        return token
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    # Written aside and renamed, so that a crash leaves either no token or a whole one. mkstemp makes it 0600.
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    return token
