"""SKR's judges that ask the model itself: with nothing but the question, or after examples from its own record."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from search_agents.learning.run_folder import write_json
from search_agents.methods.base import Setting
from search_agents.methods.prompts import begun_prompt
from search_agents.methods.skr.rule import Label, Verdict
from search_agents.methods.steps import Steps, generate
from search_agents.methods.stepwise import StepwiseMethod
from search_env.dialects import make_inert
from search_env.types import Question

__all__ = ["AskingJudge", "Example", "verdicts"]

_DO_YOU_NEED = "Do you have to look anything up before you can answer this question? Reply with yes or no."
_REPLY = "Yes or no:"
_PART = "part.json"


class Example(NamedTuple):
    """A labelled question that the model reads before it judges another one."""

    question: str
    retrieve: bool


class AskingJudge:
    """Asks the model whether it has to look anything up.

    Args:
        examples: What it reads first; none for the judge that has no part.
    """

    def __init__(self, examples: Sequence[Example] = ()) -> None:
        self.examples = tuple(examples)

    @classmethod
    def fit(cls, rows: Sequence[dict[str, Any]], *, most: int) -> AskingJudge:
        """Take as many questions that retrieval helped as it harmed, in turn, the first ones.

        Args:
            rows: See `collect_labels`. Those with the label same teach nothing about retrieval and are left out.
            most: The most examples; an odd one is left out.
        """
        helped, harmed = ([row for row in rows if row["label"] == label] for label in (Label.BETTER, Label.WORSE))
        pairs = list(zip(helped, harmed, strict=False))[: most // 2]
        return cls([Example(row["question"], row["label"] == Label.BETTER) for row in chain.from_iterable(pairs)])

    @classmethod
    def load(cls, folder: Path) -> AskingJudge:
        """Read what `save` wrote."""
        part = json.loads((folder / _PART).read_text(encoding="utf-8"))
        return cls([Example(**example) for example in part["examples"]])

    def save(self, folder: Path, *, encoder: str, model: str) -> None:
        """Write the examples; see `NeighbourJudge.save`."""
        folder.mkdir(parents=True, exist_ok=True)
        examples = [example._asdict() for example in self.examples]
        write_json(folder / _PART, {"encoder": encoder, "model": model, "examples": examples})

    def judge(self, question: str, *, chat: bool) -> Steps[Verdict]:
        """Ask; without a yes or a no, retrieval it is.

        Args:
            question: Its text.
            chat: Whether the model reads its chat template.
        """
        shown = [f"{_asked(each.question)}\n{_REPLY} {'yes' if each.retrieve else 'no'}" for each in self.examples]
        instruction = "\n\n".join([_DO_YOU_NEED, *shown])
        prompt = begun_prompt(instruction, _asked(question), _REPLY, chat=chat)
        said = re.search(
            r"\b(yes|no)\b",
            (yield from generate("need", prompt, stop=() if chat else ("\n",))).text,
            re.IGNORECASE,
        )
        if said is None:
            return Verdict(True, "the model did not say whether it has to look anything up")
        return Verdict(said[1].lower() == "yes", f"asked whether it has to look anything up, the model says {said[1]}")


def verdicts(setting: Setting, judge: AskingJudge, questions: Sequence[Question]) -> dict[str, Verdict]:
    """What the model says to questions, by their texts: one call each, or none where the budget leaves it no room."""
    asking = _Asking(setting, judge)
    for _ in asking.run(questions):
        pass
    no_room = Verdict(True, "the prompt leaves the model no room to say whether it has to look anything up")
    return {question.text: asking.verdicts.get(question.text, no_room) for question in questions}


class _Asking(StepwiseMethod):
    """Asks, and answers nothing."""

    name = "skr-asking"

    def __init__(self, setting: Setting, judge: AskingJudge) -> None:
        super().__init__(setting)
        self._judge = judge
        self.verdicts: dict[str, Verdict] = {}

    def answer(self, question: Question) -> Steps[str]:
        self.verdicts[question.text] = yield from self._judge.judge(question.text, chat=self.setting.chat)
        return ""


def _asked(question: str) -> str:
    return f"Question: {make_inert(question)}"
