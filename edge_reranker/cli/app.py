"""The command group, and how errors become one line and an exit code."""

from __future__ import annotations

import signal
import sys

import click

from edge_reranker import errors
from edge_reranker.cli import demo, doctor, encode, events, model, quality, rank, serve
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


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edge-reranker")
def cli() -> None:
    """Puts a backend's candidates in the order that suits this user now, on this device.

    \b
    Example:
      edge-reranker model pull smollm2-135m
      edge-reranker serve
    """


for command in (
    *(serve.serve, rank.rank, events.record, events.events, events.forget),
    *(encode.encode, model.model, model.data, quality.train, quality.evaluate, demo.demo, doctor.doctor),
):
    cli.add_command(command)


def run() -> None:
    """Runs the command line and exits with its code."""
    # A command that is told to stop cleans up as it does for Ctrl-C; `serve` has handlers of its own.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    except (errors.EdgeRerankerError, client_errors.EdgeRerankerError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(exit_code(error))
    except UnicodeDecodeError as error:
        click.echo(f"Error: input is not UTF-8: {error.reason} at byte {error.start}", err=True)
        sys.exit(2)
    except OSError as error:
        click.echo(f"Error: {error.filename or 'input or output'}: {error.strerror}", err=True)
        sys.exit(4)
    sys.exit(code if isinstance(code, int) else 0)  # click hands back what `Exit` was raised with


def exit_code(error: Exception) -> int:
    """The exit code of an error; 1 when it has none of its own."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)
