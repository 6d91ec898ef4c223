"""One HTML file that holds its style, script and data, and reaches for nothing else.

Models and documents write whatever they like. Their text is data twice over: it lies in a
block of JSON in which no ``<`` stands, and the script shows it as text, never as markup.
The policy of the page allows the one script and the one style by their hashes, and no
connection; where a browser knows trusted types, no text can become markup at all.

A page is a folder of ``page.html``, ``page.css`` and ``page.js``. Before its own style comes
``base.css`` from here, and before its own script ``text.js``, which makes elements of texts.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

__all__ = ["fill_page"]


def fill_page(package: str, payload: Mapping[str, Any], *, title: str) -> str:
    """Write a page.

    Args:
        package: Import path of the folder with the page's parts.
        payload: What the script shows: values that JSON can hold.
        title: Of the document; any text.

    Returns:
        A whole HTML document.
    """
    style = _part(__name__, "base.css") + _part(package, "page.css")
    script = _part(__name__, "text.js") + _part(package, "page.js")
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'"
    )
    return Template(_part(package, "page.html")).substitute(
        policy=policy, title=html.escape(title), style=style, payload=_json(payload), script=script
    )


def _part(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """How a content security policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(payload: Mapping[str, Any]) -> str:
    """JSON that cannot end the element it stands in, nor open a comment there."""
    return json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
