"""From interactions and hidden states to a pack: head, prior, card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_reranker.errors import FailedPrecondition
from edge_reranker.evaluation import lists, run
from edge_reranker.evaluation.log import LIKED, Interactions, Log
from edge_reranker.evaluation.retrained import COLD_SHARE
from edge_reranker.evaluation.servers import PopularityServer
from edge_reranker.models import pack as packs
from edge_reranker.models.item_to_item import ItemToItem
from edge_reranker.models.pack import Encoder, Head, Manifest, Pack, Probes, TasteSettings
from edge_reranker.prompt import content_hash
from edge_reranker.ranking.item_to_item import ItemToItem as Known
from edge_reranker.ranking.profile import SECONDS_A_DAY, Taste
from edge_reranker.ranking.towers import Towers
from edge_reranker.training import card, item_to_item, prior
from edge_reranker.training.head import History, Recipe, train_head
from edge_reranker.types import EventType, Item

NAME = "movielens-minilm"
VERSION = "1"
SMOLLM2 = Encoder(model="smollm2-135m", n_blocks=10, n_embd=576)
ITEMS = item_to_item.Settings()
# What the encoder is tried by on other devices; of no log.
PROBES = tuple(
    Item(text, title=text)
    for text in (
        "A quiet afternoon by the sea",
        "Laptop charger, 65 W, with two ports",
        "Ten ways to cook rice (2019). Kitchen, Beginners",
    )
)
# As sentence-transformers' modules.json has it: mean, then length 1.
MINILM = Encoder(model="minilm", n_blocks=None, n_embd=384, normalise=True)
ENCODERS = {encoder.model: encoder for encoder in (MINILM, SMOLLM2)}
NAMES = {MINILM.model: NAME, SMOLLM2.model: "movielens-smollm2"}
_N_TYPES = max(EventType) + 1
_LIKED = np.isin(np.arange(_N_TYPES), list(LIKED))
TASTE = TasteSettings(
    event_weights={
        "VIEW": 0.3,
        "CLICK": 0.3,
        "DWELL": 0.3,
        "SEARCH": 0.3,
        "LIKE": 1.0,
        "SHARE": 1.0,
        "PURCHASE": 1.0,
    },
    half_life_days=30.0,
    max_events=50,
    fresh_half_life_days=7.0,
)


@dataclass(frozen=True, slots=True)
class Given:
    """What every training on a log begins with, whatever the seed: the lists, and who teaches the towers."""

    plain: run.Plain
    histories: list[History]

    @classmethod
    def of(cls, data: Log, taste: TasteSettings) -> Given:
        """Raises ``FailedPrecondition`` for too few users."""
        plain = run.Plain.of(data, Taste.of(taste))
        return cls(plain, [history(past, taste) for past in plain.split.head.values()])


@dataclass(frozen=True, slots=True)
class Trained:
    """A pack and what it reached on users it has not seen."""

    pack: Pack
    report: run.Report


def train(
    data: Log,
    hidden: NDArray[np.floating],
    out_dir: Path,
    *,
    seed: int = 0,
    more_seeds: Sequence[int] = (1, 2),
    recipe: Recipe | None = None,
    items: item_to_item.Settings | None = ITEMS,
    encoder: Encoder = MINILM,
    taste: TasteSettings = TASTE,
    name: str = NAME,
    command: str = "edge-reranker train",
    about: card.About = card.MOVIELENS,
    choice: str = "",
    probes: NDArray[np.floating] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train a pack, measure it on the later users, and write it with its card into ``out_dir``.

    ``hidden`` are the items' mean-pooled hidden states [n_items, n_embd] from ``encoder``, aligned with
    ``data.items``; the encoder's adapter, if it has one, lies in ``out_dir``. ``items`` is what the map of
    items learns by; None leaves it out. ``seed`` makes the pack; ``more_seeds`` are trained only to report
    how much chance there is in the figures, and two packs without the map, one of them on random numbers, to
    report what each part gives. ``choice`` is what the card says of how the encoder was chosen. ``probes``
    are the hidden states of ``PROBES``, for other devices to try their encoder by. ``say`` is told what is
    being done. Deterministic on one machine. Raises ``Missing`` without torch.
    """
    recipe = recipe or Recipe()
    given = Given.of(data, taste)
    n_done, n_all = 0, 3 + len(more_seeds)

    def made(
        states: NDArray[np.floating], seed: int, items: item_to_item.Settings | None
    ) -> tuple[Pack, run.Report]:
        nonlocal n_done
        n_done += 1
        what = "the pack" if n_done == 1 else "another, for the card's figures"
        say(f"training and measuring {n_done} of {n_all}: {what}")
        pack = make_pack(
            data,
            states,
            seed=seed,
            recipe=recipe,
            items=items,
            encoder=encoder,
            taste=taste,
            name=name,
            folder=None if encoder.adapter is None else out_dir,
            given=given,
        )
        return pack, run.evaluate(data, pack, states, plain=given.plain)

    pack, report = made(hidden, seed, items)
    if probes is not None:
        pack = with_probes(pack, probes)
    others = {other: made(hidden, other, items)[1] for other in more_seeds}
    random_states = np.random.default_rng(seed).normal(size=hidden.shape).astype(np.float32)
    parts = card.Parts(made(hidden, seed, None)[1], made(random_states, seed, None)[1])
    split = given.plain.split
    learners = card.Learners(len(split.head), len({cut.user_id for cut in split.fusion}), choice)
    text = card.render(
        pack, recipe, {seed: report, **others}, parts, command=command, about=about, learners=learners
    )
    packs.save(pack, out_dir, text)
    return Trained(packs.load(out_dir), report)


