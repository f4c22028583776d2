"""Downloads that break off: from a server on this computer that cuts the connection, resumes, or cannot resume."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from repdyn.datasets import archives
from repdyn.datasets.archives import Archive, download

CONTENT = gzip.compress(np.random.default_rng(0).bytes(500_000))


class Server(HTTPServer):
    """Serves CONTENT; the first ``cuts`` answers break off after ``cut_at`` bytes."""

    can_resume = True
    cuts = 0
    cut_at = 3 << 16  # whole chunks arrive
    content = CONTENT

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) if self.server.can_resume else 0
        self.server.asked.append(self.headers["Range"])
        if start >= len(self.server.content):
            self.send_error(416)
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = self.server.cuts > 0
        self.server.cuts -= 1
        self.wfile.write(body[: self.server.cut_at] if cut else body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = Server()
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def archive(server: Server, content: bytes = CONTENT) -> Archive:
    return Archive("cifar10", "images.gz", f"md5:{hashlib.md5(content).hexdigest()}", server.url)


def partial() -> Path:
    return archives.cache() / "cifar10" / "images.gz.part"


def test_a_whole_download(server: Server) -> None:
    assert download(archive(server)).read_bytes() == CONTENT
    assert server.asked == ["bytes=0-"] and not partial().exists()


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server: Server) -> None:
    server.cuts = 1
    assert download(archive(server)).read_bytes() == CONTENT
    assert server.asked == ["bytes=0-", "bytes=196608-"]


def test_what_has_arrived_is_kept_for_the_next_call(server: Server) -> None:
    server.cuts = archives.ATTEMPTS
    with pytest.raises(ConnectionError, match=f"images.gz .*{server.url}"):
        download(archive(server))
    assert partial().read_bytes() == CONTENT[: Server.cut_at * archives.ATTEMPTS]
    assert not partial().with_suffix("").exists()
    assert download(archive(server)).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={Server.cut_at * archives.ATTEMPTS}-"


def test_a_server_that_cannot_resume_sends_everything_again(server: Server) -> None:
    server.cuts, server.can_resume = 1, False
    assert download(archive(server)).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_killed_between_the_last_byte_and_the_renaming(server: Server) -> None:
    partial().parent.mkdir(parents=True)
    partial().write_bytes(CONTENT)
    assert download(archive(server)).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_partial_of_another_file_is_found_out_and_thrown_away(server: Server) -> None:
    partial().parent.mkdir(parents=True)
    partial().write_bytes(b"\0" * 1000)
    assert download(archive(server)).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-", "bytes=0-"]


def test_another_file_than_the_official_one_is_refused_and_not_kept(server: Server) -> None:
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(ConnectionError, match="images.gz .*hash"):
        download(archive(server))
    assert list(partial().parent.iterdir()) == []


def test_processes_that_want_the_same_file_download_it_once(server: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: download(archive(server)), range(4)))
    assert len(set(paths)) == 1 and paths[0].read_bytes() == CONTENT
    assert len(server.asked) == 1
