"""A page comes through the guard, in bounded time and size, or not at all."""

import pickle
import socket
import sys
import threading

import httpcore
import httpx
import pytest

from search_env.errors import MissingDependencyError
from search_env.retrieval.online import fetch
from search_env.retrieval.online.fetch import MAX_REDIRECTS, Page, PageFetcher
from search_env.retrieval.online.guard import BlockedURL, PageUnavailable

URL = "https://en.wikipedia.org/wiki/Oslo"
PUBLIC = "93.184.216.34"


def test_a_page_becomes_its_title_and_clean_text(web, fakes):
    page = fakes.html(
        "Oslo -  Wikipedia", "Oslo is the capital of Norway.", "It lies at a fjord.<script>evil()</script>"
    )
    fetcher, network, _ = web(fakes.reply(page))
    read = fetcher.fetch(URL)
    assert read.title == "Oslo - Wikipedia"
    assert "Oslo is the capital of Norway.\nIt lies at a fjord." in read.text
    assert "evil" not in read.text
    assert network.connections == [(PUBLIC, 443)]


def test_tls_and_http_speak_of_the_name_while_the_connection_goes_to_the_judged_address(web, fakes):
    fetcher, network, _ = web(fakes.reply(fakes.OSLO))
    fetcher.fetch(URL + "?a=b#part")
    assert network.connections == [(PUBLIC, 443)]
    assert network.tls_names == ["en.wikipedia.org"]
    request, *headers = network.sent.decode().lower().split("\r\n")
    assert request == "get /wiki/oslo?a=b http/1.1"
    assert "host: en.wikipedia.org" in headers
    assert "accept-encoding: identity" in headers
    assert not [header for header in headers if header.startswith(("cookie", "authorization", "referer"))]


FORBIDDEN = [
    ("http://127.1/", []),
    ("http://0x7f000001/", []),
    ("http://2130706433/", []),
    ("http://[::1]/", []),
    ("http://[::ffff:169.254.169.254]/latest/meta-data/", []),
    ("http://[fe80::1%25eth0]/", []),
    ("http://169.254.169.254/latest/meta-data/", []),
    ("http://10.1.2.3/", []),
    ("http://100.64.0.1/", []),
    ("http://localhost./", ["127.0.0.1", "::1"]),
    ("http://intranet/", ["10.0.0.7"]),
    ("http://both.example/", [PUBLIC, "10.0.0.7"]),
    ("http://both.example/", ["10.0.0.7", PUBLIC]),
    ("http://nat64.example/", ["64:ff9b::a00:1"]),
    ("http://user:word@en.wikipedia.org/", [PUBLIC]),
    ("http://en.wikipedia.org:9200/", [PUBLIC]),
    ("file:///etc/passwd", []),
    ("gopher://en.wikipedia.org/_x", [PUBLIC]),
]


@pytest.mark.parametrize(("url", "addresses"), FORBIDDEN)
def test_a_forbidden_page_is_blocked_without_a_connection(web, url, addresses):
    names = dict.fromkeys(["localhost.", "intranet", "both.example", "nat64.example", "en.wikipedia.org"], addresses)
    fetcher, network, _ = web(names=names)
    with pytest.raises(BlockedURL):
        fetcher.fetch(url)
    assert network.connections == []


@pytest.mark.parametrize(("url", "addresses"), FORBIDDEN)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_a_forbidden_page_is_blocked_before_it_is_followed(web, fakes, url, addresses, status):
    names = dict.fromkeys(["localhost.", "intranet", "both.example", "nat64.example", "en.wikipedia.org"], addresses)
    fetcher, network, _ = web(fakes.reply(status=status, location=url), names={**names, "open.example": [PUBLIC]})
    with pytest.raises(BlockedURL):
        fetcher.fetch("https://open.example/redirect")
    assert network.connections == [(PUBLIC, 443)]


