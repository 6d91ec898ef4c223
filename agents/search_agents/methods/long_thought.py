"""Standard RAG around a model of long thoughts: it thinks inside one pair of tags and answers inside another.

What Marco-o1 and Skywork-o1 have in common. Their rows are about the checkpoint: with
another model this is a prompt, and the row's note says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from search_agents.methods.prompts import begun_prompt, first_line, passages
from search_agents.methods.steps import Steps, generate
from search_agents.methods.stepwise import StepwiseMethod
from search_env.dialects import make_inert
from search_env.types import Hit, Prompt, Question

__all__ = ["BEGINNING", "OUTPUT", "OUTPUT_END", "THOUGHT_END", "LongThoughtMethod", "output_of"]

BEGINNING, THOUGHT_END = "<Thought>", "</Thought>"
OUTPUT, OUTPUT_END = "<Output>", "</Output>"

_INSTRUCTION = f"""\
Answer the question with the help of the passages. First think between {BEGINNING} and {THOUGHT_END}: go step by step, \
a line for each step, check each step against the passages, and start anew where one turns out wrong. Then write the \
answer alone, a few words, between {OUTPUT} and {OUTPUT_END}.

Passage 1, The Saltmarsh Lantern: The Saltmarsh Lantern is a film by Ysolde Marrin.
Passage 2, Ysolde Marrin: Ysolde Marrin, born in Tessaly Bay, is a film director.
Question: In which town was the director of The Saltmarsh Lantern born?
{BEGINNING}
The film is by Ysolde Marrin.
Passage 2 says that she was born in Tessaly Bay.
{THOUGHT_END}
{OUTPUT}Tessaly Bay{OUTPUT_END}"""

_NEXT_QUESTION = "\nQuestion:"  # where a base model goes on with an example of its own


class LongThoughtMethod(StepwiseMethod):
    """What is built around one search and responses that begin with a thought."""

    def prompt(self, question: Question, hits: Sequence[Hit], begun: str) -> Prompt:
        """A prompt whose response begins with `begun`."""
        return begun_prompt(_INSTRUCTION, self.material(question, hits), begun, chat=self.setting.chat)

    def material(self, question: Question, hits: Sequence[Hit]) -> str:
        """What a response is about."""
        return f"{passages(hits)}\nQuestion: {make_inert(question.text)}"

    def respond(
        self, question: Question, hits: Sequence[Hit], begun: str, *, temperature: float | None = None
    ) -> Steps[str]:
        """The whole response, written after its beginning; one call, see `close`."""
        prompt = self.prompt(question, hits, begun)
        stop = (OUTPUT_END, _NEXT_QUESTION)
        completion = yield from generate("thought and output", prompt, stop=stop, temperature=temperature)
        return begun + completion.text.removesuffix(_NEXT_QUESTION)

    def close(self, question: Question, hits: Sequence[Hit], response: str) -> Steps[str]:
        """The answer of a response; where it has no output, the thought is closed and the output opened for one call.

        Returns:
            The answer; empty if there is still none.
        """
        if (answer := output_of(response)) is not None:
            return answer
        ending = "" if THOUGHT_END in response else f"\n{THOUGHT_END}"
        begun = f"{response.rstrip()}{ending}\n{OUTPUT}"
        prompt = self.prompt(question, hits, begun)
        return first_line((yield from generate("output", prompt, stop=("</", "\n"))).text.removesuffix("</"))


def output_of(response: str) -> str | None:
    """What stands in the first output after the thought, up to its end; None if there is no output.

    Example:
        >>> output_of("<Thought>It is north.</Thought><Output>Oslo</Output>")
        'Oslo'
    """
    thought, closed, rest = response.partition(THOUGHT_END)
    _, opened, output = (rest if closed else thought).partition(OUTPUT)
    return first_line(output.partition(OUTPUT_END)[0]) if opened else None
