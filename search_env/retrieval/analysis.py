"""From text to index terms, exactly as Elasticsearch's ``english`` analyzer makes them.

The steps are Lucene's, in Lucene's order: the standard tokenizer (word boundaries of
Unicode Standard Annex 29), the possessive ``'s`` stripped, lower case, 33 stop words
dropped, Porter's first stemmer. Index and queries must go through the same steps, so
the analyzer has an `EnglishAnalyzer.fingerprint` that belongs to an index's name.

Three things differ from Lucene, all rare in English text: emoji are dropped instead of
indexed, quotation marks inside Hebrew words split them, and combining marks beyond the
Basic Multilingual Plane end a word.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import cache, cached_property
from itertools import chain, islice

import Stemmer

__all__ = ["STOP_WORDS", "EnglishAnalyzer", "english_analyzer"]

STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
    "this to was will with".split()
)
"""Lucene's English stop words."""

_MAX_WORD = 255  # The standard tokenizer cuts longer words into pieces of this length.
_MAX_CACHED_CHUNKS = 1 << 18
_MAX_CACHED_LENGTH = 64


class EnglishAnalyzer:
    """Turns text into the terms of Elasticsearch's ``english`` analyzer.

    Example:
        >>> EnglishAnalyzer().analyze("The city's fairgrounds were moved to O'Reilly Park")
        ['citi', 'fairground', 'were', 'move', "o'reilli", 'park']
    """

    def __init__(self) -> None:
        self._terms = _TermsOfChunk()

    def analyze(self, text: str, max_terms: int | None = None) -> list[str]:
        """Analyze a text.

        Args:
            text: Any string at all.
            max_terms: Stop after that many terms; None for all.

        Returns:
            The terms in the order of the text; none is empty or holds white space.
        """
        # No word of Annex 29 spans white space, so the terms of a chunk depend on nothing around it.
        return list(islice(chain.from_iterable(map(self._terms.__getitem__, text.split())), max_terms))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the rules and of what they make of a probe, so that another stemmer shows too."""
        rules = (*sorted(STOP_WORDS), *_BETWEEN_LETTERS, *_BETWEEN_DIGITS, *self.analyze(_PROBE))
        return f"english-{hashlib.sha256(' '.join(rules).encode()).hexdigest()[:8]}"


@cache
def english_analyzer() -> EnglishAnalyzer:
    """The analyzer of this process: sharing it shares its memory of the words seen."""
    return EnglishAnalyzer()


class _TermsOfChunk(dict[str, tuple[str, ...]]):
    """Chunk between white space -> its terms, computed once: most of any text has been seen before."""

    def __init__(self) -> None:
        super().__init__()
        self._stemmer = Stemmer.Stemmer("porter", 0)

    def __missing__(self, chunk: str) -> tuple[str, ...]:
        terms = tuple(term for word in _words(chunk) if (term := self._term(word)))
        if len(chunk) <= _MAX_CACHED_LENGTH:
            if len(self) >= _MAX_CACHED_CHUNKS:
                self.clear()
            self[chunk] = terms
        return terms

    def _term(self, word: str) -> str:
        if word[-1] in "sS" and word[-2:-1] in ("'", "’", "＇"):
            word = word[:-2]
        word = _lower(word)
        if word in STOP_WORDS:
            return ""
        # Lucene leaves words of two letters alone.
        return word if len(word) < 3 else str(self._stemmer.stemWord(_as_lucene_stems(word)))


def _lower(word: str) -> str:
    # Lucene lowers each character by itself: no final sigma, and one character for the dotted capital I.
    return word.lower() if word.isascii() else word.replace("İ", "i").replace("Σ", "σ").lower()


# --- Stems ------------------------------------------------------------------------------------------------------------
# Lucene runs the Porter stemmer as its author published it in Java, which departs from the paper's (PyStemmer's) in two
# endings, -bli and -logi, and in undoubling every consonant before -ed and -ing. A word that meets a departure is
# replaced by one that the paper's stemmer takes to Lucene's stem.
_BLI_OR_LOGI = re.compile(r"(?:(bl)|log)(?:[yi](?:s|(?:ed|ing)s?)?|ies)\Z")
_MEASURE_ABOVE_ZERO = re.compile(r"[aeiou][^aeiou]|[^aeiou]y[^aeiou]")
_VOWEL = re.compile(r"[aeiou]|[^aeiou]y")
_DOUBLED = re.compile(r"([^aeiouylszbdfgmnprt])\1(?:ed|ing)s?\Z")


def _as_lucene_stems(word: str) -> str:
    if word[-1] not in "yisdg":
        return word
    if (found := _BLI_OR_LOGI.search(word)) and _MEASURE_ABOVE_ZERO.search(word, 0, found.start()):
        return word[: found.start()] + ("ble" if found[1] else "log")
    if (found := _DOUBLED.search(word)) and _VOWEL.search(word, 0, found.start()):
        return word[: found.start() + 1]
    return word


# --- Words ------------------------------------------------------------------------------------------------------------
_BETWEEN_LETTERS = ".'‘’․﹒＇．:·‧՟״︓﹕：\u0387"
_BETWEEN_DIGITS = ".'‘’․﹒＇．,;\u037e։،؍٬߸⁄︐︔﹐﹔，；"
_CONNECTOR = "[_\u203f\u2040\u2054\ufe33\ufe34\ufe4d-\ufe4f\uff3f]"
_HAN = "\u2e80-\u2fd5\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufad9\U00020000-\U0003ffff"
_HIRAGANA = "\u3041-\u3096\u309d-\u309f\U0001b001-\U0001b11f"
_KATAKANA = "\u3031-\u3035\u309b\u309c\u30a0-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u32d0-\u32fe\u3300-\u3357\uff66-\uff9f"
# Thai, Lao, Myanmar, Khmer, New Tai Lue, Tai Tham: written without spaces, a run of them is one word.
_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u109a-\u109d"
    "\u1780-\u17d3\u17d7\u17dc\u17dd\u1950-\u19c9\u1a20-\u1a7c"
)


def _of_category(*categories: str) -> str:
    return "".join(c for c in map(chr, range(0x10000)) if unicodedata.category(c) in categories and c != "\u200b")


def _word_pattern() -> re.Pattern[str]:
    # Every repeat is possessive: nothing is tried twice, so the time is linear in the text whatever it holds.
    marks = f"[{_of_category('Mn', 'Mc', 'Me', 'Cf')}]*+"
    other_numbers = _of_category("No")  # superscripts, fractions: letters to Python, nothing to Annex 29
    letter = rf"(?:[^\W\d_{other_numbers}{_HAN}{_HIRAGANA}{_KATAKANA}{_UNSPACED}]++{marks})++"
    digit = rf"(?:\d++{marks})++"
    connector = f"(?:{_CONNECTOR}{marks})"
    letters = f"{letter}(?:[{_BETWEEN_LETTERS}]{marks}{letter})*+"
    digits = f"{digit}(?:[{_BETWEEN_DIGITS}]{marks}{digit})*+"
    core = f"(?:(?:{letters}|{digits})++|(?:[{_KATAKANA}]{marks})++)"
    word = f"{core}(?:{connector}++{core})*+{connector}*+"
    # A run of connectors without a core is matched, too, and then dropped: skipping it by its characters would make
    # the search start over at each of them.
    return re.compile(f"{connector}++(?:{word})?+|{word}|[{_UNSPACED}]++|[{_HAN}{_HIRAGANA}]{marks}")


_WORD = _word_pattern()
_ONLY_CONNECTORS = re.compile(r"[\W_]*")


def _words(chunk: str) -> list[str]:
    words = [word for word in _WORD.findall(chunk) if not _ONLY_CONNECTORS.fullmatch(word)]
    if len(chunk) <= _MAX_WORD:
        return words
    return [word[start : start + _MAX_WORD] for word in words for start in range(0, len(word), _MAX_WORD)]


_PROBE = (
    "The cat's O'Reilly’s 3,000.5 a_b e.g. AT&T Caresses ponies agreed hopping possibly revving technology was us "
    "naïve Ångström km² 東京 カタカナ ไทย can't U.S.A."
)
"""Meets each rule once."""
