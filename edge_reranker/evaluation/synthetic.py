"""Made-up logs of three domains, for tests of the path from a log to a pack; never for claims about people.

The preference model: an item has a kind and a style; a user has a taste for each of both, drawn once from
a normal distribution. Of ``_OFFERED`` items at a time, drawn by popularity (Zipf's law), the user takes one
with P(i) proportional to exp(``_SHARPNESS`` * (taste for its kind + taste for its style)). What is taken
with a sum above 0 is liked, the rest is only viewed. Users start one after another over a year; the gaps
between a user's interactions are exponential, two days in the mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from edge_reranker.evaluation.log import Interaction, Log
from edge_reranker.types import EventType, Item

MADE_UP = "made-up-"
"""What the id of every made-up item and user begins with."""

_OFFERED = 20
_SHARPNESS = 2.0
_YEAR_S = 365 * 86_400.0
_GAP_S = 2 * 86_400.0
_START_S = 1_735_689_600.0  # 2025-01-01


@dataclass(frozen=True, slots=True)
class Domain:
    """A grammar: ``title`` and ``text`` have places for a kind's thing, a style and a detail."""

    liked: EventType
    title: str
    text: str
    kinds: Mapping[str, tuple[str, ...]]
    styles: tuple[str, ...]
    details: tuple[str, ...]


DOMAINS: Mapping[str, Domain] = MappingProxyType(
    {
        "shop": Domain(
            EventType.PURCHASE,
            "{style} {thing}, {detail}",
            "A {style} {thing} in {detail} for every day.",
            {
                "kitchen": ("frying pan", "bread knife", "teapot", "mixing bowl", "coffee mill"),
                "garden": ("watering can", "rake", "plant pot", "hedge trimmer", "bird feeder"),
                "sports": ("running shoe", "yoga mat", "tennis racket", "dumbbell", "cycling helmet"),
                "office": ("desk lamp", "fountain pen", "notebook", "office chair", "paper tray"),
                "toys": ("wooden train", "puzzle", "kite", "doll house", "marble run"),
                "music": ("guitar", "metronome", "drum pad", "music stand", "ukulele"),
            },
            ("rustic", "modern", "foldable", "luxury", "recycled"),
            ("oak green", "steel grey", "night blue", "brick red", "bone white", "sun yellow"),
        ),
        "feed": Domain(
            EventType.LIKE,
            "{detail}: {thing}",
            "A {style} post about {thing}.",
            {
                "politics": ("the budget vote", "a local election", "the trade treaty", "tax reform"),
                "science": ("a new exoplanet", "gene therapy", "deep sea vents", "quantum memory"),
                "football": ("the cup final", "a late penalty", "the transfer window", "a young keeper"),
                "cooking": ("sourdough bread", "a lentil curry", "pickled plums", "a Sunday roast"),
                "travel": ("night trains", "the coast path", "a mountain hut", "island ferries"),
                "films": ("a silent comedy", "the festival winner", "a heist film", "a film score"),
            },
            ("funny", "angry", "careful", "personal", "visual"),
            ("What nobody says", "In ten pictures", "A short thread", "Explained", "My week", "Live notes"),
        ),
        "courses": Domain(
            EventType.LIKE,
            "{thing}: {detail}",
            "A {style} course on {thing}.",
            {
                "programming": ("Python", "compilers", "web services", "databases", "Rust"),
                "statistics": ("regression", "Bayesian inference", "time series", "survey design"),
                "languages": ("Spanish", "Japanese", "Arabic", "sign language", "Finnish"),
                "arts": ("watercolour", "life drawing", "pottery", "photography", "typography"),
                "business": ("bookkeeping", "negotiation", "pricing", "project planning"),
                "health": ("first aid", "nutrition", "sleep", "sports injuries"),
            },
            ("self-paced", "project-based", "theoretical", "hands-on", "weekend"),
            ("first steps", "in depth", "for teachers", "a refresher", "in practice", "case studies"),
        ),
    }
)


def make(domain: str, *, n_users: int = 200, n_items: int = 300, n_each: int = 45, seed: int = 0) -> Log:
    """A log of ``n_users`` with ``n_each`` interactions each, no item twice; the same for the same arguments.

    Every id begins with ``MADE_UP``. Raises ``KeyError`` for a domain that is not in ``DOMAINS``.
    """
    grammar = DOMAINS[domain]
    rng = np.random.default_rng(seed)
    kinds = rng.integers(len(grammar.kinds), size=n_items)
    styles = rng.integers(len(grammar.styles), size=n_items)
    items = [_item(grammar, f"{MADE_UP}{domain}-{at}", kinds[at], styles[at], rng) for at in range(n_items)]
    return Log.of(items, _interactions(grammar, items, kinds, styles, n_users, n_each, rng))


def write(log: Log, folder: Path) -> None:
    """The log as ``items.jsonl`` and ``interactions.jsonl`` in ``folder``, which is made where needed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "items.jsonl").open("w", encoding="utf-8") as file:
        for item in log.items:
            fields = {"id": item.id, "title": item.title, "text": item.text, "tags": item.tags}
            file.write(json.dumps(fields) + "\n")
    with (folder / "interactions.jsonl").open("w", encoding="utf-8") as file:
        for each in log.interactions:
            row = each._asdict()
            row["occurred_at"] = row.pop("at_s")
            file.write(json.dumps({**row, "type": each.type.name}) + "\n")


def _item(grammar: Domain, item_id: str, kind: int, style: int, rng: np.random.Generator) -> Item:
    name = list(grammar.kinds)[kind]
    things, details = grammar.kinds[name], grammar.details
    words = {
        "thing": things[rng.integers(len(things))],
        "detail": details[rng.integers(len(details))],
        "style": grammar.styles[style],
    }
    title = grammar.title.format_map(words)
    return Item(item_id, title[0].upper() + title[1:], grammar.text.format_map(words), (name,))


def _interactions(
    grammar: Domain,
    items: list[Item],
    kinds: np.ndarray,
    styles: np.ndarray,
    n_users: int,
    n_each: int,
    rng: np.random.Generator,
) -> Iterator[Interaction]:
    popularity = 1.0 / (1.0 + rng.permutation(len(items)))
    for user in range(n_users):
        taste = rng.normal(size=len(grammar.kinds))[kinds] + rng.normal(size=len(grammar.styles))[styles]
        left = popularity.copy()
        at_s = _START_S + _YEAR_S * user / n_users
        for _ in range(n_each):
            offered = rng.choice(len(items), _OFFERED, replace=False, p=left / left.sum())
            # Gumbel's trick: the largest of utility plus noise is a draw from the softmax.
            taken = int(offered[np.argmax(_SHARPNESS * taste[offered] + rng.gumbel(size=_OFFERED))])
            at_s += rng.exponential(_GAP_S)
            type_ = grammar.liked if taste[taken] > 0 else EventType.VIEW
            yield Interaction(f"{MADE_UP}{user:05}", items[taken].id, type_, round(at_s, 3))
            left[taken] = 0.0
