"""A pack for domains without a log: it has learned nothing of any item, only how far texts can be trusted.

Item vectors are the encoder's states as they are; the content part is centred on each list
(``ranking.affinity``), which is all the whitening that helps an encoder of sentences (docs/decisions/0015).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import lists, metrics, protocol, run, sampled
from edge_reranker.evaluation.log import Log
from edge_reranker.models import pack as packs
from edge_reranker.models.pack import Encoder, Head, Manifest, Pack, Prior
from edge_reranker.ranking import fusion
from edge_reranker.training import prior, recipe

NAME = "generic-minilm"
ENCODER = recipe.MINILM
_CARD = """\
# {name}

Pack `{id}`: no towers and no map of items. An item's vector is the hidden state of
`{model}` ({n_dims} halves of a float); history and candidates are compared after the mean of the list is
taken away. For domains that have no log to learn from.

## What was learned

Nothing of any item. How far to trust likeness of texts, words and tags was fitted on the choices of
{n_fusion} MovieLens-100K users behind a popularity server; the deviations stay as wide as before any choice,
since elsewhere people choose otherwise. No rating, title or user is in this pack.

## What it reached

On {n_test} users of MovieLens-100K of whom nothing was learned, NDCG@10 [95 % interval over users]:

| | server or popularity | this pack |
|---|---|---|
| popularity server, first 100 | {server} | {ours} ({change}; {worse} of {n_test} users worse) |
| among 99 popularity-sampled items | {popular} | {sampled} |
| the same, by likeness of the texts alone | | {content} |

These are films, on which the weights were fitted too. Elsewhere nothing was measured.

## Made with

```
{command}
```
"""


def train(
    data: Log,
    hidden: NDArray[np.floating],
    out_dir: Path,
    *,
    command: str,
    probes: NDArray[np.floating] | None = None,
) -> Pack:
    """Make the pack from the items' ``hidden`` states [n_items, n_embd], measure it, write it with a card."""
    pack = make_pack(data, hidden)
    if probes is not None:
        pack = recipe.with_probes(pack, probes)
    packs.save(pack, out_dir, _card(data, hidden, pack, command))
    return packs.load(out_dir)


def make_pack(data: Log, hidden: NDArray[np.floating], *, encoder: Encoder = ENCODER) -> Pack:
    """Head of one matrix that changes nothing; the prior from the users who fit it, never the later ones."""
    split = protocol.split(data)
    n = encoder.n_embd
    head = Head(
        shift=np.zeros(n, np.float16),
        scale=np.ones(n, np.float16),
        project=np.eye(n, dtype=np.float16),
        bias=np.zeros(n, np.float16),
        turn=np.zeros((0, 0), np.float16),
    )
    neutral = prior.as_prior(prior.before())
    manifest = Manifest(NAME, recipe.VERSION, encoder, recipe.TASTE, neutral, neutral, centred="list")
    draft = packs.make(manifest, head)
    make = run.lister(data, split, draft, hidden)
    listed = [make.listed(cut) for cut in split.fusion]
    return packs.make(
        replace(manifest, fusion=_believed(listed), without_model=_believed(listed, model=False)), head
    )


def _believed(listed: Sequence[lists.Listed], *, model: bool = True) -> Prior:
    """What the choices say, as unsure as before them: another domain's users may choose otherwise."""
    found = prior.pooled(listed, model=model)
    return prior.as_prior(replace(found, covariance=prior.before(model=model).covariance))


def _card(data: Log, hidden: NDArray[np.floating], pack: Pack, command: str) -> str:
    split = protocol.split(data)
    make = run.lister(data, split, pack, hidden)
    weights = fusion.Weights.of(pack.manifest.fusion)
    listed = [make.listed(cut) for cut in split.test]
    before, after, users = lists.server_places(listed), lists.places(listed, weights), lists.users(listed)
    change = metrics.compare(after, before, users)
    counts = Counter(each.item_id for past in split.head.values() for each in past)
    negatives = sampled.Negatives(
        99, data.items, np.array([counts[item.id] for item in data.items], np.float64), sampled.met(data)
    )
    trials = sampled.trials(make, split.test, negatives, counts)
    of_trials = lists.users(trials)

    def shown(places: metrics.Places, users: Sequence[str]) -> str:
        found = metrics.bootstrap(metrics.ndcg(places), users)
        return f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"

    gain = change.ndcg10
    return _CARD.format(
        name=pack.manifest.name,
        id=pack.id,
        model=pack.manifest.encoder.model,
        n_dims=pack.n_dims,
        n_fusion=len({cut.user_id for cut in split.fusion}),
        n_test=len(set(users)),
        server=shown(before, users),
        ours=shown(after, users),
        change=f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]",
        worse=change.users_worse,
        popular=shown(lists.server_places(trials), of_trials),
        sampled=shown(lists.places(trials, weights), of_trials),
        content=shown(sampled.by_column(trials, "content"), of_trials),
        command=command,
    )
