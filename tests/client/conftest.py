"""Shares the server that the tests of this folder talk to."""

from tests.server.fixtures import app, owner, served, tmp_path

__all__ = ["app", "owner", "served", "tmp_path"]
