"""ReAct: thoughts and actions in turn, with an encyclopedia that is searched by the titles of its pages."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pydantic import PositiveInt

from search_agents.config.sections import Section
from search_agents.methods.base import Setting, env_like
from search_agents.methods.prompts import begun_prompt
from search_agents.methods.steps import Steps, generate, note, retrieve
from search_agents.methods.stepwise import StepwiseMethod
from search_env.dialects import make_inert
from search_env.retrieval.base import Retriever
from search_env.types import Document, Hit, Question

__all__ = ["ReAct", "ReActOptions", "TitleLookup"]

_INSTRUCTION = """\
Answer the question in steps of a thought, an action and an observation. There are three actions:
Search[title] opens the page of that title and shows how it begins.
Lookup[words] shows the next sentence of the open page that holds the words.
Finish[answer] ends with the answer: a few words, yes or no.

Question: In which town was the director of The Saltmarsh Lantern born?
Thought 1: I need the director of The Saltmarsh Lantern first.
Action 1: Search[The Saltmarsh Lantern]
Observation 1: The Saltmarsh Lantern is a drama film. It was directed by Ysolde Marrin.
Thought 2: Ysolde Marrin directed it. I need the town of her birth.
Action 2: Search[Ysolde Marrin]
Observation 2: Ysolde Marrin is a film director. She studied in Quelling.
Thought 3: That is where she studied. I look for the word born.
Action 3: Lookup[born]
Observation 3: (Result 1 / 1) She was born in Tessaly Bay.
Thought 4: She was born in Tessaly Bay, which is the answer.
Action 4: Finish[Tessaly Bay]

Question: Do the rivers Ombry and Lesk end in the same sea?
Thought 1: I need to know where the Ombry ends, then where the Lesk ends.
Action 1: Search[Ombry]
Observation 1: The Ombry is a river. It ends in the Pale Sea.
Thought 2: The Ombry ends in the Pale Sea. Now the Lesk.
Action 2: Search[Lesk]
Observation 2: The Lesk is a river that flows into the Gulf of Orrin.
Thought 3: They end in different seas, so the answer is no.
Action 3: Finish[no]"""

_ACTION_LINE = re.compile(r"^[ \t]*Action[ \t]*\d*[ \t]*:[ \t]*(.*)$", re.MULTILINE | re.IGNORECASE)
_ACTION = re.compile(r"(search|lookup|finish)[ \t]*\[([^\]\n]*)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^\W_a-z])")

_UNKNOWN = "That is no action. The actions are Search[title], Lookup[words] and Finish[answer]."
_SPENT = "No further search is allowed. Finish with what is known."


class ReActOptions(Section):
    """Options of the method ``react``."""

    max_steps: PositiveInt = 7
    """Steps of thought, action and observation (the paper: 7 for HotpotQA); the budget of turns bounds them too."""
    sentences: PositiveInt = 5
    """Sentences that a search shows of a page (the paper: the first 5)."""
    fallback: Literal["page", "titles"] = "page"
    """What a search for a title that has no page shows: the page that the retriever finds best, as Wikipedia's own
    search redirects; or only the titles it finds, as the paper's observations name similar titles."""


