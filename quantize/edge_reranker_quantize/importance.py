"""Importance matrices: which columns of a tensor matter on one's own kind of text; llama.cpp's GGUF format.

A file holds, for each tensor, the sums of squares of what its columns are multiplied with and the count of
tokens, as llama.cpp's tool of the name writes it; either program reads what the other wrote.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_reranker.engine.activations import Observed, observe
from edge_reranker.errors import InvalidArgument, ModelInvalid
from edge_reranker.evaluation import log, protocol, read_log
from edge_reranker.evaluation.log import Log
from edge_reranker.models.gguf_header import check_header
from edge_reranker.models.gguf_tensors import require_gguf
from edge_reranker.prompt import TEMPLATES, item_pieces
from edge_reranker.types import Context, Event, EventType, Item, Piece

Float32 = NDArray[np.float32]
Text = Sequence[Piece]

MAX_TOKENS = 8_192
TEMPLATE = "titles"
_N_EVENTS = 8
_ITEMS_A_CONTEXT = 4
_CHUNK = 512
_SEED = 5
_SUMS, _COUNTS = ".in_sum2", ".counts"


def measure(
    model: Path, texts: Sequence[Text], *, max_tokens: int = MAX_TOKENS, progress: Callable[[int], None]
) -> Observed:
    """Has ``model`` read the texts. Raises ModelInvalid, InvalidArgument for texts without a token."""
    check_header(model)
    return observe(model, texts, max_tokens=max_tokens, progress=progress)


def write(path: Path, found: Observed, name: str) -> None:
    """Writes what was found; ``name`` says of which texts."""
    writer = require_gguf().GGUFWriter(path, "imatrix")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", [name])
    writer.add_uint32("imatrix.chunk_count", max(1, found.n_tokens // _CHUNK))
    writer.add_uint32("imatrix.chunk_size", _CHUNK)
    for tensor, columns in sorted(found.columns.items()):
        writer.add_tensor(tensor + _SUMS, columns.sums[None])
        writer.add_tensor(tensor + _COUNTS, np.array([[columns.n_tokens]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(path: Path) -> dict[str, Float32]:
    """Mean squares by tensor, as ``derive`` takes them; 1 where nothing was counted, as llama.cpp has it.

    Raises ModelInvalid for a file of another kind.
    """
    try:
        tensors = {
            each.name: np.array(each.data, np.float32) for each in require_gguf().GGUFReader(path).tensors
        }
        found = {
            name.removesuffix(_SUMS): _means(sums, tensors[name.removesuffix(_SUMS) + _COUNTS])
            for name, sums in tensors.items()
            if name.endswith(_SUMS)
        }
    except (OSError, ValueError, KeyError, IndexError, NotImplementedError) as error:
        raise ModelInvalid(f"{path}: no importance matrix in GGUF: {error}; make it again") from error
    if not found:
        raise ModelInvalid(f"{path}: a GGUF, but no importance matrix; `quantize importance` makes one")
    if bad := [name for name, means in found.items() if not np.isfinite(means).all()]:
        raise ModelInvalid(f"{path}: {bad[0]} has numbers that are not finite; make it again")
    return found


def _means(sums: Float32, counts: Float32) -> Float32:
    rows = sums.reshape(counts.size, -1)
    counts = counts.reshape(-1, 1)
    return np.where(counts > 0, rows / np.maximum(counts, 1), 1).astype(np.float32).reshape(-1)


def reads_contexts(model: Path) -> bool:
    """Whether a model can be told contexts: BERT and its kin only read items. Raises ModelInvalid."""
    check_header(model)
    return "bert" not in require_gguf().GGUFReader(model).fields["general.architecture"].contents()


def texts_of_log(data: Log, *, contexts: bool) -> list[Text]:
    """Its items, and what users of the past did, as tier 2 tells it; nothing of later users, who test."""
    by_id = {item.id: item for item in data.items}
    pasts = [past for past in protocol.split(data).head.values() if len(past)] if contexts else []
    told = (log.events(list(past)[-_N_EVENTS:], by_id) for past in _shuffled(pasts))
    return _mixed(data.items, told)


def texts_of_file(path: Path, *, contexts: bool) -> list[Text]:
    """Items, one JSON object a line, and made-up contexts of them; or plain text, a text a line.

    Raises InvalidArgument.
    """
    with path.open("rb") as file:
        is_json = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"\x1f")
    if not is_json:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        found: list[Text] = [[Piece(line)] for line in lines if line.strip()]
        if not found:
            raise InvalidArgument("--texts", f"{path} has no text in it")
        return found
    items = read_log.read_items(path)
    return _mixed(items, _made_up(items) if contexts else iter(()))


def _made_up(items: Sequence[Item]) -> Iterator[tuple[Event, ...]]:
    drawn = _shuffled(items)
    while some := tuple(itertools.islice(drawn, _N_EVENTS)):
        yield tuple(Event(item.id, EventType.LIKE, 0.0, item) for item in some)


T = TypeVar("T")


def _shuffled(things: Sequence[T]) -> Iterator[T]:
    return (things[at] for at in np.random.default_rng(_SEED).permutation(len(things)))


def _mixed(items: Sequence[Item], told: Iterator[tuple[Event, ...]]) -> list[Text]:
    """Items as tier 1 reads them, in any order, and after every few a context as tier 2 does."""
    template = TEMPLATES[TEMPLATE]
    texts: list[Text] = []
    for at, item in enumerate(_shuffled(items)):
        texts.append(item_pieces(item))
        if at % _ITEMS_A_CONTEXT == 0 and (events := next(told, None)):
            texts.append([*template.prefix(Context(events), ""), *template.suffix(item)])
    return texts
