"""The guard in front of every page: a URL that came out of a search engine is a stranger's.

A page may be fetched by http or https, from the ports 80 and 443 and from global unicast
addresses only. What is judged is the address that will be connected to, not how the URL
spells it: names are resolved here, once, and the connection is made to what was judged,
so a name that resolves to something else a moment later changes nothing. If any address
of a name is not allowed, none is: no public site has one, an attack may.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from search_env.errors import RetrieverError

if TYPE_CHECKING:
    import httpx

__all__ = ["BlockedURL", "PageUnavailable", "Resolver", "allowed_addresses", "check_url", "system_resolver"]

Resolver = Callable[[str, int], Sequence[str]]
"""Host name and port -> every address of it; raises OSError if there is none."""

_PORTS = {"http": (None, 80, 443), "https": (None, 80, 443)}  # httpx gives None for the default of the scheme.
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
_ENDS_IN_A_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)\.?")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Not for pages whatever `is_global` says, which differs between versions of Python: addresses of protocols, and those
# that carry an IPv4 address for a gateway to unpack.
_SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # relays of 6to4
        "2001::/23",  # protocol assignments; Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)


class PageUnavailable(RetrieverError):
    """A page cannot be read. The search goes on with what the search engine quotes from it."""


class BlockedURL(PageUnavailable):
    """A page may not be read: its address is not allowed, or it is too large or too slow."""


def check_url(url: str | httpx.URL) -> httpx.URL:
    """Read a URL and refuse one that says by itself that it is not allowed.

    Args:
        url: The URL of a page, or of a redirect.

    Raises:
        BlockedURL: If it is malformed or has another scheme, another port, a user name, or a host that is no name.
    """
    import httpx

    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError) as error:  # IDNAError is a ValueError
        raise BlockedURL(f"a page has a malformed URL: {error}") from error
    if parsed.scheme not in _PORTS:
        raise BlockedURL(f"a page is fetched by http or https, not by {parsed.scheme or 'a URL without a scheme'!r}")
    if parsed.userinfo:
        raise BlockedURL(f"the URL of a page on {host!r} holds a user name")
    if parsed.port not in _PORTS[parsed.scheme]:
        raise BlockedURL(f"a page is fetched from port 80 or 443, not from {host!r} port {parsed.port}")
    if _literal(host) is None and (not _NAME.fullmatch(host) or _ENDS_IN_A_NUMBER.fullmatch(host)):
        # Resolvers take 127.1 and 0x7f000001 for addresses. No name ends in a number.
        raise BlockedURL(f"a page has the host {host!r}, which is neither a name nor an address")
    return parsed


def allowed_addresses(host: str, port: int, resolver: Resolver) -> tuple[str, ...]:
    """Every address of a host, if all of them are allowed.

    Args:
        host: A name or an address.
        port: The port to connect to.
        resolver: Resolves the name.

    Raises:
        BlockedURL: If one address is no global unicast address.
        PageUnavailable: If the name does not resolve.
    """
    if _literal(host) is not None:
        addresses: Sequence[str] = (host,)
    else:
        try:
            addresses = resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise PageUnavailable(f"the host {host!r} does not resolve: {error}") from error
    if not addresses:
        raise PageUnavailable(f"the host {host!r} does not resolve")
    for address in addresses:
        if not _is_allowed(address):
            raise BlockedURL(f"the host {host!r} has the address {address}, which is not public")
    return tuple(dict.fromkeys(addresses))


def system_resolver(host: str, port: int) -> list[str]:
    """Resolve a name as the system does."""
    return [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_allowed(address: str) -> bool:
    ip = _literal(address)
    if ip is None or not ip.is_global or ip.is_multicast or ip.is_reserved or any(ip in net for net in _SPECIAL):
        return False
    # IPv4-mapped, IPv4-compatible and NAT64 addresses lie outside of what is handed out.
    return ip.version == 4 or (ip in _GLOBAL_UNICAST and ip.scope_id is None)
