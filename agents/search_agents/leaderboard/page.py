"""A leaderboard as one HTML file that can be sorted: no server, no network, no foreign script.

The page's policy allows its own script and style by their hashes and nothing else, so
even markup that somehow came in could neither run nor load anything.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from search_agents.leaderboard.sections import Section

__all__ = ["page"]

_HERE = Path(__file__).parent

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>Leaderboard</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<label>Show rows with <input id="filter" type="search" autocomplete="off"></label>
<noscript><p>This page needs JavaScript to show its tables; LEADERBOARD.md holds the same.</p></noscript>
<main></main>
<script id="board" type="application/json">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def page(sections: Sequence[Section]) -> str:
    """Write sections as a page that stands alone."""
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    values = json.dumps([dataclasses.asdict(section) for section in sections], ensure_ascii=True, allow_nan=False)
    # Without a "<" nothing in the data can end its element.
    data = values.replace("<", "\\u003c")
    return _PAGE.format(policy=policy, style=style, script=script, data=data)


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
