"""``export`` and ``import``: everything of a namespace, to take along."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from edge_reranker.cli import options, streams
from edge_reranker.errors import FailedPrecondition, InvalidArgument
from edge_reranker_client import errors as client_errors

_FIRST_REPORT_S = 2.0
_REPORT_S = 10.0
_PIECE_BYTES = 256 * 1024


@click.command()
@options.data_dir
@options.namespace
@click.option("--out", type=options.Given(path_type=Path), help="File to write, for you alone (0600).")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--encrypt", is_flag=True, help="Encrypt it under a passphrase, which is asked for.")
@options.passphrase_file
def export(
    out: Path | None, force: bool, encrypt: bool, passphrase_file: Path | None, namespace: str, **flags: Any
) -> None:
    """Write all that was recorded, as JSON lines, to standard output or a file.

    It is all of the namespace that cannot be made again: events with their items, the orders that were
    shown, what was chosen from them, and muted topics. `edge-reranker import` takes it back, here or on
    another device. Without a passphrase anybody who gets the file can read it.

    \b
    Example:
      edge-reranker export --out mine.jsonl
      edge-reranker export --out mine.age --encrypt
    """
    encrypted = encrypt or passphrase_file is not None
    if out is not None:
        streams.check_free(out, force=force)
    elif encrypted and sys.stdout.isatty():
        raise InvalidArgument("--out", "is needed: encrypted bytes are nothing for a terminal")
    passphrase = _passphrase(passphrase_file, new=True) if encrypted else ""
    with options.connect(flags, owner=True) as client:
        progress = _Progress("exported")
        chunks = progress.watch(client.export(namespace=namespace))
        with (
            contextlib.nullcontext(sys.stdout.buffer) if out is None else streams.private(out, force) as file
        ):
            if encrypted:
                from edge_reranker.store import passphrase as secret

                secret.encrypt(streams.reading(chunks), file, passphrase)
            else:
                file.writelines(chunks)
            file.flush()
    if out is not None:
        # The first and the last line are about the file.
        click.echo(f"{out}: {progress.n_lines - 2:,} records", err=True)


@click.command("import")
@click.argument("file", type=click.File("rb"))
@options.data_dir
@options.namespace
@options.passphrase_file
@options.as_json
def import_(
    file: BinaryIO, passphrase_file: Path | None, namespace: str, as_json: bool, **flags: Any
) -> None:
    """Take back FILE (- is standard input) that `edge-reranker export` wrote: all of it, or nothing.

    What is known already stays as it is. A file under a passphrase is recognised; it is decrypted on its way
    and never written in plain.

    \b
    Example:
      edge-reranker import mine.jsonl
      edge-reranker import mine.age --passphrase-file passphrase.txt
    """
    with options.connect(flags, owner=True) as client:
        progress = _Progress("read")
        try:
            with _plain(file, passphrase_file) as chunks:
                recorded = client.import_(progress.watch(chunks), namespace=namespace)
        except client_errors.InvalidArgument as error:
            raise client_errors.InvalidArgument(f"{_name(file)}, {error}") from None
    if as_json:
        from edge_reranker.cli import protojson
        from edge_reranker.v1 import context_service_pb2

        message = context_service_pb2.ImportResponse(
            recorded=recorded.recorded, duplicates=recorded.duplicates
        )
        click.echo(protojson.dump(message))
    else:
        click.echo(f"{recorded.recorded} recorded, {recorded.duplicates} known already")


@contextlib.contextmanager
def _plain(file: BinaryIO, passphrase_file: Path | None) -> Iterator[Iterable[bytes]]:
    """The file's content, decrypted if it is encrypted; nothing of it touches a disk."""
    from edge_reranker.store import passphrase as secret

    head = file.read(len(secret.MAGIC))
    rest = iter(lambda: file.read(_PIECE_BYTES), b"")
    if head != secret.MAGIC:
        if passphrase_file is not None:
            raise InvalidArgument("--passphrase-file", f"is not needed: {_name(file)} is not encrypted")
        yield _joined(head, rest)
        return
    passphrase = _passphrase(passphrase_file, new=False, data_on_stdin=file is _stdin())
    source = streams.reading(_joined(head, rest))
    failed: list[BaseException] = []
    read_end, write_end = os.pipe()

    def decrypt() -> None:
        try:
            with os.fdopen(write_end, "wb") as target:
                secret.decrypt(source, target, passphrase)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=decrypt, name="decrypt", daemon=True)

    def chunks(plain: BinaryIO) -> Iterator[bytes]:
        while piece := plain.read(_PIECE_BYTES):
            yield piece
        thread.join()
        # Before the end: only now is it known that nothing was cut off.
        for error in failed:
            if isinstance(error, InvalidArgument):
                field = "passphrase" if error.field == "passphrase" else _name(file)
                raise InvalidArgument(field, error.problem) from None
            raise error

    with os.fdopen(read_end, "rb") as plain:
        thread.start()
        yield chunks(plain)


def _joined(head: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def _name(file: BinaryIO) -> str:
    return getattr(file, "name", "<stdin>")


def _stdin() -> object:
    return getattr(sys.stdin, "buffer", None)


def _passphrase(file: Path | None, *, new: bool, data_on_stdin: bool = False) -> str:
    if file is not None:
        return streams.passphrase_in(file)
    if data_on_stdin and not streams.has_terminal():
        raise FailedPrecondition(
            "the file needs a passphrase and there is no terminal; give --passphrase-file"
        )
    found: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=new, err=True)
    return found


class _Progress:
    """Tells on stderr how far a long transfer is."""

    def __init__(self, done: str) -> None:
        self.n_lines = 0
        self._done = done

    def watch(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        size_bytes, next_s = 0, 0.0
        for chunk in chunks:
            next_s = next_s or time.monotonic() + _FIRST_REPORT_S
            yield chunk
            self.n_lines += chunk.count(b"\n")
            size_bytes += len(chunk)
            if time.monotonic() > next_s:
                click.echo(f"{self._done}: {self.n_lines:,} lines, {size_bytes / 1e6:,.0f} MB", err=True)
                next_s = time.monotonic() + _REPORT_S
