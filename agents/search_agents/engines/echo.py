"""What a server says of a text that it was given: its tokens, put back to where they lie in the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, islice

from search_agents.engines.base import ScoredText
from search_env.errors import ModelError

__all__ = ["read_echo"]

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_INSTEAD = "Score with the engine 'transformers', or take a method that scores nothing (server.scores: false)."


def read_echo(tokens: Sequence[str], logprobs: Sequence[float | None], *, context: str, text: str) -> ScoredText | None:
    """Find the tokens of a text in the echo of a completions API.

    The tokens are laid along the prompt. The offsets that servers send are not read: they count a beginning of
    sequence, which is no part of the prompt, and a token of part of a character as a character.

    Args:
        tokens: All that the server lists: perhaps a beginning of sequence, the prompt, perhaps a token after it.
        logprobs: One a token; None where nothing stands before it.
        context: What the prompt begins with.
        text: What follows in it, at least one character. A token that lies across the border is its first, and has
            there the part that is the text's.

    Returns:
        The score; None where there is no context and the server puts nothing before the text either.

    Raises:
        ModelError: If the tokens do not spell the prompt, or one of the text's has no log-probability.
    """
    spelt = _spelt(context + text, tokens)
    if spelt is None:
        raise ModelError(
            f"the tokens that the server lists, {list(tokens[:8])}…, do not spell the text it was given, "
            f"{(context + text)[:60]!r}…, so its log-probs cannot be told apart. {_INSTEAD}"
        )
    first, pieces = spelt
    ends = list(accumulate(map(len, pieces)))
    begin = next(place for place, end in enumerate(ends) if end > len(context))
    told = logprobs[first + begin : first + len(pieces)]
    if not context and told[0] is None:
        return None
    known = tuple(logprob for logprob in told if logprob is not None)
    if len(known) < len(pieces) - begin:
        raise ModelError(
            f"the server tells {len(known)} log-probs for the {len(pieces) - begin} tokens of {text[:60]!r}…. "
            f"{_INSTEAD}"
        )
    head = pieces[begin][len(pieces[begin]) - (ends[begin] - len(context)) :]
    return ScoredText(tokens=(head, *pieces[begin + 1 :]), logprobs=known, context_tokens=first + begin)


def _spelt(prompt: str, tokens: Sequence[str]) -> tuple[int, list[str]] | None:
    """Number of tokens before the prompt, and its pieces; None if the tokens do not spell it."""
    for first in (0, 1):
        # One token was asked for after the prompt; an end of sequence is not listed by every server.
        for last in (len(tokens) - 1, len(tokens)):
            pieces = _pieces(prompt, tokens[first:last])
            if pieces is not None:
                return first, pieces
    return None


def _pieces(text: str, tokens: Sequence[str]) -> list[str] | None:
    """Cut a text where its tokens end; of a character that is spread over several tokens the first has all."""
    pieces: list[str] = []
    place = 0
    for number, token in enumerate(tokens):
        end = _end(text, place, token)
        if end is None and _UNKNOWN in token:
            rest = islice(tokens, number + 1, None)
            end = _end_of_part(
                text, place, token, next((other for other in rest if other and _UNKNOWN not in other), "")
            )
        if end is None:
            return None
        pieces.append(text[place:end])
        place = end
    return pieces if place == len(text) else None


def _end(text: str, place: int, token: str) -> int | None:
    """Where a token ends that begins at a place of a text; None if it does not begin there."""
    # Tokens of SentencePiece lose the space before them when they are decoded alone, and the first has one too many.
    for form in (token, f" {token}", token.removeprefix(" ")):
        if text.startswith(form, place):
            return place + len(form)
    return None


def _end_of_part(text: str, place: int, token: str, following: str) -> int | None:
    """Where the characters end of which a token holds a part; None if it does not begin there.

    Args:
        text: The text.
        place: Where the token begins.
        token: What is known of it, and replacement characters for bytes; ASCII is never among these.
        following: The next token that is known whole.
    """
    known = token.partition(_UNKNOWN)[0]
    found = re.compile(re.escape(known) + r"[^\x00-\x7f]*").match(text, place)
    if found is None:
        return None
    before = text.find(following, place + len(known), found.end()) if following else -1
    return found.end() if before < 0 else before
