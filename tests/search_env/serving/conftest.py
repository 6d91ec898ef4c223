"""Real servers on free ports of the loopback, each in a thread."""

import contextlib
import threading
import time

import pytest

from search_env.serving import ServerSettings, listen, make_server


@contextlib.contextmanager
def running(retriever, **settings):
    """The address of a server that runs within the block."""
    server = make_server(retriever, ServerSettings(**settings))
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.started
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def serving():
    """``with serving(retriever, **settings) as address:`` runs a server."""
    return running
