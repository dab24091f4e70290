"""Which key and which salt a store has, in a form that gives away neither: ``key-check``, beside the key.

SQLCipher answers a wrong key and a damaged file with the same error. This file, which is written after each
opening that worked, tells one from the other where the store itself no longer can.
"""

from __future__ import annotations

import hmac
import json
from pathlib import Path

from sqlite_utils import Database

from edge_reranker.store import files
from edge_reranker.store.keys import Key

_NAME = "key-check"
_LABEL = b"edge-reranker key check 1"


def renew(data_dir: Path, key: Key, db: Database) -> None:
    """Write down the salt of the open database ``db`` under ``key``, unless it is there. Raises OSError."""
    salt = str(db.conn.execute("PRAGMA cipher_salt").fetchone()[0])
    wanted = json.dumps({"salt": salt, "tag": _tag(key, salt)}).encode()
    path = data_dir / _NAME
    if path.is_file() and not path.is_symlink() and path.read_bytes() == wanted:
        files.private_file(path)
    else:
        files.write_private(path, wanted)


def recorded_salt(data_dir: Path, key: Key) -> str | None:
    """The salt (hex) that the store had under ``key``.

    None when nothing readable was written down, "" when it was written down under another key.
    """
    try:
        found = json.loads((data_dir / _NAME).read_bytes())
        salt, tag = str(found["salt"]), str(found["tag"])
        if len(bytes.fromhex(salt)) != 16:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return salt if hmac.compare_digest(tag, _tag(key, salt)) else ""


def _tag(key: Key, salt: str) -> str:
    return hmac.digest(bytes.fromhex(key.hex), _LABEL + bytes.fromhex(salt), "sha256").hex()
