"""Connections that the guard has let through, and that end on time.

The guard sits where a connection is made, beneath HTTP: whatever asks for one, a first
request or a redirect, gets one to an address that was judged. HTTP and TLS above go on
speaking of the host's name.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from search_env.retrieval.online.guard import BlockedURL, Resolver, allowed_addresses

__all__ = ["Deadline", "GuardedNetwork"]


class Deadline:
    """The time that one page may take, all of its redirects together.

    Args:
        seconds: How long from now.
        clock: Tells the time.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Seconds that are left, more than 0.

        Raises:
            BlockedURL: If none are.
        """
        left = self._end - self._clock()
        if left <= 0:
            raise BlockedURL(f"a page took longer than {self.seconds:g} s")
        return left


class GuardedNetwork(httpcore.NetworkBackend):
    """Connects to public addresses only, and each read and write to the time that is left.

    Args:
        network: Makes the connections.
        resolver: Resolves host names.
        deadline: When everything has to be over.
    """

    def __init__(self, network: httpcore.NetworkBackend, resolver: Resolver, deadline: Deadline) -> None:
        self._network = network
        self._resolver = resolver
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a host that answers.

        Raises:
            BlockedURL: If one of its addresses is not allowed: then none is connected to.
            PageUnavailable: If the host does not resolve.
        """
        addresses = allowed_addresses(host, port, self._resolver)
        for still, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                stream = self._network.connect_tcp(
                    address, port, self._deadline.left() / still, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if still == 1:
                    raise
            else:
                return _TimedStream(stream, self._deadline)
        raise AssertionError("a host has at least one address")

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Refuse: no page lies there."""
        raise BlockedURL("a page is not fetched from a Unix socket")


class _TimedStream(httpcore.NetworkStream):
    """A connection whose every operation ends by the deadline.

    A timeout alone starts again with each byte, so a server that drips would hold it forever.
    """

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, self._deadline.left()), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