def with_probes(pack: Pack, hidden: NDArray[np.floating]) -> Pack:
    """The same pack with what its encoder makes of ``PROBES``, from their hidden states."""
    vectors = Towers.of(pack.head).item_vectors(hidden)
    probes = Probes(tuple(item.title for item in PROBES), vectors)
    return packs.make(
        pack.manifest, pack.head, folder=pack.folder, item_to_item=pack.item_to_item, probes=probes
    )


def make_pack(
    data: Log,
    hidden: NDArray[np.floating],
    *,
    seed: int,
    recipe: Recipe,
    items: item_to_item.Settings | None = ITEMS,
    encoder: Encoder = MINILM,
    taste: TasteSettings = TASTE,
    name: str = NAME,
    folder: Path | None = None,
    given: Given | None = None,
) -> Pack:
    """Head from 70 % of the earlier users, prior from the others; the later users are not looked at.

    ``folder`` has the encoder's adapter, if there is one; ``given`` can be shared by trainings of one taste.
    """
    draft, listed, histories = drafted(
        data,
        hidden,
        seed=seed,
        recipe=recipe,
        items=items,
        encoder=encoder,
        taste=taste,
        name=name,
        folder=folder,
        given=given,
    )
    unseen = unaware(data, hidden, listed, histories, seed=seed, recipe=recipe, items=items, taste=taste)
    manifest = Manifest(
        name,
        VERSION,
        encoder,
        taste,
        fusion=prior.as_prior(prior.fit(listed, unseen)),
        without_model=prior.as_prior(prior.fit(listed, unseen, model=False)),
    )
    return packs.make(manifest, draft.head, folder=folder, item_to_item=draft.item_to_item)


def drafted(
    data: Log,
    hidden: NDArray[np.floating],
    *,
    seed: int,
    recipe: Recipe,
    items: item_to_item.Settings | None = ITEMS,
    encoder: Encoder = MINILM,
    taste: TasteSettings = TASTE,
    name: str = NAME,
    folder: Path | None = None,
    given: Given | None = None,
) -> tuple[Pack, list[lists.Listed], list[History]]:
    """A pack that believes what one does before any choice, its lists for the users who fit the prior, and
    the histories that it learned from.
    """
    given = given or Given.of(data, taste)
    head, of_items = learn(data.items, hidden, given.histories, recipe, items, seed=seed)
    neutral = prior.as_prior(prior.before())
    draft = packs.make(
        Manifest(name, VERSION, encoder, taste, neutral, neutral), head, folder=folder, item_to_item=of_items
    )
    return draft, given.plain.knowing(given.plain.fusion, draft, hidden), given.histories


