"""Texts that cannot be mistaken for anything else, and a search for them in every form."""

from __future__ import annotations

import base64
import random
import string
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_reranker_client import Candidate, Event, Item

# Letters of other scripts, so that an escape of any kind would change it.
_FOREIGN = "ж漢"


@dataclass(frozen=True, slots=True)
class Marker:
    """A word of random letters, new in each run; every text of a user's here begins with it."""

    word: str

    @classmethod
    def new(cls) -> Marker:
        return cls("".join(random.choices(string.ascii_lowercase, k=20)))

    def text(self, number: int, kind: str) -> str:
        """A text that no other event has."""
        return f"{self.word}{_FOREIGN} {kind} {number}"

    def event(self, number: int) -> Event:
        """An event whose every field that can hold a text of the user's holds a marked one."""

        def name(kind: str) -> str:
            return f"{self.word}-{kind}-{number}"

        item = Item(
            name("item"),
            self.text(number, "title"),
            text=self.text(number, "text"),
            tags=[self.text(number % 50, "tag")],
            attributes={name("attribute"): self.text(number, "value")},
        )
        return Event(
            ("LIKE", "VIEW", "SEARCH")[number % 3],
            item,
            event_id=name("event"),
            query=self.text(number, "query"),
            occurred_at=1.7e9 + number,
            surface=name("surface"),
            session_id=name("session"),
            ranking_id=name("ranking"),
            context={name("context"): self.text(number, "told")},
        )

    def events(self, n: int, first: int = 0) -> list[Event]:
        return [self.event(number) for number in range(first, first + n)]

    def candidates(self, n: int, first: int = 0) -> list[Candidate]:
        return [
            Candidate(
                f"{self.word}-candidate-{number}",
                self.text(number, "shown"),
                text=self.text(number, "blurb"),
                tags=[self.text(number % 50, "tag")],
            )
            for number in range(first, first + n)
        ]


def forms(secret: bytes) -> dict[str, bytes]:
    """How ``secret`` could stand in a file, by the name of the form."""
    text = secret.decode("latin-1")
    found = {
        "as it is": secret,
        "UTF-16, little end first": text.encode("utf-16-le"),
        "UTF-16, big end first": text.encode("utf-16-be"),
        "UTF-32, little end first": text.encode("utf-32-le"),
        "JSON, escaped": "".join(f"\\u{ord(each):04x}" for each in text).encode(),
        "percent-encoded": "".join(f"%{each:02X}" for each in secret).encode(),
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        "C, octal": "".join(f"\\{each:03o}" for each in secret).encode(),
        "reversed": secret[::-1],
    }
    # Base64 depends on what stands before: three places, without the letters that neighbours change.
    for skip in range(3):
        encoded = base64.b64encode(b"\0" * skip + secret)
        found[f"base64, {skip} bytes on"] = encoded[-(-skip * 8 // 6) : len(encoded) - 4]
    return found


def found_in(data: bytes, secret: bytes) -> list[str]:
    """The forms in which ``secret`` is in ``data``."""
    lower = data.lower()
    return [
        name
        for name, form in forms(secret).items()
        if form in data or (name == "as it is" and form.lower() in lower)
    ]


def files_with(paths: Iterable[Path], secret: bytes) -> list[str]:
    """Where ``secret`` is, and in which form; names are looked at too."""
    found = []
    for path in paths:
        if found_in(str(path).encode("utf-8", "surrogateescape"), secret):
            found.append(f"{path}: its name")
        if path.is_file() and not path.is_symlink():
            found += [f"{path}: {form}" for form in found_in(path.read_bytes(), secret)]
    return found


def below(*folders: Path) -> Iterator[Path]:
    """Everything in the folders, and the folders."""
    for folder in folders:
        yield folder
        yield from folder.rglob("*")


def quoted(text: str) -> str:
    """As it stands in a URL."""
    return urllib.parse.quote(text)
