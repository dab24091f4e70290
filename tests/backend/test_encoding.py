"""An encoding that was stopped goes on, mixes nothing, and ends in the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_reranker.backend.files import Encoded
from edge_reranker.backend.parts import Parts
from edge_reranker.backend.run import Encoding
from edge_reranker.errors import FailedPrecondition, InvalidArgument
from tests.backend.catalogues import Digests, catalogue, encoding, lines

N_ITEMS = 1_000  # eight batches


def write(path: Path, encoded: Encoded) -> None:
    with path.open("wb") as file:
        for items, vectors in encoded:
            for item, vector in zip(items, vectors, strict=True):
                file.write(item.id.encode() + vector.tobytes())


def run(work: Encoding, out: Path, encoders: Digests) -> int:
    """The whole of it; how many items had their vectors in the end."""
    done: list[int] = []
    with work.parts(out) as parts:
        work.fill(parts, encoders, done.append)
        work.assemble(parts, out, write)
    return sum(done)


def uninterrupted(work: Encoding, folder: Path) -> bytes:
    assert run(work, folder / "whole", Digests()) == N_ITEMS
    return (folder / "whole").read_bytes()


def test_a_stopped_encoding_goes_on_where_it_was_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    work, out = encoding(catalogue(tmp_path, lines(N_ITEMS))), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(work, out, Digests(stop_after=3))
    assert not out.exists()
    rest = Digests()
    assert run(work, out, rest) == N_ITEMS
    assert len(rest.texts) == N_ITEMS - 3 * 128
    assert out.read_bytes() == uninterrupted(work, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.jsonl", "out", "whole"]


def test_a_damaged_or_half_written_part_is_made_again(tmp_path: Path) -> None:
    work, out = encoding(catalogue(tmp_path, lines(N_ITEMS))), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(work, out, Digests(stop_after=3))
    first, second, _ = sorted((tmp_path / ".out.parts").glob("??/*"))
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    second.write_bytes(second.read_bytes()[:100])
    rest = Digests()
    run(work, out, rest)
    assert len(rest.texts) == N_ITEMS - 128
    assert out.read_bytes() == uninterrupted(work, tmp_path)


def test_of_a_changed_catalogue_only_what_changed_is_made_again(tmp_path: Path) -> None:
    work, out = encoding(catalogue(tmp_path, lines(N_ITEMS))), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(work, out, Digests(stop_after=3))
    changed = encoding(catalogue(tmp_path, lines(N_ITEMS).replace("Film 200", "Another film")))
    rest = Digests()
    run(changed, out, rest)
    assert len(rest.texts) == N_ITEMS - 2 * 128
    assert "Another film. Crime" in rest.texts
    assert out.read_bytes() == uninterrupted(changed, tmp_path)


def test_parts_of_another_pack_are_never_taken(tmp_path: Path) -> None:
    items, out = catalogue(tmp_path, lines(N_ITEMS)), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(encoding(items, pack_id="another"), out, Digests(stop_after=3))
    all_of_it = Digests()
    run(encoding(items), out, all_of_it)
    assert len(all_of_it.texts) == N_ITEMS


def test_a_catalogue_that_changes_meanwhile_is_noticed_and_nothing_is_written(tmp_path: Path) -> None:
    work, out = encoding(catalogue(tmp_path, lines(N_ITEMS))), tmp_path / "out"
    changed = pytest.raises(FailedPrecondition, match=r"items\.jsonl: changed while it was encoded; run the")
    with changed, work.parts(out) as parts:
        work.fill(parts, Digests(), lambda n: None)
        catalogue(tmp_path, lines(N_ITEMS, first=1))
        work.assemble(parts, out, write)
    assert not out.exists()


def test_an_item_without_tokens_is_named_and_what_was_done_is_kept(tmp_path: Path) -> None:
    bad = '{"id": "bad", "title": "Nothing but control strings"}\n'
    work, out = encoding(catalogue(tmp_path, lines(200) + bad + lines(100, first=200))), tmp_path / "out"
    with pytest.raises(InvalidArgument, match=r"items\.jsonl, item 'bad': its text is nothing but control"):
        run(work, out, Digests())
    rest = Digests()
    run(encoding(catalogue(tmp_path, lines(300))), out, rest)
    assert len(rest.texts) == 300 - 128


def test_two_runs_that_make_the_same_file_do_not_meet(tmp_path: Path) -> None:
    with (
        Parts(tmp_path / "out", "a"),
        pytest.raises(FailedPrecondition, match="another process is making it"),
    ):
        Parts(tmp_path / "out", "a")
    with Parts(tmp_path / "out", "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_file_has_the_rights_of_the_users_other_files(tmp_path: Path) -> None:
    items = catalogue(tmp_path, lines(N_ITEMS))
    uninterrupted(encoding(items), tmp_path)
    assert (tmp_path / "whole").stat().st_mode == items.path.stat().st_mode
