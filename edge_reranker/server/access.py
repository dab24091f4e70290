"""Who may call what: the owner's token and one of each app on disk, and one table of every rpc's scope."""

from __future__ import annotations

import contextlib
import enum
import hmac
import os
import secrets
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_reranker.errors import FailedPrecondition, PermissionDenied, StoreError, Unauthenticated

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
    """Knows the tokens of a data directory. Thread-safe.

    Which namespaces there are says the store; the files follow it.
    """

    def __init__(self, folder: Path, tokens: Mapping[Path, Identity]) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._tokens = {path: (_token(path).encode(), identity) for path, identity in tokens.items()}
        for path, (token, _) in self._tokens.items():
            if any(other < path and token == known for other, (known, _) in self._tokens.items()):
                raise FailedPrecondition(
                    f"{path}: another file has the same token; delete the file to have a new token made"
                )

    @classmethod
    def open(cls, data_dir: Path, namespaces: Iterable[str] = ()) -> Access:
        """Reads the owner's token and one for each namespace; makes those that are missing.

        Token files of no namespace go: they were left by a deletion that was cut off, or belong to another
        store. Files are 0600 in a 0700 directory, whatever the umask. Raises FailedPrecondition for a token
        that is too short, or that two files have.
        """
        folder = data_dir / "tokens"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        tokens = {folder / "owner.token": Identity(Scope.OWNER, DEFAULT_NAMESPACE)}
        for name in (DEFAULT_NAMESPACE, *namespaces):
            tokens[folder / _file_name(name)] = Identity(Scope.APP, name)
        for path in folder.iterdir():
            # Also what a crash left of a file that was not renamed yet.
            if ".token" in path.name and path not in tokens and path.is_file():
                path.unlink()
        return cls(folder, tokens)

    def token_file(self, namespace: str) -> Path:
        """Where the namespace's app finds its token."""
        return self._folder / _file_name(namespace)

    def add(self, namespace: str) -> None:
        """Makes a token for a namespace that has none, or whose file is gone; it is honoured at once.

        Raises StoreError.
        """
        path = self.token_file(namespace)
        with self._lock, _told(path):
            if path in self._tokens and path.exists():
                return
            # What lies there was made for another: the name may have been somebody else's.
            path.unlink(missing_ok=True)
            identity = Identity(Scope.APP, namespace)
            self._tokens = {**self._tokens, path: (_token(path).encode(), identity)}

    def remove(self, namespace: str) -> None:
        """Takes a namespace's token away, at once and for good. Idempotent. Raises StoreError."""
        path = self.token_file(namespace)
        with self._lock, _told(path):
            self._tokens = {known: entry for known, entry in self._tokens.items() if known != path}
            path.unlink(missing_ok=True)
            _sync(self._folder)

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
            raise Unauthenticated(
                "the token is not known; read its file in tokens/ of the data directory again"
            )
        if identity.scope < needed:
            name = method.rpartition("/")[2]
            raise PermissionDenied(f"{name} needs the owner's token; it is in tokens/owner.token")
        return identity

    def _known(self, token: bytes) -> Identity | None:
        found = None
        for known, identity in self._tokens.values():
            if hmac.compare_digest(known, token):
                found = identity
        return found


def _file_name(namespace: str) -> str:
    # Of old: before namespaces there was one app. So "app" and "owner" are no names (see checks.namespace).
    return "app.token" if namespace == DEFAULT_NAMESPACE else f"{namespace}.token"


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
        _sync(path.parent)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    return token


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise StoreError(f"{path}: {why}; check the disk and the permissions, then try again") from None


def _sync(folder: Path) -> None:
    """Makes the names in a directory durable: a token that was taken away does not come back."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
