"""Text that may have come from anybody, made plain."""

from __future__ import annotations

import unicodedata


def clean(text: str, max_chars: int) -> str:
    """``text`` in NFC, without control and invisible characters, white space folded, cut to ``max_chars``.

    What looks like a control string stays: the engine never reads data as control tokens.
    """
    # Cut first: normalising a megabyte to keep a line of it would let one candidate slow the others.
    text = " ".join(text[: 4 * max_chars].split())
    # Not printable are the categories Cc, Cf (zero-width, bidirectional overrides), Cs, Co and Cn. They go
    # first: what stood on both sides of one may be two spaces, or a letter and its accent.
    if not text.isprintable():
        text = " ".join("".join(c for c in text if c.isprintable()).split())
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return text[:max_chars].strip()