def test_a_name_is_resolved_once_a_connection_so_it_cannot_change_after_it_was_judged(web, fakes):
    names = {"rebind.example": ([PUBLIC], ["127.0.0.1"])}
    fetcher, network, resolver = web(fakes.reply(fakes.OSLO), names=names)
    assert fetcher.fetch("http://rebind.example/").title == "Oslo - Wikipedia"
    assert resolver.asked == ["rebind.example"]
    assert network.connections == [(PUBLIC, 80)]


def test_a_name_that_changes_between_two_hops_is_judged_again(web, fakes):
    names = {"rebind.example": ([PUBLIC], ["127.0.0.1"])}
    fetcher, network, _ = web(fakes.reply(status=302, location="/again"), names=names)
    with pytest.raises(BlockedURL):
        fetcher.fetch("http://rebind.example/")
    assert network.connections == [(PUBLIC, 80)]


def test_redirects_are_followed_relative_to_the_page(web, fakes):
    hops = [fakes.reply(status=301, location="../w/Oslo"), fakes.reply(status=302, location="http://other.example/x")]
    names = {"en.wikipedia.org": [PUBLIC], "other.example": ["8.8.8.8"]}
    fetcher, network, _ = web(*hops, fakes.reply(fakes.OSLO), names=names)
    assert fetcher.fetch(URL).title == "Oslo - Wikipedia"
    assert network.connections == [(PUBLIC, 443), (PUBLIC, 443), ("8.8.8.8", 80)]
    assert b"GET /w/Oslo HTTP/1.1" in network.sent
    assert b"Host: other.example\r\n" in network.sent


def test_a_circle_of_redirects_ends(web, fakes):
    fetcher, network, _ = web(*[fakes.reply(status=302, location="/again")] * 50)
    with pytest.raises(BlockedURL, match="redirects more than"):
        fetcher.fetch(URL)
    assert len(network.connections) == 1 + MAX_REDIRECTS


@pytest.mark.parametrize("location", ["", "http://[::1", "http://a\x01b/", "https://" + "a" * 70_000])
def test_a_redirect_to_nowhere_is_a_page_that_cannot_be_read(web, fakes, location):
    fetcher, _, _ = web(fakes.reply(status=302, location=location))
    with pytest.raises(PageUnavailable):
        fetcher.fetch(URL)


def test_the_next_address_of_a_host_is_tried_if_one_does_not_answer(web, fakes):
    names = {"en.wikipedia.org": ["2606:4700:4700::1111", PUBLIC]}
    fetcher, network, _ = web(httpcore.ConnectTimeout("timed out"), fakes.reply(fakes.OSLO), names=names)
    assert fetcher.fetch(URL).title == "Oslo - Wikipedia"
    assert network.connections == [("2606:4700:4700::1111", 443), (PUBLIC, 443)]


def test_an_oversize_page_is_blocked_by_what_it_says(web, fakes):
    fetcher, _, _ = web(fakes.reply(content_length="100001"))
    with pytest.raises(BlockedURL, match="100,000 bytes"):
        fetcher.fetch(URL)


def test_an_oversize_page_that_does_not_say_so_is_blocked_as_it_comes(web, fakes):
    taken = []

    def endless():
        yield fakes.reply(content_length="")
        while True:
            taken.append(1)
            yield b"x" * 10_000

    fetcher, _, _ = web(endless())
    with pytest.raises(BlockedURL, match="100,000 bytes"):
        fetcher.fetch(URL)
    assert len(taken) < 15


@pytest.mark.parametrize("start", ["H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n"])
def test_a_server_that_drips_is_cut_off_in_its_headers_as_in_its_body(web, fakes, start):
    clock = fakes.Clock()

    def drip():
        yield start.encode()
        while True:
            clock.time += 1
            yield b"x"

    fetcher, _, _ = web(drip(), clock=clock)
    began = clock()
    with pytest.raises(BlockedURL, match="took longer than 10 s"):
        fetcher.fetch(URL)
    assert clock() - began <= 11


def test_time_runs_over_all_redirects_together(web, fakes):
    clock = fakes.Clock()

    def slow_redirect():
        clock.time += 4
        yield fakes.reply(status=302, location="/again")

    fetcher, network, _ = web(*(slow_redirect() for _ in range(5)), clock=clock)
    with pytest.raises(BlockedURL, match="took longer"):
        fetcher.fetch(URL)
    assert len(network.connections) == 3


