"""`train` on made-up logs of 100,000, 1,000,000 and 10,000,000 interactions: time and memory.

20,000 items and the default encoder. Users start one after another over the whole span, so that some are
later ones, and have 50 interactions in the mean, 10 at the least. Each has three of 30 groups of items, and
takes seven of ten items from these; popularity falls with the rank. What is taken from the own groups is
liked, the rest viewed. The items are encoded once, in a process of its own; each size then trains in one of
its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import MODEL, cache_dir, report

_SIZES = (100_000, 1_000_000, 10_000_000)
_ITEMS = 20_000
_OWN_GROUPS = 3
_OWN_SHARE = 0.7
_MEAN_MORE = 40
_LEAST = 10
_SPAN_S = 365 * 86_400.0
_GAP_S = 2 * 86_400.0
_START_S = 1_735_689_600.0  # 2025-01-01
_USERS_AT_ONCE = 20_000
_MAX_MIB = 4096
_ENCODE = """
import sys
from pathlib import Path
from edge_reranker.cli.hidden import kept_hidden_states
from edge_reranker.config import Config
from edge_reranker.evaluation import read_log
from edge_reranker.training import recipe
cache = Path(sys.argv[1])
config = Config(cache, cache / "s", cache, "minilm")
kept_hidden_states(config, recipe.MINILM, read_log.read_items(Path(sys.argv[2])))
"""


def main() -> bool:
    """Sizes of ``SCALE`` (numbers of interactions) if it is set."""
    sizes = tuple(map(int, os.environ.get("SCALE", "").split())) or _SIZES
    figures: dict[str, object] = {"n_items": _ITEMS, "encoder": MODEL}
    peaks = []
    with tempfile.TemporaryDirectory(prefix="er-scale-") as name:
        folder = Path(name)
        # A cache of its own, or these states push those of somebody's data set out.
        (folder / "cache").mkdir()
        (folder / "cache" / "models").symlink_to(cache_dir() / "models")
        write_items(folder / "items.jsonl")
        encode = (sys.executable, "-c", _ENCODE, str(folder / "cache"), str(folder / "items.jsonl"))
        figures |= _prefixed("encode", _measured(encode))
        for size in sizes:
            path = folder / f"{size}.parquet"
            # In another process: a child's peak begins with its parent's.
            subprocess.run([sys.executable, "-m", "benchmarks.scale", str(path), str(size)], check=True)
            found = _measured(_train(folder, path))
            path.unlink()
            peaks.append(found["peak_mib"])
            figures |= _prefixed(str(size), found)
            print(f"# {size:,} interactions: {found}", file=sys.stderr, flush=True)
    return report("scale", figures, {f"at most {_MAX_MIB} MiB": max(peaks) <= _MAX_MIB})


def _prefixed(name: str, found: dict[str, float]) -> dict[str, float]:
    return {f"{name}_{figure}": value for figure, value in found.items()}


def _train(folder: Path, interactions: Path) -> tuple[str, ...]:
    files = ("--items", str(folder / "items.jsonl"), "--interactions", str(interactions))
    where = ("--out", str(folder / f"pack-{interactions.stem}"), "--cache-dir", str(folder / "cache"))
    return (sys.executable, "-m", "edge_reranker.cli", "train", *files, *where)


def _measured(command: tuple[str, ...]) -> dict[str, float]:
    """Wall and processor time of a command, all its processes, and the peak of the largest of them."""
    start = time.perf_counter()
    # Not the class's own waiting, which does not tell what was used.
    process = subprocess.Popen(command, stdout=sys.stderr)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    wall_s = time.perf_counter() - start
    return {"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024}


def write_items(path: Path) -> None:
    """A shop's, each with a text of its own; item ``n`` is of group ``n`` modulo the number of groups."""
    from edge_reranker.evaluation.synthetic import DOMAINS

    shop = DOMAINS["shop"]
    kinds, styles, details = list(shop.kinds), shop.styles, shop.details
    with path.open("w", encoding="utf-8") as file:
        for at in range(_ITEMS):
            kind, style = kinds[at % len(kinds)], styles[at // len(kinds) % len(styles)]
            things = shop.kinds[kind]
            thing, detail = things[at % 7 % len(things)], details[at % 11 % len(details)]
            title = f"{style} {thing}, {detail}, model {at}".capitalize()
            row = {"id": str(at), "title": title, "text": f"A {style} {thing} in {detail}.", "tags": [kind]}
            file.write(json.dumps(row) + "\n")


def n_groups() -> int:
    """Kinds times styles."""
    from edge_reranker.evaluation.synthetic import DOMAINS

    return len(DOMAINS["shop"].kinds) * len(DOMAINS["shop"].styles)


def write_log(path: Path, size: int) -> None:
    """``size`` interactions as Parquet, some users at a time."""
    import pyarrow
    from pyarrow import parquet

    with contextlib.ExitStack() as stack:
        writer = None
        for columns in interactions(size):
            table = pyarrow.table(columns)
            writer = writer or stack.enter_context(parquet.ParquetWriter(path, table.schema))
            writer.write_table(table)


def interactions(size: int) -> Iterator[dict[str, NDArray[np.generic]]]:
    """The columns of a log, ``size`` rows in all."""
    rng = np.random.default_rng(0)
    lengths = _LEAST + rng.geometric(1 / _MEAN_MORE, size // _LEAST + 1)
    n_users = int(np.searchsorted(np.cumsum(lengths), size)) + 1
    lengths = lengths[:n_users]
    lengths[-1] -= lengths.sum() - size
    groups = n_groups()
    per_group = _ITEMS // groups
    popularity = np.cumsum(1.0 / (10.0 + np.arange(per_group)))
    popularity /= popularity[-1]
    for first in range(0, n_users, _USERS_AT_ONCE):
        some = lengths[first : first + _USERS_AT_ONCE]
        own = rng.integers(groups, size=(len(some), _OWN_GROUPS))
        user = np.repeat(np.arange(len(some)), some)
        liked = rng.random(len(user)) < _OWN_SHARE
        group = np.where(
            liked, own[user, rng.integers(_OWN_GROUPS, size=len(user))], rng.integers(groups, size=len(user))
        )
        rank = np.searchsorted(popularity, rng.random(len(user)), side="right")
        since_s = np.cumsum(rng.exponential(_GAP_S, len(user)))
        began = np.cumsum(some) - some
        at_s = since_s - since_s[began[user]] + _START_S + _SPAN_S * (first + user) / n_users
        yield {
            "user_id": first + user,
            "item_id": rank * groups + group,
            "type": np.where(liked, "PURCHASE", "VIEW"),
            "occurred_at": at_s,
        }


if __name__ == "__main__":
    write_log(Path(sys.argv[1]), int(sys.argv[2]))
