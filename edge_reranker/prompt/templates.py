"""How tier 2 asks a model about one candidate, after what the user did."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from edge_reranker.texts import clean
from edge_reranker.types import Context, Event, EventType, Item, Piece

MAX_LINE_CHARS = 96
MAX_QUERY_CHARS = 64
MAX_CANDIDATE_CHARS = 48
MAX_INSTRUCTION_CHARS = 240
_YEAR_BEHIND = re.compile(r" \(\d{4}\)$")

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
    """A prompt whose prefix is the user's context (append-only) and whose suffix is one candidate.

    The suffix is short because every candidate pays for it: what can be said once is said in ``question``,
    and nothing closes the context, so a new event costs its own tokens only. ``positive`` and ``negative``
    are the answers whose logits are compared. ``instructed`` is the question for an instruction of one's
    own; ``tags`` tells whether a candidate's tags are read too, ``line_tags`` whether an event's item's are
    (and its year): without them a context holds more than twice as many events.
    """

    name: str
    start: str
    question: str
    before_candidate: str
    after_candidate: str
    positive: str
    negative: str
    instructed: str = "{instruction}\n"
    tags: bool = False
    line_tags: bool = True

    def with_instruction(self, instruction: str) -> Template:
        """The same, asking something else. The instruction is data, like everything that a pack says."""
        said = clean(instruction, MAX_INSTRUCTION_CHARS)
        return replace(self, question=self.instructed.replace("{instruction}", said))

    def prefix(self, context: Context, query: str) -> list[Piece]:
        """Header, then events oldest to newest, so that a new event only adds to the end."""
        lines = [Piece(line) for _, line in self.lines(context)]
        return [*self.header(), *lines, *self.closing(query)]

    def header(self) -> list[Piece]:
        """What stands before the events."""
        return [Piece(self.start, structure=True), Piece(self.question)]

    def lines(self, context: Context) -> list[tuple[str, str]]:
        """(event id, line) of each event that says something, oldest to newest."""
        about = _short if self.line_tags else _name
        return [(event.event_id, line) for event in context.events if (line := _line(event, about))]

    def closing(self, query: str) -> list[Piece]:
        """What stands between the events and every candidate."""
        searched = [Piece(f"Now they search for: {clean(query, MAX_QUERY_CHARS)}\n")] if query else []
        return [*searched, Piece(self.before_candidate, structure=True)]

    def suffix(self, item: Item) -> list[Piece]:
        """One candidate, and the point where the answer is read."""
        return [
            Piece(" " + ((self.tags and _short(item)) or _name(item))),
            Piece(self.after_candidate, structure=True),
        ]


def _name(item: Item) -> str:
    """What a candidate is called. A year behind it would be six tokens of sixteen; the context has it."""
    name = clean(item.title or item.text, MAX_CANDIDATE_CHARS)
    return _YEAR_BEHIND.sub("", name) or name


def _short(item: Item) -> str:
    tags = ", ".join(item.tags)
    return clean(f"{item.title} [{tags}]" if tags else item.title, MAX_LINE_CHARS)


def _line(event: Event, named: Callable[[Item], str]) -> str:
    verb = _VERBS.get(event.type)
    if verb is None:
        return ""
    about = clean(event.query, MAX_LINE_CHARS) if event.type == EventType.SEARCH else ""
    if not about and event.item is not None:
        about = named(event.item)
    return f"- {verb} {about}\n" if about else ""


def plain(context: Context, query: str, max_events: int) -> list[Piece]:
    """What the user did, oldest first, and what they search for, all of it data: a rank model's query."""
    lines = [line for event in context.events if (line := _line(event, _short))][-max_events:]
    if query:
        lines.append(clean(query, MAX_LINE_CHARS))
    return [Piece(line) for line in lines]


_DEFAULT = Template(
    name="default",
    start="<|im_start|>user\n",
    question="What one person did, oldest first; after a question mark, if they would like it.\n",
    before_candidate="?",
    after_candidate=":",
    positive=" Yes",
    negative=" No",
)
_QWEN3_QUESTION = "<Instruct>: {instruction}\n<Query>: This person, oldest first:\n"

TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        _DEFAULT,
        # The same with more events for the room; for a model that was trained on it.
        replace(_DEFAULT, name="titles", line_tags=False),
        # As Qwen3-Reranker was trained; only the instruction and the words of the query are ours.
        Template(
            name="qwen3-reranker",
            start="<|im_start|>system\n"
            "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
            'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
            question=_QWEN3_QUESTION.replace(
                "{instruction}", "Given what one person did, find what they would like next"
            ),
            before_candidate="<Document>:",
            after_candidate="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
            positive="yes",
            negative="no",
            instructed=_QWEN3_QUESTION,
            tags=True,
        ),
    )
}
