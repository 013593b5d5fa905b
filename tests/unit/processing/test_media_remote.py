"""Remote media against a real server on loopback: private addresses, odd URLs, drips, bombs, redirects."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from phi4.errors import InvalidMedia
from phi4.processing.images import load_image
from phi4.processing.media import open_media
from phi4.processing.remote import MAX_REDIRECTS, fetch, is_public
from phi4.testing.media import friendly_images

PNG = friendly_images()["rgb.png"]
MOST_SENT = {"drip": 60, "endless": 2**24}
"""Where the two without end stop sending; the connection stays open. A fetcher has to have left by then."""


class Handler(BaseHTTPRequestHandler):
    """Each path misbehaves in one way."""

    def log_message(self, *args: object) -> None:
        """Keep the test output clean."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.paths.append(self.path)  # type: ignore[attr-defined]
        route, _, rest = self.path.strip("/").partition("/")
        if route == "png":
            self.answer(200, PNG, Content_Length=str(len(PNG)))
        elif route == "hop":
            target = f"/hop/{int(rest) - 1}" if int(rest) else "/png"
            self.answer(302, Location=target)
        elif route == "to":
            self.answer(302, Location=rest)
        elif route == "gzip":
            self.answer(200, bytes(100), Content_Encoding="gzip")
        elif route == "lie":
            self.flow("endless", 200, Content_Length=rest)
        elif route == "cut":
            self.answer(200, PNG[:-50], Content_Length=str(len(PNG)))
        elif route in ("endless", "drip"):
            self.flow(route)
        else:
            self.answer(404)

    def flow(self, route: str, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        stop: threading.Event = self.server.stop  # type: ignore[attr-defined]
        piece, sent = (b"x", 0) if route == "drip" else (bytes(65536), 0)
        try:
            while sent < MOST_SENT[route] and not stop.wait(0.05 if route == "drip" else 0):
                self.wfile.write(piece)
                sent += len(piece)
            stop.wait(10)
        except OSError:
            return


class Server(ThreadingHTTPServer):
    """Remembers what was asked and how much it sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths: list[str] = []
        self.stop = threading.Event()
        self.root = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.stop.set()
    running.shutdown()
    thread.join()
    running.server_close()


def permitted(url: str, max_bytes: int = 10_000, timeout_s: float = 5.0) -> bytes:
    """Fetch with loopback permitted, as the test server lives there."""
    return fetch(url, max_bytes, timeout_s, permit=lambda address: True)


def test_file_arrives_whole_directly_and_through_redirects(server: Server):
    assert permitted(server.root + "/png") == PNG
    assert permitted(f"{server.root}/hop/{MAX_REDIRECTS - 1}") == PNG


def test_endless_redirects_stop(server: Server):
    with pytest.raises(InvalidMedia, match="redirects more than 3 times"):
        permitted(server.root + "/hop/50")
    assert len(server.paths) == MAX_REDIRECTS + 1


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the blocks that are read of any answer."""
    found: list[int] = []
    real = http.client.HTTPResponse.read1

    def counted(self: http.client.HTTPResponse, size: int = -1) -> bytes:
        block = real(self, size)
        found.append(len(block))
        return block

    monkeypatch.setattr(http.client.HTTPResponse, "read1", counted)
    return found


@pytest.mark.parametrize("path", ["/endless", "/lie/1000000000000", "/lie/20000"])
def test_body_over_the_cap_is_read_no_further(server: Server, read: list[int], path: str):
    with pytest.raises(InvalidMedia, match="over the limit of 10,000 bytes"):
        permitted(server.root + path, timeout_s=2.0)
    assert sum(read) <= 10_000 + 65_536


def test_announced_length_is_neither_exceeded_nor_taken_for_what_came(server: Server):
    assert permitted(server.root + "/lie/100") == bytes(100)
    with pytest.raises(InvalidMedia, match="broke off"):
        permitted(server.root + "/cut")


@pytest.mark.parametrize("timeout_s", [0.3, 0.6])
def test_dripping_body_stops_at_the_deadline(server: Server, timeout_s: float):
    start = time.monotonic()
    with pytest.raises(InvalidMedia, match="did not arrive in time"):
        permitted(server.root + "/drip", timeout_s=timeout_s)
    assert timeout_s <= time.monotonic() - start < timeout_s + 1


def test_silent_server_stops_at_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        for scheme in ("http", "https"):
            with pytest.raises(InvalidMedia, match="did not arrive in time"):
                permitted(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.3)
        assert time.monotonic() - start < 2


def test_compressed_body_and_bad_status_are_refused(server: Server):
    with pytest.raises(InvalidMedia, match="compressed"):
        permitted(server.root + "/gzip")
    with pytest.raises(InvalidMedia, match="status 404"):
        permitted(server.root + "/missing")


def test_plain_text_port_is_no_https_server(server: Server):
    with pytest.raises(InvalidMedia, match="broke off or sent nonsense"):
        permitted(server.root.replace("http:", "https:") + "/png")


def test_closed_port_is_named_without_the_address():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(InvalidMedia, match="cannot be reached") as caught:
        permitted(f"http://127.0.0.1:{port}/")
    assert "127" not in str(caught.value)


def test_redirect_is_checked_like_the_first_address(server: Server):
    allowed = iter([True, False])
    with pytest.raises(InvalidMedia, match="private network"):
        fetch(server.root + "/to//png", 10_000, 5.0, permit=lambda address: next(allowed))
    assert server.paths == ["/to//png"]
    with pytest.raises(InvalidMedia, match="not plain http"):
        permitted(server.root + "/to/file:///etc/hostname")


def test_host_is_resolved_once_and_the_checked_address_is_dialled(server: Server, monkeypatch):
    asked: list[str] = []

    def resolve(host: str, port: int, *kinds: object, **options: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    checked: list[str] = []
    real = socket.getaddrinfo
    # `create_connection` looks its argument up too; an address needs no resolver and goes to the real one.
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: (real if host[0].isdigit() else resolve)(host, *a, **k)
    )
    url = f"http://media.example:{server.server_port}/png"
    assert fetch(url, 10_000, 5.0, permit=lambda address: checked.append(address) is None) == PNG
    assert asked == ["media.example"]
    assert checked == ["127.0.0.1"]


@pytest.mark.parametrize("order", [("1.1.1.1", "127.0.0.1"), ("127.0.0.1", "1.1.1.1"), ("1.1.1.1", "::1")])
def test_host_with_one_private_address_among_public_ones_is_refused(server: Server, monkeypatch, order):
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, server.server_port)) for address in order]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: answer)
    with pytest.raises(InvalidMedia, match="private network"):
        fetch(f"http://media.example:{server.server_port}/png", 10_000, 5.0)
    assert not server.paths


