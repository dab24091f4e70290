"""Trains tier 1's two towers on what users liked next: torch, one thread, deterministic.

The content part of an item's vector (``ranking.towers``) is not trained: it is the states' main directions.

Softmax over each user's liked items, given the rest of their history, among all items of the catalogue up to
``MAX_ITEMS``; of a larger one, among those that a step's batch has and others that are drawn for it, each of
which stands for its share of those that are not: Yi et al., "Sampling-bias-corrected neural modeling for
large corpus item recommendations", 2019, with the others drawn uniformly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from edge_reranker.errors import FailedPrecondition, Missing

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

MAX_ITEMS = 5_000
N_DRAWN = 2_048
CLIP = 6.0
_MASKED = -1e4
_CONSTANT = 1e-3  # of the usual deviation
_MIN_KNOWN = 3


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers of the recipe; docs/decisions says how they were chosen."""

    n_dims: int = 64
    n_components: int = 384
    whitening: float = 0.5
    n_steps: int = 840
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    dropout: float = 0.2
    temperature: float = 5.0
    max_known: int = 50
    max_targets: int = 20
    random_subset_share: float = 0.5
    popularity_offset: float = 0.5
    n_content: int = 64


@dataclass(frozen=True, slots=True)
class History:
    """One user's items, oldest first: rows of the hidden states, the events' weights, and what was liked."""

    rows: NDArray[np.int64]
    weights: Float32
    liked: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class HeadArrays:
    """A trained head in single precision; shapes as in ``models.pack.Head``."""

    shift: Float32
    scale: Float32
    project: Float32
    bias: Float32
    turn: Float32


def require_torch() -> ModuleType:
    """The torch package. Raises ``Missing`` when it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise Missing("training needs torch: pip install 'edge-reranker[train]'") from error
    module: ModuleType = torch
    return module


def train_head(
    hidden: NDArray[np.floating], histories: Sequence[History], recipe: Recipe, *, seed: int
) -> HeadArrays:
    """Fit the towers to ``histories`` over the items' hidden states [n_items, n_embd].

    Raises ``FailedPrecondition`` when no history has a liked item to predict, ``Missing`` without torch.
    """
    torch = require_torch()
    found = usable(histories)
    shift, scale, whiten, centre, directions = _whitening(np.asarray(hidden, np.float64), recipe)
    standard = np.clip((hidden - shift) * scale, -CLIP, CLIP)
    inputs = torch.tensor((standard - centre) @ whiten, dtype=torch.float32)
    del standard
    n_threads = torch.get_num_threads()
    # More threads change the order of sums, and with it the last bits: a pack must be reproducible.
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            project, turn = _fit(torch, inputs, found, recipe, np.random.default_rng(seed))
    finally:
        torch.set_num_threads(n_threads)
    folded = np.concatenate([whiten @ project, directions[: recipe.n_content].T], axis=1)
    return HeadArrays(
        shift=shift.astype(np.float32),
        scale=scale.astype(np.float32),
        project=folded.astype(np.float32),
        bias=(-centre @ folded).astype(np.float32),
        turn=turn.astype(np.float32),
    )


def _whitening(
    hidden: NDArray[np.float64], recipe: Recipe
) -> tuple[Float64, Float64, Float64, Float64, Float64]:
    """Shift and scale [n_embd], a whitening map [n_embd, n_components] for what they give, its centre, and
    the main directions [k, n_embd], which are the content part's as well.

    Components are divided by their deviation to the power ``whitening``: 0 is plain PCA, 1 white.
    """
    shift, deviation = hidden.mean(axis=0), hidden.std(axis=0)
    # Some encoders have numbers that never change (3 of MiniLM's 384): what they do not say is not magnified.
    varies = deviation > _CONSTANT * np.median(deviation)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    standard = np.clip((hidden - shift) * scale, -CLIP, CLIP)
    centre = standard.mean(axis=0)
    directions, singular = principal(standard - centre, max(recipe.n_components, recipe.n_content))
    whitened, singular = directions[: recipe.n_components], singular[: recipe.n_components]
    deviations = singular / np.sqrt(len(hidden))
    whiten = whitened.T / deviations**recipe.whitening
    lengths = np.linalg.norm((standard - centre) @ whiten, axis=1)
    return shift, scale, whiten / np.sqrt((lengths**2).mean()), centre, directions


def principal(centred: Float64, n: int) -> tuple[Float64, Float64]:
    """In which directions [k, n_embd] ``centred`` [n_items, n_embd] varies most, and its singular values [k].

    Largest first, k being ``n`` or what there is: plain PCA. To divide by the deviations costs the content
    part accuracy with every encoder that sees meaning (docs/decisions/0015). Those of a large catalogue come
    from its covariance, which takes a small share of the time.
    """
    if len(centred) > MAX_ITEMS:
        squares, vectors = np.linalg.eigh(centred.T @ centred)
        singular, directions = np.sqrt(np.maximum(squares[::-1], 0.0)), vectors.T[::-1]
    else:
        _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    k = min(n, int((singular > singular[0] * 1e-6).sum()))
    # The sign of a singular vector is the library's whim; fix it.
    signs = np.sign(directions[np.arange(k), np.abs(directions[:k]).argmax(axis=1)])
    return directions[:k] * signs[:, None], singular[:k]


def _fit(
    torch: ModuleType,
    inputs: object,
    histories: Sequence[History],
    recipe: Recipe,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The projection [n_components, n_dims] and the turn [n_dims, n_dims]."""
    n_items, n_inputs = inputs.shape  # type: ignore[attr-defined]
    functional = torch.nn.functional
    project = torch.nn.Linear(n_inputs, recipe.n_dims, bias=False)
    turn = torch.nn.Parameter(torch.eye(recipe.n_dims))
    log_temperature = torch.nn.Parameter(torch.tensor(float(np.log(recipe.temperature))))
    parameters = [project.weight, turn, log_temperature]
    offset = torch.tensor(popularity_offset(histories, n_items, recipe))
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=recipe.learning_rate, total_steps=recipe.n_steps
    )
    for _ in range(recipe.n_steps):
        known, wanted = batch(histories, n_items, recipe, rng)
        some, more = inputs, offset
        if n_items > MAX_ITEMS:
            rows, stand_for = drawn(known, wanted, rng)
            known, wanted = known[:, rows], wanted[:, rows]
            some, more = inputs[rows], offset[rows] + torch.tensor(stand_for)  # type: ignore[index]
        vectors = functional.normalize(project(functional.dropout(some, recipe.dropout)), dim=1)
        users = functional.normalize(torch.tensor(known) @ vectors @ turn, dim=1)
        logits = users @ vectors.T * log_temperature.exp() + more
        logits = logits.masked_fill(torch.tensor(known > 0), _MASKED)
        loss = -(torch.tensor(wanted) * torch.log_softmax(logits, dim=1)).sum() / len(known)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return (
        project.weight.detach().numpy().T.astype(np.float64),
        turn.detach().numpy().astype(np.float64),
    )