class ReAct(StepwiseMethod):
    """ReAct (Yao et al. 2023, arXiv 2210.03629) on HotpotQA: Search, Lookup and Finish.

    Each step the model writes a thought and an action. Search opens the page of a title, or what the retriever finds
    where there is none; it shows the first sentences. Lookup shows the next sentence of the open page that holds the
    words. Finish ends; an episode that does not finish within its steps has no answer.

    Calls: one a step, and one more for a step whose reply holds no action (the authors ask for the action alone, and
    so does this). Searches: one for each Search, at most the budget; beyond it the observation says so.

    From the authors' code it differs in the corpus, where a page is the passages of one title, at most k of them; in
    the examples, which are two of our own instead of six from HotpotQA's training set; and in the fallback.
    """

    name = "react"
    Options = ReActOptions

    def __init__(self, setting: Setting, options: Any = None) -> None:
        lookup = TitleLookup(setting.env.retriever, setting.env.dataset.documents)
        super().__init__(dataclasses.replace(setting, env=env_like(setting.env, retriever=lookup)), options)

    def answer(self, question: Question) -> Steps[str]:
        """Think, act and observe until the action is to finish."""
        budget = self.setting.env.rules.budget
        chain, page, searches = "", _Page(()), 0
        for number in range(1, min(self.options.max_steps, budget.max_turns) + 1):
            thought, action = yield from self._step(question, chain, number)
            if action.kind == "finish":
                return action.text
            if action.kind == "search" and searches < budget.max_searches:
                searches += 1
                observation, page = yield from self._search(action.text, page)
            elif action.kind == "search":
                observation = _SPENT
            else:
                observation = page.lookup(action.text) if action.kind == "lookup" else _UNKNOWN
            yield from note("observation", observation)
            chain += f"Thought {number}: {thought}\nAction {number}: {action.said}\nObservation {number}: "
            chain += f"{observation}\n"
        return ""

    def _step(self, question: Question, chain: str, number: int) -> Steps[tuple[str, _Action]]:
        """A thought and an action."""
        reply = yield from self._write(question, f"{chain}Thought {number}:", "thought and action")
        line = _ACTION_LINE.search(reply)
        if line is not None:
            return make_inert(reply[: line.start()]), _read(line[1])
        thought = make_inert(reply.strip().partition("\n")[0])
        said = yield from self._write(question, f"{chain}Thought {number}: {thought}\nAction {number}:", "action")
        return thought, _read(said.strip().partition("\n")[0])

    def _write(self, question: Question, begun: str, purpose: str) -> Steps[str]:
        asked = f"Question: {make_inert(question.text)}"
        prompt = begun_prompt(_INSTRUCTION, asked, begun, chat=self.setting.chat)
        # A model that goes on would write its own observations, or nothing but the same line.
        stop = ("\n",) if purpose == "action" else ("\nObservation", "\nThought", "\nQuestion:", "\n\n")
        text = (yield from generate(purpose, prompt, stop=stop)).text
        for end in stop:
            text = text.removesuffix(end)
        return text

    def _search(self, title: str, page: _Page) -> Steps[tuple[str, _Page]]:
        """What a search shows, and the page that is open then."""
        hits = yield from retrieve(title)
        if not hits:
            return f"Nothing was found for {title}.", page
        best = hits[0].document.title
        found = _Page([hit.document for hit in hits if _key(hit.document.title) == _key(best)])
        if _key(best) == _key(title):
            return found.beginning(self.options.sentences), found
        titles = ", ".join(dict.fromkeys(make_inert(hit.document.title) for hit in hits))
        if self.options.fallback == "titles":
            return f"There is no page {title}. Similar: {titles}.", page
        beginning = found.beginning(self.options.sentences)
        return f"There is no page {title}. The nearest is {make_inert(best)}: {beginning}", found


class TitleLookup:
    """Finds the passages of a title first; what is no title goes to another retriever.

    Args:
        inner: Searches for what is no title.
        documents: The corpus. Where it is empty, for the inner retriever has documents of its own, a title is looked
            for among those that it finds.
    """

    def __init__(self, inner: Retriever, documents: Sequence[Document]) -> None:
        self._inner = inner
        self._pages: dict[str, list[Document]] = defaultdict(list)
        for document in documents:
            self._pages[_key(document.title)].append(document)

    @property
    def fingerprint(self) -> str:
        """That of the inner retriever, marked."""
        return f"titles-{self._inner.fingerprint}"

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """Run a batch of queries; see `Retriever.search`."""
        others = [query for query in dict.fromkeys(queries) if _key(query) not in self._pages]
        found = dict(zip(others, self._inner.search(others, top_k) if others else [], strict=True))
        return [
            tuple(sorted(found[query], key=lambda hit: _key(hit.document.title) != _key(query)))
            if query in found
            else tuple(Hit(document=document, score=1.0) for document in self._pages[_key(query)][:top_k])
            for query in queries
        ]


class _Page:
    """The open page, and how far its sentences have been looked through."""

    def __init__(self, documents: Sequence[Document]) -> None:
        text = " ".join(make_inert(document.text) for document in documents)
        self._sentences = [sentence for sentence in _SENTENCE_END.split(text) if sentence]
        self._words, self._shown = "", 0

    def beginning(self, count: int) -> str:
        return " ".join(self._sentences[:count])

    def lookup(self, words: str) -> str:
        if words != self._words:
            self._words, self._shown = words, 0
        found = [sentence for sentence in self._sentences if words.casefold() in sentence.casefold()]
        if self._shown >= len(found):
            return "No more results."
        self._shown += 1
        return f"(Result {self._shown} / {len(found)}) {found[self._shown - 1]}"


class _Action(NamedTuple):
    """What a line of action says."""

    kind: str
    """search, lookup or finish; empty if it is none of them."""
    text: str
    said: str
    """The line as the chain repeats it."""


def _read(line: str) -> _Action:
    found = _ACTION.search(line)
    text = make_inert(found[2]) if found else ""
    if found is None or not text:
        return _Action("", "", make_inert(line))
    kind = found[1].lower()
    return _Action(kind, text, f"{kind.capitalize()}[{text}]")


def _key(title: str) -> str:
    """Titles with the same key are the same title."""
    return " ".join(title.casefold().split())
