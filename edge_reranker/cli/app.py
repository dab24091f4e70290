"""The command group, and how errors become one line and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from edge_reranker import errors
from edge_reranker.cli import (
    backup,
    demo,
    doctor,
    encode,
    events,
    insights,
    key,
    model,
    namespace,
    packs,
    quality,
    quantize,
    rank,
    retention,
    serve,
    take,
    why,
)
from edge_reranker_client import errors as client_errors

EXIT_CODES = """\b
Exit codes:
  0    done
  1    an error that has no code of its own
  2    bad input: the message names the field and what is allowed
  3    the service is not reachable
  4    something must be done first, such as `model pull`
  5    the token is missing, wrong, or does not cover the call
  6    the store cannot do it: full, damaged, or the wrong key
  130  interrupted with Ctrl-C
  141  nobody reads the output any more, as after `| head -1`
"""

_CODES: tuple[tuple[type[Exception], int], ...] = (
    (errors.InvalidArgument, 2),
    (errors.NotFound, 2),
    (errors.FailedPrecondition, 4),
    (errors.ModelInvalid, 4),
    (errors.PackInvalid, 4),
    (errors.StoreError, 6),
    (client_errors.InvalidArgument, 2),
    (client_errors.NotFound, 2),
    (client_errors.FailedPrecondition, 4),
    (client_errors.Unauthenticated, 5),
    (client_errors.PermissionDenied, 5),
    (client_errors.ServiceUnavailable, 3),
    (client_errors.DeadlineExceeded, 3),
    (client_errors.StoreError, 6),
)


_NO_READER = 141  # what a shell reports for a program that SIGPIPE ended


class _Commands(click.Group):
    """Ends with an exit code of its own when nobody reads the output; click's is 1."""

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        with _told_to_nobody():  # --help
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with _told_to_nobody():
            return super().invoke(ctx)


@contextlib.contextmanager
def _told_to_nobody() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise click.exceptions.Exit(_NO_READER) from None


@click.group(cls=_Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edge-reranker")
def cli() -> None:
    """Puts a backend's candidates in the order that suits this user now, on this device.

    \b
    Example:
      edge-reranker model pull minilm
      edge-reranker serve
    """


for command in (
    *(serve.serve, rank.rank, events.record, events.events, events.forget),
    *(why.explain, why.profile, why.mute, why.unmute),
    *(retention.retention, namespace.namespace, insights.insights),
    *(take.export, take.import_),
    *(encode.encode, model.model, model.data, packs.pack, quality.train, quality.evaluate),
    *(quantize.quantize, demo.demo, backup.backup, key.key, doctor.doctor),
):
    cli.add_command(command)


def run() -> None:
    """Runs the command line and exits with its code."""
    if sys.stdin is None:  # it was closed before the start
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - until the process ends
    try:
        code = _run()
    except BrokenPipeError:  # while an error was being told
        code = _NO_READER
    _drop_unwritten()
    sys.exit(code)


def _drop_unwritten() -> None:
    """What could not be written goes nowhere: Python would complain about it on its way out."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # it was closed before the start
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run() -> int:
    try:
        code = cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        return 130
    except (errors.EdgeRerankerError, client_errors.EdgeRerankerError) as error:
        click.echo(f"Error: {error}", err=True)
        return exit_code(error)
    except UnicodeDecodeError as error:
        click.echo(f"Error: input is not UTF-8: {error.reason} at byte {error.start}", err=True)
        return 2
    except UnicodeEncodeError as error:
        click.echo(f"Error: {error.object[error.start]!a} cannot be written as {error.encoding}", err=True)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:
        click.echo(f"Error: {error.filename or 'input or output'}: {error.strerror}", err=True)
        return 4
    return code if isinstance(code, int) else 0  # click hands back what `Exit` was raised with


def exit_code(error: Exception) -> int:
    """The exit code of an error; 1 when it has none of its own."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)
