"""The analyzer gives the terms of Elasticsearch's `english` analyzer, judged by a slow reference of its own."""

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from search_env.retrieval.analysis import STOP_WORDS, EnglishAnalyzer, english_analyzer

CORPUS = Path(__file__).parents[4] / "shared" / "data" / "hotpotqa" / "corpus.jsonl"


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("O'Reilly's DON'T", ["o'reilli", "don't"]),
        ("the dogs’ dog’s DOG'S dog＇s", ["dog", "dog", "dog", "dog"]),
        ("'quoted' “words” (here)", ["quot", "word", "here"]),
        ("wi-fi and/or A&B", ["wi", "fi", "b"]),
        ("U.S.A. e.g. example.com", ["u.s.a", "e.g", "example.com"]),
        ("3,000.50 1,2,a 10km 4x4 a:b 1:2", ["3,000.50", "1,2", "10km", "4x4", "a:b", "1", "2"]),
        ("snake_case _edge_ ____ a_1", ["snake_cas", "_edge_", "a_1"]),
        ("km² ½ 5½ Ⅷ Ⅷ's", ["km", "5", "ⅷ", "ⅷ"]),
        ("naïve café Ångström ʻokina", ["naïv", "café", "ångström", "ʻokina"]),
        ("cafe\u0301s soft\u00adhyphen", ["cafe\u0301", "soft\u00adhyphen"]),
        ("ΟΔΥΣΣΕΥΣ İstanbul", ["οδυσσευσ", "istanbul"]),
        ("東京タワー ひら ไทยแลนด์ 한국어", ["東", "京", "タワー", "ひ", "ら", "ไทยแลนด์", "한국어"]),
        ("us as a gas", ["us", "ga"]),
        ("", []),
        ("The of AND \x00\x07\ud800 — … !", []),
    ],
)
def test_words_are_those_of_the_standard_tokenizer(text, terms):
    assert EnglishAnalyzer().analyze(text) == terms


def test_lucenes_33_stop_words_and_no_others_are_dropped():
    assert len(STOP_WORDS) == 33
    assert EnglishAnalyzer().analyze(" ".join(sorted(STOP_WORDS)).title()) == []
    assert EnglishAnalyzer().analyze("from which he has been") == ["from", "which", "he", "ha", "been"]


def test_a_word_over_255_characters_is_cut_into_pieces():
    assert EnglishAnalyzer().analyze("x" * 600 + ".") == ["x" * 255, "x" * 255, "x" * 90]


def test_max_terms_keeps_the_first_terms():
    assert EnglishAnalyzer().analyze("the one, two three", max_terms=2) == ["on", "two"]


def test_a_second_look_at_a_text_gives_the_same_terms():
    analyzer = EnglishAnalyzer()
    text = "Possibly the O'Neills' (trekking) e.g. possibly"
    assert analyzer.analyze(text) == analyzer.analyze(text) == EnglishAnalyzer().analyze(text)


def test_the_fingerprint_names_this_analyzer():
    # An index and every published score carry it: it changes only when terms change.
    assert english_analyzer().fingerprint == EnglishAnalyzer().fingerprint == "english-f27168e4"