def unaware(
    data: Log,
    hidden: NDArray[np.floating],
    listed: Sequence[lists.Listed],
    histories: Sequence[History],
    *,
    seed: int,
    recipe: Recipe,
    items: item_to_item.Settings | None,
    taste: TasteSettings,
) -> list[lists.Listed]:
    """``listed`` as a pack would see them that was made before a share of the items came, drawn by ``seed``.

    From them the fusion learns how far to trust what a pack says of new items; the share is the evaluation's.
    None where the rest of the items is too little to learn from.
    """
    n_new = round(COLD_SHARE * len(data.items))
    old = np.sort(np.random.default_rng(seed).permutation(len(data.items))[n_new:])
    row_of = np.full(len(data.items), -1)
    row_of[old] = np.arange(len(old))
    before = [_among(each, row_of) for each in histories]
    try:
        head, found = learn([data.items[row] for row in old], hidden[old], before, recipe, items, seed=seed)
    except FailedPrecondition:
        return []
    known = None if found is None else Known.of(found)
    learned = lists.Learned.make(Towers.of(head), known, data.items, hidden)
    make = lists.Lister(PopularityServer((), {}), {item.id: item for item in data.items}, Taste.of(taste))
    return [make.knowing(each, learned) for each in listed]


def _among(history: History, row_of: NDArray[np.int64]) -> History:
    """The history without the items whose new row is -1."""
    kept = row_of[history.rows] >= 0
    return History(row_of[history.rows][kept], history.weights[kept], history.liked[kept])


def learn(
    items: Sequence[Item],
    hidden: NDArray[np.floating],
    histories: Sequence[History],
    recipe: Recipe,
    settings: item_to_item.Settings | None,
    *,
    seed: int,
) -> tuple[Head, ItemToItem | None]:
    """A pack's arrays from ``histories`` of ``items``, whose hidden states are [n_items, n_embd], aligned."""
    arrays = train_head(hidden, histories, recipe, seed=seed)
    head = Head(**{f.name: getattr(arrays, f.name).astype(np.float16) for f in fields(Head)})
    if settings is None:
        return head, None
    return head, item_to_item.learn(histories, [content_hash(item) for item in items], settings)


def history(past: Interactions, taste: TasteSettings) -> History:
    """One user's past, oldest first, as the head's training reads it.

    An item that was met again counts once, where it was first liked, else where it was first met: what is
    known of a user can't be what they like next. Age is measured from the newest interaction; only its
    ratio within a history matters.
    """
    liked = _LIKED[past.types]
    once = _once(past.rows, liked)
    age_days = (past.at_s[-1] - past.at_s[once]) / SECONDS_A_DAY
    of_type = _weight_of(taste)[past.types[once]]
    return History(
        rows=past.rows[once].astype(np.int64),
        weights=(of_type * 0.5 ** (age_days / taste.half_life_days)).astype(np.float32),
        liked=liked[once],
    )


def _weight_of(taste: TasteSettings) -> NDArray[np.float64]:
    """By event type."""
    weights = np.zeros(_N_TYPES)
    for type_ in EventType:
        weights[type_] = taste.event_weights.get(type_.name, 0.0)
    return weights


def _once(rows: NDArray[np.int32], liked: NDArray[np.bool_]) -> NDArray[np.intp]:
    """One place for each distinct row, in order: its first liked one, else its first."""
    order = np.lexsort((~liked, rows))
    first = np.r_[True, rows[order][1:] != rows[order][:-1]]
    return np.sort(order[first])
