"""A package index on this machine, with one wheel and whatever can be wrong with an index."""

from __future__ import annotations

import hashlib
import io
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


def metadata(name: str) -> bytes:
    package, version = name.split("-")
    return f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode()


def wheel(name: str, members: dict[str, bytes]) -> bytes:
    """A package that pip would install."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{name}.dist-info/METADATA", metadata(name))
        archive.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    return out.getvalue()


class Index(ThreadingHTTPServer):
    """Serves one wheel; its switches say what goes wrong."""

    daemon_threads = True

    def __init__(self, name: str, members: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}/simple"
        self.file, self.body = f"/{name}-py3-none-any.whl", wheel(name, members)
        self.metadata = metadata(name)
        self.sha256 = hashlib.sha256(self.body).hexdigest()
        self.ranges = True
        self.tells_metadata = True
        self.wants_login = False
        self.status = 200
        self.sends_at_most = sys.maxsize
        self.then = threading.Event()  # set: the connection ends after that much
        self.asked: list[tuple[str, int]] = []  # for the wheel: its Range, and how many bytes were sent


class Handler(BaseHTTPRequestHandler):
    server: Index

    def log_message(self, *_arguments: object) -> None:
        """Nobody reads it."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        index, path = self.server, urlsplit(self.path).path  # a proxy is asked for whole addresses
        if index.wants_login and "Authorization" not in self.headers:
            self.answer(401, b"", ("WWW-Authenticate", "Basic"))
        elif path == index.file:
            self.answer_with_wheel(self.headers.get("Range", ""))
        elif path == f"{index.file}.metadata":
            self.answer(200, index.metadata)
        else:
            known = f' data-core-metadata="sha256={hashlib.sha256(index.metadata).hexdigest()}"'
            link = f'href="{index.file}#sha256={index.sha256}"{known if index.tells_metadata else ""}'
            self.answer(200, f"<a {link}>{index.file[1:]}</a>".encode(), ("Content-Type", "text/html"))

    def answer_with_wheel(self, asked: str) -> None:
        index, total = self.server, len(self.server.body)
        status, content = index.status, index.body if index.status == 200 else b""
        headers = [("Accept-Ranges", "bytes")] if index.ranges else []
        if status == 200 and index.ranges and asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            content = index.body[int(first or total - int(last)) : int(last) + 1 if first and last else None]
            status = 206 if content else 416
            headers.append(("Content-Range", f"bytes {first}-{last or total - 1}/{total}"))
        if self.command == "GET":
            index.asked.append((asked, len(content[: index.sends_at_most])))
        self.answer(status, content, *headers, at_most=index.sends_at_most)
        if len(content) > index.sends_at_most:
            index.then.wait(20)
            self.close_connection = True

    def answer(self, status: int, body: bytes, *headers: tuple[str, str], at_most: int = sys.maxsize) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:at_most])
