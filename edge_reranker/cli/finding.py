"""One thing that ``doctor`` has looked at."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct):
    """One thing that was looked at; ``next`` says what to do when it is not ``ok``."""

    what: str
    ok: bool
    detail: str
    next: str = ""
