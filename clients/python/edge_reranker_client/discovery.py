"""Where the service of this user keeps its socket and its tokens."""

from __future__ import annotations

import os
import re
from pathlib import Path

SOCKET_VARIABLE = "EDGE_RERANKER_SOCKET"
TOKEN_VARIABLE = "EDGE_RERANKER_TOKEN"  # noqa: S105  # the variable's name, not a token
DATA_DIR_VARIABLE = "EDGE_RERANKER_DATA_DIR"
NAMESPACE_VARIABLE = "EDGE_RERANKER_NAMESPACE"

_NAMESPACE = re.compile(r"[a-z][a-z0-9_-]{0,63}")
# The files of the one app that there was before namespaces, now the default's, and of the owner.
_RESERVED = ("app", "owner")


def default_data_dir() -> Path:
    """``$EDGE_RERANKER_DATA_DIR``, else the platform's folder for a user's application data."""
    chosen = os.environ.get(DATA_DIR_VARIABLE)
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_data_dir("edge-reranker", appauthor=False))


def socket_path(data_dir: Path) -> Path:
    """The socket of the service with this data directory, unless it was told another."""
    return data_dir / "run" / "edge-reranker.sock"


def configured_socket(data_dir: Path) -> str | None:
    """The socket that ``config.toml`` in the data directory names; None if it names none."""
    try:
        with (data_dir / "config.toml").open("rb") as file:
            import tomllib

            socket = tomllib.load(file).get("socket")
    except (OSError, RecursionError, ValueError):  # a service could not read it either
        return None
    return socket if isinstance(socket, str) else None


def token_path(data_dir: Path, scope: str) -> Path:
    """The token file of a scope: "app", "owner", or what ``scope_of`` says of a namespace."""
    return data_dir / "tokens" / f"{scope}.token"


def is_namespace(name: object) -> bool:
    """Whether a namespace can have this name; others could be the way to another file."""
    return isinstance(name, str) and _NAMESPACE.fullmatch(name) is not None and name not in _RESERVED


def scope_of(namespace: str) -> str:
    """What the token file of a namespace's app is called, for ``token_path``."""
    return "app" if namespace == "default" else namespace
