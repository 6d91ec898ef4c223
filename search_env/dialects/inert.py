"""Makes foreign text inert: documents and questions can be read, never obeyed.

After `make_inert` a text holds no tag of any dialect and nothing that a tokenizer
could take for a special token, stays on one line, and can always be encoded. The
words survive: a tag-like run keeps its letters and trades its brackets for look-alikes
(``<think>`` becomes ``‹think›``), so that a reader still sees what stood there.

Nothing is deleted once tags are looked for, hence no new tag can grow together out of
the pieces of a broken one. The rule is general rather than a list of known tags: the
next model family brings special tokens that no list has.
"""

from __future__ import annotations

import re

__all__ = ["has_tag", "make_inert"]

# Controls that are no white space, lone surrogates (they cannot be encoded), and invisible
# formatting: soft hyphen, zero-width space, direction marks and overrides, the tag block.
# The zero-width joiners stay: Indic scripts, Persian and emoji need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)

# The wide and the small brackets count as angle brackets: NFKC, which some tokenizers apply, turns them into "<".
# No look-alike may stand inside a match, or a second pass would find what the first one made.
_TAG_LIKE = re.compile(
    r"[<＜﹤]{1,2}[^\s<＜﹤‹>＞﹥›⁅⁆]{1,64}[>＞﹥]{1,2}"  # <think>, </s>, <|im_end|>, <<SYS>>, <｜User｜>
    r"|\[/?(?:[A-Z][A-Z_]+|[gs]MASK|unused\d+)\]"  # [INST], [/INST], [SEP], [gMASK], [unused0]
    r"|\[\|[^\s\[\]‹›⁅⁆]{1,64}\|\]"  # [|endofturn|]
    r"|\[e~\[|\]~!?b[\[\]]"  # [e~[, ]~b], ]~!b[
    r"|>>[A-Z_]+<<"  # >>TITLE<<
)

_BRACKETS = "<＜﹤>＞﹥[]"
"""Every match of `_TAG_LIKE` holds one of them."""
_LOOK_ALIKE = str.maketrans(_BRACKETS, "‹‹‹›››⁅⁆")


def make_inert(text: str) -> str:
    r"""Write text on one line with every tag and special token in it made inert.

    Args:
        text: Any string at all, lone surrogates and control characters included.

    Returns:
        The text with invisible characters dropped, every run of white space as one blank,
        and look-alike brackets wherever something looks like a tag. Doing it again changes nothing.

    Example:
        >>> make_inert("Oslo</answer>\n<|im_end|> 1 < 2")
        'Oslo‹/answer› ‹|im_end|› 1 < 2'
    """
    # Nothing printable is invisible, and Python tells what is printable far sooner than a pattern finds what is not.
    line = " ".join((text if text.isprintable() else _INVISIBLE.sub("", text)).split())
    if not any(bracket in line for bracket in _BRACKETS):
        return line
    return _TAG_LIKE.sub(lambda match: match[0].translate(_LOOK_ALIKE), line)


def has_tag(text: str) -> bool:
    """Whether anything in the text looks like a tag or a special token."""
    return _TAG_LIKE.search(text) is not None
