"""How tier 2 asks a model about one candidate, after what the user did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_reranker.prompt.normalise import clean
from edge_reranker.types import Context, Event, EventType, Item, Piece

MAX_LINE_CHARS = 96

_VERBS: Mapping[EventType, str] = {
    EventType.VIEW: "looked at",
    EventType.CLICK: "chose",
    EventType.LIKE: "liked",
    EventType.DISLIKE: "disliked",
    EventType.PURCHASE: "bought",
    EventType.SEARCH: "searched for",
    EventType.DWELL: "stayed with",
    EventType.SHARE: "shared",
    EventType.HIDE: "hid",
}


@dataclass(frozen=True, slots=True)
class Template:
    """A chat prompt whose prefix is the user's context (append-only) and whose suffix is one candidate.

    ``positive`` and ``negative`` are the answers whose logits are compared.
    """

    name: str
    start: str
    question: str
    before_candidate: str
    after_candidate: str
    positive: str
    negative: str

    def prefix(self, context: Context, query: str, max_events: int) -> list[Piece]:
        """Header, then events oldest to newest, so that a new event only adds to the end."""
        pieces = [Piece(self.start, structure=True), Piece(self.question)]
        lines = [line for event in context.events[-max_events:] if (line := _line(event))]
        pieces += [Piece(line) for line in lines]
        if query:
            pieces.append(Piece(f"Now they search for: {clean(query, MAX_LINE_CHARS)}\n"))
        return pieces

    def suffix(self, item: Item) -> list[Piece]:
        """One candidate, and the point where the answer is read."""
        return [
            Piece(self.before_candidate),
            Piece(_short(item)),
            Piece(self.after_candidate, structure=True),
        ]


def _short(item: Item) -> str:
    tags = ", ".join(item.tags)
    return clean(f"{item.title} [{tags}]" if tags else item.title, MAX_LINE_CHARS)


def _line(event: Event) -> str:
    verb = _VERBS.get(event.type)
    if verb is None:
        return ""
    about = clean(event.query, MAX_LINE_CHARS) if event.type == EventType.SEARCH else ""
    if not about and event.item is not None:
        about = _short(event.item)
    return f"- {verb} {about}\n" if about else ""


TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        Template(
            name="chatml-yes-no",
            start="<|im_start|>user\n",
            question="Would this person like the last item? What they did, oldest first:\n",
            before_candidate="Item: ",
            after_candidate="<|im_end|>\n<|im_start|>assistant\n",
            positive="Yes",
            negative="No",
        ),
    )
}
