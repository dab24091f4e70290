"""The caps of the contract, as the protos state them."""

from __future__ import annotations

from typing import Final

MAX_CANDIDATES: Final = 1_000
MAX_EVENTS: Final = 1_000
MAX_PAGE: Final = 1_000
DEFAULT_PAGE: Final = 100

MAX_ID_BYTES: Final = 256

# Longer texts are cut there.
MAX_TITLE: Final = 512
MAX_TEXT: Final = 4_096
MAX_QUERY: Final = 512
MAX_TAG: Final = 128
MAX_ATTRIBUTE_VALUE: Final = 512

# Longer names are rejected: a cut name would be another name.
MAX_NAME: Final = 128
MAX_PAGE_TOKEN: Final = 1_024

MAX_TAGS: Final = 64
MAX_ATTRIBUTES: Final = 64
MAX_CONTEXT: Final = 8
MAX_CONTEXT_NAME: Final = 64
MAX_CONTEXT_VALUE: Final = 128
MAX_FEATURES: Final = 256
MAX_NEIGHBOURS: Final = 256
MAX_BLOCKED_TAGS: Final = 256
MAX_VECTOR: Final = 4_096
MAX_CAPS: Final = 16
MAX_CAP_WINDOW: Final = 100
DEFAULT_CAP_WINDOW: Final = 20

# A tag at its cap, casefolded: a character becomes three at most.
MAX_TOPIC: Final = 3 * MAX_TAG

# Of one that an export holds; learning's own are a hundredth of it.
MAX_CHOICE_BYTES: Final = 256 * 1024

MAX_DWELL_S: Final = 86_400.0
EARLIEST_S: Final = 631_152_000.0  # 1990-01-01T00:00:00Z
MAX_AHEAD_S: Final = 86_400.0

MAX_AGE_DAYS: Final = 36_500

MAX_BUDGET_MS: Final = 60_000.0
"""A call works no longer than this, whatever it asks for, so that no thread is held for long."""

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""64 KiB for each of 1,000 candidates: title, text and 64 tags at their caps take 13 KB in ASCII and
51 KB at four bytes a character; a vector of 4,096 numbers takes 16 KB."""

ECHO_CHARACTERS: Final = 64
"""So much of a bad value is repeated in the error about it."""
