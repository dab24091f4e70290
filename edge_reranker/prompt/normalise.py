"""Text that may have come from anybody, made plain."""

from __future__ import annotations

import unicodedata


def clean(text: str, max_chars: int) -> str:
    """``text`` in NFC, without control and invisible characters, white space folded, cut to ``max_chars``.

    What looks like a control string stays: the engine never reads data as control tokens.
    """
    # Cut first: normalising a megabyte to keep a line of it would let one candidate slow the others.
    text = " ".join(text[: 4 * max_chars].split())
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    # Not printable are the categories Cc, Cf (zero-width, bidirectional overrides), Cs, Co and Cn.
    if not text.isprintable():
        text = "".join(c for c in text if c.isprintable())
    return text[:max_chars].strip()