def drawn(known: Float32, wanted: Float32, rng: np.random.Generator) -> tuple[NDArray[np.intp], Float32]:
    """Rows of the items of one step, and what is added to their logits, both [n_some].

    All that the batch knows or wants, and ``N_DRAWN`` of the others. The log of how many each of these stands
    for makes the softmax's denominator that of all items, in expectation.
    """
    own = known.any(axis=0) | wanted.any(axis=0)
    others = np.flatnonzero(~own)
    n = min(N_DRAWN, len(others))
    rows = np.concatenate([np.flatnonzero(own), rng.choice(others, n, replace=False, shuffle=False)])
    stand_for = np.zeros(len(rows), np.float32)
    if n:
        stand_for[-n:] = np.log(len(others) / n)
    return rows, stand_for


def usable(histories: Sequence[History]) -> list[History]:
    """Those that can be parted into what is known and what is liked; ``FailedPrecondition`` if none can."""
    found = [h for h in histories if len(h.rows) > _MIN_KNOWN and h.liked.any()]
    if not found:
        raise FailedPrecondition(
            f"nothing to learn from: of the {len(histories)} users who teach the towers, none has more than "
            f"{_MIN_KNOWN} items by the moment of the split and a liked one among them"
        )
    return found


def popularity_offset(histories: Sequence[History], n_items: int, recipe: Recipe) -> Float32:
    """What popularity explains of a like, [n_items]: added to the logits, vectors need not learn it."""
    counts = np.full(n_items, 0.5)
    for history in histories:
        counts[history.rows] += 1
    return np.asarray(recipe.popularity_offset * np.log(counts), np.float32)


def batch(
    histories: Sequence[History], n_items: int, recipe: Recipe, rng: np.random.Generator
) -> tuple[Float32, Float32]:
    """What is known of each user [batch, n_items] and what they liked beyond it, weights summing to 1."""
    known = np.zeros((recipe.batch_size, n_items), np.float32)
    wanted = np.zeros((recipe.batch_size, n_items), np.float32)
    for row, at in enumerate(rng.integers(len(histories), size=recipe.batch_size)):
        history = histories[at]
        n = len(history.rows)
        if rng.random() < recipe.random_subset_share:
            shuffled = rng.permutation(n)
            n_known = int(rng.integers(_MIN_KNOWN, min(recipe.max_known, n - 1) + 1))
            past, rest = shuffled[:n_known], shuffled[n_known:]
        else:
            cut = int(rng.integers(_MIN_KNOWN, n))
            past, rest = np.arange(max(0, cut - recipe.max_known), cut), np.arange(cut, n)
        liked = rest[history.liked[rest]]
        if len(liked) > recipe.max_targets:
            liked = rng.choice(liked, recipe.max_targets, replace=False)
        if len(liked):
            known[row, history.rows[past]] = history.weights[past]
            wanted[row, history.rows[liked]] = 1.0 / len(liked)
    return known, wanted
