"""A web of our own: names, addresses and pages, and not one connection."""

import httpcore
import pytest

from search_env.retrieval.online.fetch import PageFetcher

PUBLIC = "93.184.216.34"
OTHER_PUBLIC = "2606:4700:4700::1111"


class FakeClock:
    def __init__(self):
        self.time = 1_000.0

    def __call__(self):
        return self.time


class FakeResolver:
    """Names -> the addresses of each time they are asked for, the last ones for ever."""

    def __init__(self, names):
        self.names = {name: list(times) if isinstance(times, tuple) else [times] for name, times in names.items()}
        self.asked = []

    def __call__(self, host, port):
        self.asked.append(host)
        if host not in self.names:
            raise OSError("Name or service not known")
        times = self.names[host]
        return times.pop(0) if len(times) > 1 else times[0]


class FakeNetwork(httpcore.NetworkBackend):
    """Replies to each connection with the next of its replies: bytes, or an iterator of bytes, or an error."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.connections = []
        self.tls_names = []
        self.sent = b""

    def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        self.connections.append((host, port))
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return FakeStream(self, iter([reply]) if isinstance(reply, bytes) else reply)


class FakeStream(httpcore.NetworkStream):
    def __init__(self, network, parts):
        self.network, self.parts = network, parts

    def read(self, max_bytes, timeout=None):
        assert timeout > 0
        part = next(self.parts, b"")
        if isinstance(part, Exception):
            raise part
        return part

    def write(self, buffer, timeout=None):
        assert timeout > 0
        self.network.sent += buffer

    def close(self):
        pass

    def start_tls(self, ssl_context, server_hostname=None, timeout=None):
        assert ssl_context.check_hostname
        self.network.tls_names.append(server_hostname)
        return self

    def get_extra_info(self, info):
        return None


def reply(body=b"", status=200, **headers):
    """An HTTP response as it comes over the wire."""
    headers = {"content-type": "text/html; charset=utf-8", "content-length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode() + body


def html(title, *paragraphs):
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    page = f"<html><head><title>{title}</title></head><body><article><h1>{title}</h1>{body}</article></body></html>"
    return page.encode()


OSLO = html("Oslo - Wikipedia", "Oslo is the capital of Norway.", "It lies at the head of a fjord in the south east.")


@pytest.fixture
def web():
    """Makes a fetcher: (fetcher, its network, its resolver)."""

    def make(*replies, names=None, clock=None, timeout_s=10.0, max_bytes=100_000):
        network = FakeNetwork(*replies)
        resolver = FakeResolver({"en.wikipedia.org": [PUBLIC]} if names is None else names)
        fetcher = PageFetcher(timeout_s, max_bytes, resolver=resolver, network=network, clock=clock or FakeClock())
        return fetcher, network, resolver

    return make


@pytest.fixture
def fakes():
    """The parts a test builds a web of."""
    return type("Fakes", (), {"reply": staticmethod(reply), "html": staticmethod(html), "Clock": FakeClock,
                              "Network": FakeNetwork, "Resolver": FakeResolver, "OSLO": OSLO})  # fmt: skip
