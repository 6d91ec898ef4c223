"""A person at the terminal, on the same questions, with the same documents and budgets as every method.

Each line typed is one action: keywords search, ``answer: …`` ends the question. The line
is wrapped in the dialect's tags, so the environment sees a well-formed segment; a line
that already holds a tag is passed on as it is. Lines may also come from a pipe.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence

from search_agents.methods.base import Setting
from search_agents.methods.playing import PlayingMethod
from search_env.dialects.base import Dialect, PromptStyle
from search_env.render import visible
from search_env.types import ActionKind, Question, Transcript

__all__ = ["HOW_TO_PLAY", "Human", "as_segment", "make_human", "read_line", "shown_turn"]

HOW_TO_PLAY = "Type keywords to search, `answer: …` to answer, `quit` to leave."
_LEAVING = "quit"


class Human(PlayingMethod):
    """Asks a person; no model is needed. The questions come one by one, and none is asked again once it is answered.

    Whoever leaves, or whose pipe ends, interrupts the evaluation: what was answered is kept, and `search-env resume`
    goes on with the next question. Whether an answer was right is not told, for another question may rest on it.
    """

    name = "human"

    @property
    def note(self) -> str:
        """See `StepwiseMethod.note`."""
        return "a person at the terminal: no model was asked"

    def run(self, questions: Sequence[Question], *, skip: Collection[int] = ()) -> Iterator[Transcript]:
        """Answer questions, one at a time; see `Method.run`.

        Raises:
            KeyboardInterrupt: If the person leaves.
        """
        for number in (number for number in range(len(questions)) if number not in skip):
            budget = self.env.rules.budget
            _tell(f"\nQuestion {number + 1} of {len(questions)}: {visible(questions[number].text)}")
            _tell(f"{HOW_TO_PLAY} Searches allowed: {budget.max_searches}, lines: {budget.max_turns}.")
            yield from self._play({number: questions[number]})

    def act(self, running: Mapping[int, Transcript]) -> Sequence[tuple[int, str]]:
        """Read the next line; see `PlayingMethod.act`."""
        ((number, transcript),) = running.items()
        if transcript.turns:
            _tell(shown_turn(transcript))
        while (line := read_line()) is not None and line.strip().lower() != _LEAVING:
            if line.strip():
                return [(number, as_segment(line, self.env.rules.dialect))]
        raise KeyboardInterrupt("the player left")


def make_human(setting: Setting) -> Human:
    """The person in a comparison."""
    return Human(setting.env)


def as_segment(line: str, dialect: Dialect) -> str:
    """Turn what a person typed into a segment that a model could have written.

    Args:
        line: Keywords, or ``answer: …``; text that holds a tag of the dialect is left as it is.
        dialect: The protocol of the episode.
    """
    if any(tag in line for tag in dialect.tags):
        return line
    head, colon, text = line.partition(":")
    if colon and head.strip().lower() == "answer":
        return (
            _opening(dialect, ends=True)
            + f"{dialect.answer.open} {dialect.answer_body(text.strip())} {dialect.answer.close}"
        )
    return _opening(dialect, ends=False) + f"{dialect.query.open} {line.strip()} {dialect.query.close}"


def read_line() -> str | None:
    """The next line of the terminal or pipe; None at its end."""
    if sys.stdin.isatty():
        sys.stdout.write("> ")
        sys.stdout.flush()
    return sys.stdin.readline() or None


def shown_turn(transcript: Transcript) -> str:
    """What the last action brought, for a person to read: documents, or what was wrong with it."""
    turn = transcript.turns[-1]
    if turn.action.kind is ActionKind.MALFORMED:
        return f"  not understood: {visible(turn.action.problem)}"
    lines = [
        f"  ({rank}) {visible(hit.document.title)}: {visible(hit.document.text)}"
        for rank, hit in enumerate(turn.hits, start=1)
    ]
    return "\n".join(lines) or "  nothing found"


def _opening(dialect: Dialect, *, ends: bool) -> str:
    """The reasoning that the format asks for.

    Where the prompt opens it, it is one block over the episode, closed before the answer; else one a segment.
    """
    if not dialect.prompt("", PromptStyle.BARE).prefill:
        return f"{dialect.think.open} … {dialect.think.close}\n"
    return f" … {dialect.think.close}\n\n" if ends else " … "


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
