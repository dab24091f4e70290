"""The card of a pack: what it was made from, what it reached, and what it must not be used for."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np

from edge_reranker.evaluation import run
from edge_reranker.evaluation.log import Log
from edge_reranker.evaluation.synthetic import MADE_UP
from edge_reranker.models.cache import made_of
from edge_reranker.models.pack import Pack
from edge_reranker.training.head import Recipe
from edge_reranker.types import EventType

_TEXT = """\
# {name}

Pack `{id}`: two towers over hidden states of `{model}` ({made},
{pooled}), a map from items to others that the same people like ({n_items} items, {n_pairs}
pairs), a prior over fusion weights, and settings. Item vectors are {n_dims} halves of a float.

## Data

{data}

The map names items by the hash of their text, and its weights come from all users' {interactions} together.

The encoder's weights are not in this pack either; their licence is their own.

## How it was learned

Users who start before the 70 % quantile of all {interactions}' times: 70 % of them train the towers (up to
that time only), the other 30 % fit the prior. Users who start later were not looked at until measuring.

{counts}

{recipe}

## What it reached

A popularity server's first 100, seen items left out; targets are {targets} at a later time.

```
{report}
```

NDCG@10 on all cases by training seed (the pack is that of the first): {seeds}.

Without the map of items: {towers}; and then on random numbers in place of the hidden states: {control}. That
much the {interactions} alone teach about items that were in training; "without the model" above has the map.
About new items only the hidden states can say anything.

## Limits

The towers read hidden states of the encoder named above and of no other; a coarser quantisation of the same
model counts as another. It learned from {limits}: on other domains
the towers know nothing, and the prior is too sure of them. Use a pack of your own there.

## Made with

```
{command}
```
"""


_POOLED = {"mean": "mean over tokens", "cls": "the first token's", "last": "the last token's"}


@dataclass(frozen=True, slots=True)
class About:
    """What the card says of the data, in Markdown; the rest are parts of sentences."""

    data: str
    interactions: str
    targets: str
    limits: str


MOVIELENS = About(
    data="""\
MovieLens-100K (GroupLens, University of Minnesota): F. Maxwell Harper and Joseph A. Konstan, "The MovieLens
Datasets: History and Context", ACM TiiS 5(4), 2015. Its terms allow research use, ask for that citation, and
forbid redistribution and commercial use without permission. No rating, title or user is in this pack; its
weights were learned from them. Whether that suits a commercial product is for you to decide; train your own
pack on your own logs otherwise.""",
    interactions="ratings",
    targets="the next films rated 4 or 5",
    limits="films up to 1998 and the people who rated them then",
)


def about(log: Log, *, items: str, interactions: str) -> About:
    """What can be told of a log without telling of a user: counts, types and days; and its files' names."""
    n_of = {EventType(type_).name: n for type_, n in enumerate(np.bincount(log.type).tolist()) if n}
    types = ", ".join(f"{n:,} {name}" for name, n in n_of.items())
    first, last = (
        datetime.fromtimestamp(float(at_s), UTC).date() for at_s in (log.at_s.min(), log.at_s.max())
    )
    days = f"{first} to {last}"
    return About(
        data=f"""\
`{items}`: {len(log.items):,} items. `{interactions}`: {len(log.at_s):,} interactions of
{len(log.users):,} users, {days} ({types}).

{_made_up(log)}""",
        interactions="interactions",
        targets="the next new items with a LIKE, PURCHASE or SHARE",
        limits=f"these items and users, {days}",
    )


def _made_up(log: Log) -> str:
    if all(item.id.startswith(MADE_UP) for item in log.items):
        return "The log is made up (`edge-reranker data make`): the figures below say nothing about people."
    return (
        "Whoever trained this pack answers for the right to use them, and says here what the licence is. No\n"
        "user, title or text is in this pack; its weights were learned from them."
    )


# Of fewer users, percentile intervals are too narrow to go by: with 4, one user is a quarter of every draw.
FEW = 50
_WIDTH = 110


@dataclass(frozen=True, slots=True)
class Learners:
    """How many users had a say in the towers and in the prior, and how the encoder was chosen."""

    head: int
    fusion: int
    choice: str = ""


def _counts(learners: Learners, own: run.Report) -> str:
    n_of = {"taught the towers": learners.head, "fitted the prior": learners.fusion, "tested": own.n_users}
    text = "Users: " + ", ".join(f"{n:,} {did}" for did, n in n_of.items()) + "."
    if min(n_of.values()) < FEW:
        text += (
            f" Fewer than {FEW} of a kind are little: the intervals below are too narrow, and other users "
            "could turn the figures. They show that the path works; measure again when there are more."
        )
    return "\n\n".join(textwrap.fill(part, _WIDTH) for part in (text, learners.choice) if part)


@dataclass(frozen=True, slots=True)
class Parts:
    """What packs without the map of items reached: with the ``towers``, and with towers on random numbers."""

    towers: run.Report
    control: run.Report


def render(
    pack: Pack,
    recipe: Recipe,
    reports: Mapping[int, run.Report],
    parts: Parts,
    *,
    command: str,
    learners: Learners,
    about: About = MOVIELENS,
) -> str:
    """The card as Markdown. ``reports`` are by training seed, the pack's own first."""
    encoder, items = pack.manifest.encoder, pack.item_to_item
    own = next(iter(reports.values()))
    seeds = ", ".join(f"seed {seed} {_reached(report)}" for seed, report in reports.items())
    return _TEXT.format(
        name=pack.manifest.name,
        id=pack.id,
        model=encoder.model,
        made=made_of(encoder.n_blocks, encoder.gguf_type),
        pooled=_POOLED[encoder.pooling]
        + (", length 1" if encoder.normalise else "")
        + (", by the pack's LoRA adapter" if encoder.adapter else ""),
        n_dims=pack.n_dims,
        recipe="\n".join(f"- {name}: {value}" for name, value in asdict(recipe).items()),
        counts=_counts(learners, own),
        report=own.as_text(),
        seeds=seeds,
        n_items=0 if items is None else len(items.keys),
        n_pairs=0 if items is None else len(items.others),
        towers=_reached(parts.towers),
        control=_reached(parts.control),
        command=command,
        **asdict(about),
    )


def _reached(report: run.Report) -> str:
    return f"{report.orders[run.OURS].ndcg10.mean:.4f} ({report.ratio:.2f} x)"
