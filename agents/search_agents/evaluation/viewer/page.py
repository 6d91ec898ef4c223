"""One HTML file that holds its style, script and data, and reaches for nothing else.

Models and documents write whatever they like. Their text is data twice over: it lies in a
block of JSON in which no ``<`` stands, and the script shows it as text, never as markup.
The policy of the page allows the one script and the one style by their hashes, and no
connection; where a browser knows trusted types, no text can become markup at all.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.resources import files
from string import Template

from search_agents.evaluation.viewer.payload import Payload

__all__ = ["make_page"]


def make_page(payload: Payload) -> str:
    """Write the page.

    Args:
        payload: See `search_agents.evaluation.viewer.payload.make_payload`.

    Returns:
        A whole HTML document.
    """
    style, script = _part("page.css"), _part("page.js")
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'"
    )
    return Template(_part("page.html")).substitute(
        policy=policy,
        title=html.escape(" and ".join(run["name"] for run in payload["runs"])),
        style=style,
        payload=_json(payload),
        script=script,
    )


def _part(name: str) -> str:
    return files("search_agents.evaluation.viewer").joinpath(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """How a content security policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(payload: Payload) -> str:
    """JSON that cannot end the element it stands in, nor open a comment there."""
    return json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
