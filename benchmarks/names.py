"""Which benchmarks there are, and what each is for: the first line of its file."""

from __future__ import annotations

import ast
from pathlib import Path

NAMES = (
    "quality",
    "request",
    "shipped",
    "overhead",
    "tier2",
    "cross",
    "hot",
    "encode",
    "encoders",
    "deadlines",
    "concurrent",
    "memory",
    "take_along",
    "idle",
    "survival",
    "durability",
    "mutants",
    "busy",
    "client_import",
    "contention",
    "explain",
    "learned",
    "logs",
    "flips",
    "backup",
    "retention",
    "isolation",
    "store_size",
    "choices",
    "policy",
)
# Minutes each: only when named.
LONG = ("modes", "scale", "context", "effort", "policy_quality")


def purpose(name: str) -> str:
    """One line."""
    text = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