@pytest.mark.parametrize("unit", ["_", "a", "a.", "a\u0301", "a:\u0301", "'", "1,", "_a", "the ", "\x00", "a_:", "y"])
def test_a_megabyte_of_anything_takes_bounded_time(unit):
    started = time.process_time()
    EnglishAnalyzer().analyze(unit * (10**6 // len(unit)))
    assert time.process_time() - started < 5


# --- A reference stemmer: the rules of the paper, with the departures of its author's Java version -------------------

STEP_2 = (
    "ational:ate tional:tion enci:ence anci:ance izer:ize bli:ble alli:al entli:ent eli:e ousli:ous ization:ize "
    "ation:ate ator:ate alism:al iveness:ive fulness:ful ousness:ous aliti:al iviti:ive biliti:ble logi:log"
)
STEP_3 = "icate:ic ative: alize:al iciti:ic ical:ic ful: ness:"
STEP_4 = "al ance ence er ic able ible ant ement ment ent sion tion ou ism ate iti ous ive ize"


def shape(word):
    """Consonants as c, vowels as v; a y is a vowel after a consonant."""
    kinds = ""
    for letter in word:
        kinds += "v" if letter in "aeiou" or (letter == "y" and kinds.endswith("c")) else "c"
    return kinds


def measure(stem):
    return len(re.findall("v+c+", shape(stem)))


def ends_like_hop(stem):
    return shape(stem).endswith("cvc") and stem[-1] not in "wxy"


def replace_suffix(word, table):
    for suffix, new in (rule.split(":") for rule in table.split()):
        if word.endswith(suffix):
            stem = word.removesuffix(suffix)
            return stem + new if measure(stem) > 0 else word
    return word


def without_plural(word):
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def without_ed_or_ing(word):
    if word.endswith("eed"):
        return word[:-1] if measure(word[:-3]) > 0 else word
    stem = re.sub("(ed|ing)$", "", word)
    if stem == word or "v" not in shape(stem):
        return word
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if shape(stem).endswith("c") and stem[-1] == stem[-2:-1]:
        return stem if stem[-1] in "lsz" else stem[:-1]
    return stem + "e" if measure(stem) == 1 and ends_like_hop(stem) else stem


def reference_stem(word):
    if len(word) < 3:
        return word
    word = without_ed_or_ing(without_plural(word))
    if word.endswith("y") and "v" in shape(word[:-1]):
        word = word[:-1] + "i"
    word = replace_suffix(replace_suffix(word, STEP_2), STEP_3)
    for suffix in STEP_4.split():
        if word.endswith(suffix):
            keep = len(word) - len(suffix) + (suffix in ("sion", "tion"))
            word = word[:keep] if measure(word[:keep]) > 1 else word
            break
    if word.endswith("e") and (measure(word[:-1]) > 1 or (measure(word[:-1]) == 1 and not ends_like_hop(word[:-1]))):
        word = word[:-1]
    return word[:-1] if word.endswith("ll") and measure(word) > 1 else word


def test_the_reference_stems_as_the_paper_says():
    examples = (
        "caresses:caress ponies:poni ties:ti cats:cat feed:feed agreed:agre plastered:plaster bled:bled motoring:motor "
        "sing:sing conflated:conflat hopping:hop falling:fall failing:fail filing:file happy:happi sky:sky "
        "relational:relat rational:ration digitizer:digit vietnamization:vietnam triplicate:triplic goodness:good "
        "adjustment:adjust adoption:adopt probate:probat rate:rate cease:ceas controlling:control rolling:roll "
        "possibly:possibl technology:technolog geology:geologi trekking:trek"
    )
    for word, stem in (example.split(":") for example in examples.split()):
        assert reference_stem(word) == stem, word
        assert EnglishAnalyzer().analyze(word) == [stem]


ENDINGS = (
    "s ss sses ies ed eed ing y bl log bli bly logi logy logies at iz kk vv nn ll ational ation al alli ence er ic "
    "able ant ement ment ent ion sion tion ou ism ate iti iviti ous ousness ive iveness ize izer ful ness icate ative "
    "ical"
).split()


@given(st.text("abeioutkvlszr", min_size=1, max_size=6), st.lists(st.sampled_from(ENDINGS), max_size=3))
def test_stems_are_lucenes_for_any_word(start, endings):
    word = start + "".join(endings)
    assume("yy" not in word)  # No word of any language that the rules were made for.
    assert EnglishAnalyzer().analyze(word) == ([] if word in STOP_WORDS else [reference_stem(word)])


def test_stems_are_lucenes_for_every_word_of_wikipedia_passages():
    if not CORPUS.exists():
        pytest.skip(f"no data at {CORPUS}")
    passages = [json.loads(line)["text"] for line in CORPUS.read_bytes().splitlines()[:3000]]
    words = {word for text in passages for word in re.findall("[a-z]+", text.lower())} - STOP_WORDS
    assert len(words) > 20_000
    analyzer = EnglishAnalyzer()
    wrong = {word for word in words if analyzer.analyze(word) != [reference_stem(word)]}
    assert not wrong
