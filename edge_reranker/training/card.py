"""The card of a pack: what it was made from, what it reached, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from edge_reranker.evaluation import run
from edge_reranker.models.cache import made_of
from edge_reranker.models.pack import Pack
from edge_reranker.training.head import Recipe

_TEXT = """\
# {name}

Pack `{id}`: two towers over hidden states of `{model}` ({made},
{pooled}), a map from items to others that the same people like ({n_items} items, {n_pairs}
pairs), a prior over fusion weights, and settings. Item vectors are {n_dims} halves of a float.

## Data

MovieLens-100K (GroupLens, University of Minnesota): F. Maxwell Harper and Joseph A. Konstan, "The MovieLens
Datasets: History and Context", ACM TiiS 5(4), 2015. Its terms allow research use, ask for that citation, and
forbid redistribution and commercial use without permission. No rating, title or user is in this pack; its
weights were learned from them. The map names items by the hash of their text, and its weights come from all
users' ratings together. Whether that suits a commercial product is for you to decide; train your own
pack on your own logs otherwise.

The encoder's weights are not in this pack either; their licence is their own.

## How it was learned

Users who start before the 70 % quantile of all ratings' times: 70 % of them train the towers (ratings up to
that time only), the other 30 % fit the prior. Users who start later were not looked at until measuring.

{recipe}

## What it reached

A popularity server's first 100, seen films left out; targets are the next films rated 4 or 5 at a later time.

```
{report}
```

NDCG@10 on all cases by training seed (the pack is that of the first): {seeds}.

Without the map of items: {towers}; and then on random numbers in place of the hidden states:
{control}. So most of what is known of items that were in training comes from the ratings; "without
the model" above has the map. About new items only the hidden states can say anything.

## Limits

The towers read hidden states of the encoder named above and of no other; a coarser quantisation of the same
model counts as another. It learned from films up to 1998 and the people who rated them then: on other domains
the towers know nothing, and the prior is too sure of them. Use a pack of your own there.

## Made with

```
{command}
```
"""


_POOLED = {"mean": "mean over tokens", "cls": "the first token's", "last": "the last token's"}


@dataclass(frozen=True, slots=True)
class Parts:
    """What packs without the map of items reached: with the ``towers``, and with towers on random numbers."""

    towers: run.Report
    control: run.Report


def render(
    pack: Pack, recipe: Recipe, reports: Mapping[int, run.Report], parts: Parts, *, command: str
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
        pooled=_POOLED[encoder.pooling] + (", length 1" if encoder.normalise else ""),
        n_dims=pack.n_dims,
        recipe="\n".join(f"- {name}: {value}" for name, value in asdict(recipe).items()),
        report=own.as_text(),
        seeds=seeds,
        n_items=0 if items is None else len(items.keys),
        n_pairs=0 if items is None else len(items.others),
        towers=_reached(parts.towers),
        control=_reached(parts.control),
        command=command,
    )


def _reached(report: run.Report) -> str:
    return f"{report.orders[run.OURS].ndcg10.mean:.4f} ({report.ratio:.2f} x)"
