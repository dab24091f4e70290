"""``namespace``: which apps there are, and who may go by whose events."""

from __future__ import annotations

from typing import Any

import click

from edge_reranker.cli import options, protojson
from edge_reranker.errors import NotFound
from edge_reranker.v1 import namespace_service_pb2 as pb


@click.group()
def namespace() -> None:
    """Give each app its own part of the store.

    \b
    Example:
      edge-reranker namespace create news
      edge-reranker namespace grant --source default --reader news
    """


@namespace.command("list")
@options.data_dir
@options.as_json
def list_(as_json: bool, **flags: Any) -> None:
    """List the namespaces, their tokens and grants.

    \b
    Example:
      edge-reranker namespace list
    """
    with options.connect(flags, owner=True) as client:
        answer = client.namespaces.list_message()
    if as_json:
        click.echo(protojson.dump(answer))
        return
    width = max(len(each.name) for each in answer.namespaces)
    for each in answer.namespaces:
        click.echo(f"{each.name:<{width}}  {each.events:>9,} events  {each.token_file}")
        for grant in each.grants:
            click.echo(f"{'':<{width}}  goes by {grant.source} {_since(grant)}")


@namespace.command()
@click.argument("name")
@options.data_dir
@options.as_json
def create(name: str, as_json: bool, **flags: Any) -> None:
    """Make namespace NAME and a token for its app; both are there at once.

    If NAME is there already, it stays as it is; a token file that was removed is made anew.

    \b
    Example:
      edge-reranker namespace create news
    """
    with options.connect(flags, owner=True) as client:
        answer = client.namespaces.create_message(name)
    _say(f"{name}: its app's token is {answer.namespace.token_file}", answer, as_json)


@namespace.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.data_dir
@options.as_json
def delete(name: str, yes: bool, as_json: bool, **flags: Any) -> None:
    """Take the token of NAME's app back, and forget everything in it.

    \b
    Example:
      edge-reranker namespace delete news --yes
    """
    with options.connect(flags, owner=True) as client:
        # The call itself can be made again and again; somebody who mistypes wants to know.
        known = {each.name: each.events for each in client.namespaces.list()}
        if name not in known:
            raise NotFound(f"there is no namespace {name!r}; `edge-reranker namespace list` names them")
        if not yes:
            click.confirm(f"Delete {name} and forget its {known[name]:,} events?", abort=True, err=True)
        answer = client.namespaces.delete_message(name)
    _say(f"{name}: deleted, {answer.events:,} events forgotten", answer, as_json)


def _two(command: Any) -> Any:
    for option in (
        click.option("--reader", required=True, help="Whose rankings."),
        click.option("--source", required=True, help="Whose events."),
    ):
        command = option(command)
    return command


@namespace.command()
@_two
@options.data_dir
@options.as_json
def grant(source: str, reader: str, as_json: bool, **flags: Any) -> None:
    """Let the reader's rankings go by the source's events, too.

    The reader's app does not get to see them. It does not work the other way round, nor over two steps.

    \b
    Example:
      edge-reranker namespace grant --source shop --reader news
    """
    with options.connect(flags, owner=True) as client:
        answer = client.namespaces.grant_message(source=source, reader=reader)
    _say(f"{reader} goes by the events of {source} {_since(answer.grant)}", answer, as_json)


@namespace.command()
@_two
@options.data_dir
@options.as_json
def revoke(source: str, reader: str, as_json: bool, **flags: Any) -> None:
    """End a grant; what was derived by it is forgotten.

    \b
    Example:
      edge-reranker namespace revoke --source shop --reader news
    """
    with options.connect(flags, owner=True) as client:
        answer = client.namespaces.revoke_message(source=source, reader=reader)
    _say(f"{reader} does not go by the events of {source}", answer, as_json)


def _since(grant: pb.Grant) -> str:
    return f"since {grant.granted_at.ToDatetime().isoformat(timespec='seconds')}Z"


def _say(text: str, answer: Any, as_json: bool) -> None:
    click.echo(protojson.dump(answer) if as_json else text)