@pytest.mark.parametrize("form", ["http://:{port}/", "http://127.0.0.1:0/", "http://127.0.0.1:65536/"])
def test_url_without_a_host_or_a_port_is_refused_before_any_look_up(server: Server, form: str):
    with pytest.raises(InvalidMedia, match="no valid host and port"):
        permitted(form.replace("{port}", str(server.server_port)))
    assert not server.paths


@pytest.mark.parametrize(
    "form",
    [
        "http://1.1.1.1@127.0.0.1:{port}/png",
        "http://127.0.0.1:{port}\\@1.1.1.1/png",
        "http://127.0.0.1:{port}/a b",
        "http://127.0.0.1:{port}/\x00",
        "http://127.0.0.1:{port}/é",
        "http://%31%32%37.0.0.1:{port}/png",
        "http://127.0.0.1:{port}#@1.1.1.1/png",
        "http://127.0.0.1\n:{port}/png",
    ],
)
def test_url_that_parsers_read_differently_is_refused_before_any_look_up(server: Server, form: str):
    with pytest.raises(InvalidMedia, match="not plain http"):
        permitted(form.replace("{port}", str(server.server_port)))
    assert not server.paths


LOOPBACK_FORMS = [
    "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://LOCALHOST:{port}/", "http://127.1:{port}/",
    "http://0:{port}/", "http://0.0.0.0:{port}/", "http://2130706433:{port}/", "http://0x7f000001:{port}/",
    "http://0x7f.1:{port}/", "http://0177.0.0.1:{port}/", "http://127.0.0.1.:{port}/", "http://[::1]:{port}/",
    "http://[::]:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/", "http://[2002:7f00:1::]:{port}/", "http://[::1%25lo]:{port}/",
    "http://user@127.0.0.1:{port}/", "http://1.1.1.1@127.0.0.1:{port}/", "http://127.0.0.1:{port}\\@1.1.1.1/",
    "http://1.1.1.1#@127.0.0.1:{port}/", "http://127.0.0.1%00:{port}/", "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1:{port}/\r\nHost: x", "http:///127.0.0.1:{port}/", "http://127.0.0.1:0/",
    "http://127.0.0.1:65536/", "http://127.0.0.1:-1/", "http://:{port}/", "http://", "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "http://%31%32%37.0.0.1:{port}/", "http://" + "a" * 300 + ":{port}/", "http://[::1:{port}/", "https://127.0.0.1:{port}/",
]  # fmt: skip


@pytest.mark.parametrize("form", LOOPBACK_FORMS)
def test_no_form_of_a_loopback_url_reaches_a_listener(server: Server, form: str):
    url = form.replace("{port}", str(server.server_port))
    with pytest.raises(InvalidMedia) as caught:
        open_media(url, "image", allow_remote=True)
    assert not server.paths
    assert "127.0.0.1" not in str(caught.value)
    with pytest.raises(InvalidMedia):
        load_image(url)
    assert not server.paths


IN_A_HEADER = [form for form in LOOPBACK_FORMS if form.isprintable() and form.isascii()]


@pytest.mark.parametrize("form", [form for form in IN_A_HEADER if "1.1.1.1" not in form])
def test_no_form_of_a_loopback_url_is_reached_through_a_redirect(server: Server, form: str):
    judged: list[str] = []

    def first_and_public(address: str) -> bool:
        judged.append(address)
        return len(judged) == 1 or is_public(address)

    start = f"{server.root}/to/{form.replace('{port}', str(server.server_port))}"
    with pytest.raises(InvalidMedia):
        fetch(start, 10_000, 5.0, permit=first_and_public)
    assert len(server.paths) == 1


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16", "::", "::1", "fe80::1", "fc00::1",
        "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::",
        "2001::7f00:1", "2001:db8::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111"])
def test_public_addresses_are_permitted(address: str):
    assert is_public(address)
