"""From a URL to the text of its page, through the guard.

Redirects are followed by hand, each one checked like the first URL. Time and size are
bounded before anything is parsed. Proxies, cookies and compression are not used: a proxy
would connect in our place, unguarded, and a compressed page may be a thousand times
what it weighs.
"""

from __future__ import annotations

import functools
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpcore
import httpx

from search_env.errors import MissingDependencyError
from search_env.retrieval.online.connection import Deadline, GuardedNetwork
from search_env.retrieval.online.guard import BlockedURL, PageUnavailable, Resolver, check_url, system_resolver

__all__ = ["Page", "PageFetcher"]

MAX_REDIRECTS = 5

_REDIRECTS = (301, 302, 303, 307, 308)
_HTML = ("text/html", "application/xhtml+xml")
_HEADERS = (
    ("User-Agent", "search-env (retrieval for question answering)"),
    ("Accept", ", ".join(_HTML)),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
)


@dataclass(frozen=True, slots=True)
class Page:
    """A page as a reader sees it."""

    title: str
    text: str
    """Its main text, one paragraph a line; never empty."""


class PageFetcher:
    """Fetches pages; holds nothing open, so it is free to be pickled, forked and shared by threads.

    Args:
        timeout_s: Seconds that a page may take, from the first name that is resolved to the last byte.
        max_bytes: The largest page.
        resolver: Resolves host names.
        network: Makes the connections.
        clock: Tells the time.
    """

    def __init__(
        self,
        timeout_s: float,
        max_bytes: int,
        *,
        resolver: Resolver = system_resolver,
        network: httpcore.NetworkBackend | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._resolver = resolver
        self._network = httpcore.SyncBackend() if network is None else network
        self._clock = clock

    def fetch(self, url: str) -> Page:
        """Read one page.

        Args:
            url: Its URL, from anywhere.

        Raises:
            BlockedURL: If it, or a redirect of it, is not allowed, too large or too slow.
            PageUnavailable: If it cannot be read for another reason.
            MissingDependencyError: If there is nothing to read pages with.
        """
        try:
            return _page(self._html(url))
        except (httpcore.ReadTimeout, httpcore.WriteTimeout) as error:
            raise BlockedURL(f"a page took longer than {self._timeout_s:g} s") from error
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise PageUnavailable(f"a page cannot be fetched: {error}") from error

    def _html(self, url: str) -> bytes:
        deadline = Deadline(self._timeout_s, self._clock)
        network = GuardedNetwork(self._network, self._resolver, deadline)
        hop = check_url(url)
        with httpcore.ConnectionPool(_ssl_context(), network_backend=network) as pool:
            for _ in range(1 + MAX_REDIRECTS):
                with pool.stream("GET", _core_url(hop), headers=_headers(hop)) as response:
                    headers = httpx.Headers(response.headers)
                    if response.status not in _REDIRECTS:
                        return self._body(response, headers, deadline)
                hop = _redirect(hop, headers)
        raise BlockedURL(f"a page redirects more than {MAX_REDIRECTS} times")

    def _body(self, response: httpcore.Response, headers: httpx.Headers, deadline: Deadline) -> bytes:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status != 200 or kind not in _HTML or headers.get("content-encoding", "identity") != "identity":
            raise PageUnavailable(f"no page of HTML: status {response.status}, content type {kind!r}")
        if int(headers.get("content-length", 0)) > self._max_bytes:  # The protocol layer has made sure it is a number.
            raise BlockedURL(f"a page is larger than {self._max_bytes:,} bytes")
        body = bytearray()
        for chunk in response.iter_stream():
            deadline.left()
            body += chunk
            if len(body) > self._max_bytes:
                raise BlockedURL(f"a page is larger than {self._max_bytes:,} bytes")
        return bytes(body)


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _core_url(url: httpx.URL) -> httpcore.URL:
    # From its parts: what was checked is what is asked for, whatever another parser would make of the whole.
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _headers(url: httpx.URL) -> list[tuple[str, str]]:
    return [("Host", url.netloc.decode("ascii")), *_HEADERS]


def _redirect(url: httpx.URL, headers: httpx.Headers) -> httpx.URL:
    if not (location := headers.get("location")):
        raise PageUnavailable("a page redirects to nowhere")
    try:
        return check_url(url.join(location))
    except (httpx.InvalidURL, ValueError) as error:
        raise BlockedURL(f"a page redirects to a malformed URL: {error}") from error


def _page(html: bytes) -> Page:
    try:
        import trafilatura
    except ImportError as error:
        raise MissingDependencyError(
            f"reading pages needs trafilatura: {error}. Run: pip install 'search-env[online]'"
        ) from error
    try:
        tree = trafilatura.load_html(html)
        title = "" if tree is None else tree.findtext(".//title") or ""
        read = None if tree is None else trafilatura.bare_extraction(tree, include_comments=False)
    except Exception as error:  # Strangers write pages; whatever one does to the parser is its own fault.
        raise PageUnavailable(f"a page cannot be parsed: {type(error).__name__}") from error
    text = "" if read is None or isinstance(read, dict) else (read.text or "").strip()
    if not text:
        raise PageUnavailable("a page has no text")
    return Page(" ".join(title.split()), text)