def test_a_silent_server_is_blocked(web):
    fetcher, _, _ = web(iter([httpcore.ReadTimeout("timed out")]))
    with pytest.raises(BlockedURL, match="took longer"):
        fetcher.fetch(URL)


@pytest.mark.parametrize(
    "answer",
    [
        dict(status=404, body=b"<p>Nothing here.</p>"),
        dict(status=500),
        dict(status=204),
        dict(body=b"%PDF-1.7", content_type="application/pdf"),
        dict(body=b"<p>x</p>", content_type=""),
        dict(body=b"\x1f\x8b\x08", content_encoding="gzip"),
        dict(body=b""),
        dict(body=b"<html></html>"),
        dict(body=b"\x00\xff\xfe\x00"),
        dict(body=b"<p>x</p>", content_length="many"),
    ],
    ids=str,
)
def test_what_is_no_page_of_text_is_unavailable(web, fakes, answer):
    fetcher, _, _ = web(fakes.reply(**answer))
    with pytest.raises(PageUnavailable) as caught:
        fetcher.fetch(URL)
    assert not isinstance(caught.value, BlockedURL)


@pytest.mark.parametrize(
    "failure",
    [httpcore.ConnectError("refused"), iter([httpcore.ReadError("reset")]), iter([b"SSH-2.0-OpenSSH\r\n"]), iter([])],
)
def test_a_server_that_cannot_be_spoken_to_is_unavailable(web, failure):
    fetcher, _, _ = web(failure)
    with pytest.raises(PageUnavailable) as caught:
        fetcher.fetch(URL)
    assert caught.value.__cause__ is not None


def test_a_page_that_breaks_the_parser_is_unavailable(web, fakes, monkeypatch):
    import trafilatura

    def broken(*args, **kwargs):
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr(trafilatura, "bare_extraction", broken)
    fetcher, _, _ = web(fakes.reply(fakes.OSLO))
    with pytest.raises(PageUnavailable, match="RecursionError"):
        fetcher.fetch(URL)


def test_without_the_extractor_the_error_says_what_to_install(web, fakes, monkeypatch):
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    fetcher, _, _ = web(fakes.reply(fakes.OSLO))
    with pytest.raises(MissingDependencyError, match=r"pip install 'search-env\[online\]'"):
        fetcher.fetch(URL)


def test_proxies_of_the_environment_are_not_asked_to_connect_in_our_place(web, fakes, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:3128")
    fetcher, network, _ = web(fakes.reply(fakes.OSLO))
    fetcher.fetch(URL)
    assert network.connections == [(PUBLIC, 443)]


def test_a_server_on_the_loopback_is_never_connected_to():
    """With the real network and resolver."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        fetcher = PageFetcher(5.0, 1000)
        for url in (f"http://127.0.0.1:{port}/", "http://127.0.0.1/", "http://localhost/", "http://localhost./"):
            with pytest.raises(PageUnavailable):
                fetcher.fetch(url)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_page_is_read_over_a_real_socket(monkeypatch, fakes):
    """The guard is told that the loopback is public, once."""
    monkeypatch.setattr("search_env.retrieval.online.guard._is_allowed", lambda address: address == "127.0.0.1")

    def serve(server):
        connection, _ = server.accept()
        with connection:
            connection.recv(10_000)
            connection.sendall(fakes.reply(fakes.OSLO))

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(fetch, "check_url", lambda url: httpx.URL(url))
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        page = PageFetcher(5.0, 100_000).fetch(f"http://127.0.0.1:{port}/wiki/Oslo")
        thread.join()
    assert page == Page("Oslo - Wikipedia", page.text)
    assert "capital of Norway" in page.text


def test_a_fetcher_can_be_sent_to_another_process():
    assert isinstance(pickle.loads(pickle.dumps(PageFetcher(1.0, 10))), PageFetcher)
