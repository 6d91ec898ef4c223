"""Fills the viewer's page; see `search_agents.evaluation.standalone` for what keeps foreign text inert in it."""

from __future__ import annotations

from search_agents.evaluation.standalone import fill_page
from search_agents.evaluation.viewer.payload import Payload

__all__ = ["make_page"]


def make_page(payload: Payload) -> str:
    """Write the page.

    Args:
        payload: See `search_agents.evaluation.viewer.payload.make_payload`.

    Returns:
        A whole HTML document.
    """
    title = " and ".join(run["name"] for run in payload["runs"])
    return fill_page("search_agents.evaluation.viewer", payload, title=title)
