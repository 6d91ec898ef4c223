"""The page on the methods names each of them, and its example runs."""

import re
from pathlib import Path

import pytest
from search_agents.engines import SamplingParams
from search_agents.engines.scripted import ScriptedEngine
from search_agents.methods import BUILT_IN, Setting

from search_env import SearchQAVectorEnv

PAGE = (Path(__file__).parents[2] / "agents" / "README.md").read_text(encoding="utf-8")


def test_every_method_has_one_row_in_the_order_of_the_registry():
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE, flags=re.M)
    assert rows == list(BUILT_IN)


@pytest.mark.parametrize("code", re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S))
def test_the_example_is_a_method(code):
    namespace = {}
    exec(compile(code, "agents/README.md", "exec"), namespace)
    env = SearchQAVectorEnv(4, dataset="fictional-wiki", split="test", prompt="base")
    engine = ScriptedEngine(lambda prompt: " a film\n" if prompt.endswith("look up next:") else " Nobody\n")
    setting = Setting(engine=engine, env=env, sampling=SamplingParams(), max_tokens=20_000, chat=False)
    transcripts = list(namespace["SearchTwice"](setting).run(env.dataset.questions[:6]))
    assert [transcript.answer for transcript in transcripts] == ["Nobody"] * 6
    assert all(transcript.queries[1] == "a film" for transcript in transcripts)
