"""Sentences are cut where they end, and answers are read where they are stated."""

from __future__ import annotations

import pytest
from search_agents.methods.chain_of_thought import chain_prompt, first_sentence, stated_answer

from search_env.types import Document


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("He was born in Rome. He died.", "He was born in Rome."),
        ("Dr. J. R. Low of St. Ives wrote it. Then", "Dr. J. R. Low of St. Ives wrote it."),
        ("It is 3.5 km long. It bends.", "It is 3.5 km long."),
        ('She asked "Why?" Then she left.', 'She asked "Why?"'),
        ("The U.S. Army came. So", "The U.S. Army came."),
        ("It was c. 1990. Élan came.", "It was c. 1990."),
        ("one line\nSecond line.", "one line"),
        ("  ends here.  ", "ends here."),
        ("no end", "no end"),
        ("", ""),
    ],
)
def test_the_first_sentence(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


@pytest.mark.parametrize(
    ("chain", "answer"),
    [
        ("x. So the answer is: Miquette Giraudy.", "Miquette Giraudy"),
        ("The answer is J. R. Low. The answer is wrong.", "J. R. Low"),
        ("So the answer is\n 3.5 km. And", "3.5 km"),
        ("So the ANSWER IS:<b> x", "‹b› x"),
        ("So the answer is:", None),
        ("The answers isolate.", None),
        ("", None),
    ],
)
def test_the_stated_answer(chain: str, answer: str | None) -> None:
    assert stated_answer(chain) == answer


@pytest.mark.parametrize("chat", [True, False])
def test_a_closed_book_shows_no_passages_not_even_in_the_examples(chat: bool) -> None:
    assert "assage" not in chain_prompt("Who?", None, chat=chat).text
    page = Document(id="1", title="<a>", text="<|x|>")
    prompt = chain_prompt("Who?", [page], chat=chat, so_far="He\n</s> is")
    assert "Passage 1, ‹a›: ‹|x|›\nQuestion: Who?" in prompt.text
    assert prompt.prefill == "Thoughts: He ‹/s› is" and bool(prompt.system) is chat
