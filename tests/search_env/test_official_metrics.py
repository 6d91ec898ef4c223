"""HotpotQA's official EM and F1, written anew from their definition: ours agree in the normalisation that claims so."""

from __future__ import annotations

import random
import re
import string

import pytest

from search_env.metrics import score

WORDS = (
    "the a an The A An Yes yes no No noanswer NOANSWER true False Oslo oslo OSLO New York U.S. US u.s.a "
    "O'Neil O’Neil École école E\u0301cole 東京 Straße STRASSE İstanbul Ωmega ½ 1,000 1000 3.14 -5 $5 5% & and "
    "snake_case well-known theatre another a-ha rock'n'roll « » — … \u00a0 \u2003 \u200b x\u0301 🙂 (band) [1] "
    "</answer> \\ ´ `"
).split(" ")
GLUE = ("", " ", "  ", "\t", "\n", "-", ", ", ".", "/", "_", "'", "\u00a0")


def official_words(text):
    """Lower case; ASCII punctuation deleted; articles out; what blanks part is a word."""
    kept = "".join(char for char in text.lower() if char not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def official_em(answer, gold):
    return float(official_words(answer) == official_words(gold))


def official_f1(answer, gold):
    given, wanted = official_words(answer), official_words(gold)
    for one, other in ((given, wanted), (wanted, given)):
        if one in (["yes"], ["no"], ["noanswer"]) and one != other:
            return 0.0
    rest, common = list(wanted), 0
    for word in given:
        if word in rest:
            rest.remove(word)
            common += 1
    if not common:
        return 0.0
    precision, recall = common / len(given), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def generated_pairs(count):
    """Texts of awkward words; half of the answers are made from their gold answer."""
    rng = random.Random(0)

    def text():
        return "".join(rng.choice(WORDS) + rng.choice(GLUE) for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 5))))

    def disturbed(gold):
        changes = (
            str.upper, str.title, lambda words: f"the {words}.", lambda words: f"{words} {text()}",
            lambda words: " ".join(rng.sample(words.split(), len(words.split()))), lambda words: words[1:], str.strip,
        )  # fmt: skip
        return rng.choice(changes)(gold)

    golds = [text() for _ in range(count)]
    return [(text() if rng.random() < 0.5 else disturbed(gold), gold) for gold in golds]


def test_official_em_and_f1_agree_with_ours_on_ten_thousand_pairs():
    pairs = generated_pairs(10_000)
    seen = {"equal": 0, "partly": 0, "verdict": 0, "none": 0}
    for answer, gold in pairs:
        ours = score(answer, [gold], "flashrag")
        expected = (official_em(answer, gold), official_f1(answer, gold))
        assert (ours["em"], ours["f1"]) == (expected[0], pytest.approx(expected[1], abs=1e-12)), (answer, gold)
        shared = set(official_words(answer)) & set(official_words(gold))
        case = (
            "verdict" if shared and not expected[1] else "none" if not shared else "equal" if expected[0] else "partly"
        )
        seen[case] += 1
    assert all(seen[case] >= 30 for case in seen), seen


def test_a_verdict_that_shares_a_word_with_the_gold_answer_has_no_f1():
    for answer, gold in (("yes", "yes it is"), ("no doubt", "no"), ("noanswer", "noanswer found")):
        assert score(answer, [gold], "flashrag")["f1"] == official_f1(answer, gold) == 0.0


def test_the_other_normalisation_is_not_the_official_one():
    differing = [
        (answer, gold)
        for answer, gold in generated_pairs(2_000)
        if score(answer, [gold])["em"] != official_em(answer, gold)
    ]
    assert differing
