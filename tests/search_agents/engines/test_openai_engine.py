"""The engine of servers, against a stand-in on the loopback that names the stop string, or does not."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError
from search_agents.cli import main
from search_agents.config.sections import ModelSection, ServerSection
from search_agents.engines.base import Capability, FinishReason, GenerationRequest, SamplingParams, ScoringRequest
from search_agents.engines.build import make_engine, model_identity
from search_agents.engines.echo import read_echo
from search_agents.engines.openai import OpenAIEngine, restore_stop
from search_agents.methods import Setting, make_method

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError, EngineUnavailable, ModelError
from search_env.types import Document, Hit, Prompt, Question, StopReason

pytest.importorskip("openai")


END = "<|end|>"


class Server:
    """Says what `say` returns for a prompt, cut at the first stop string; a token is a word with the space before it.

    It lists tokens as vLLM does: with the beginning of sequence `bos`, if it has one, and the ending of a text, unless
    `lists_ending` is off. `likely` gives the probability of each token of a text that it says, None to send none.
    """

    def __init__(self):
        self.say = lambda prompt: "Lima"
        self.tells_stop, self.context, self.fail_first, self.key = True, 10_000, 0, None
        self.bos, self.lists_ending, self.likely = "", True, lambda prompt: 0.5
        self.counts = True
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append((self.path, body))
                status, reply = outer.reply(self.path, body, self.headers["Authorization"])
                data = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                if status == 429:
                    self.send_header("Retry-After-Ms", "1")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def reply(self, path, body, authorization):
        if self.key and authorization != f"Bearer {self.key}":
            return 401, {"error": {"message": "wrong key"}}
        if self.fail_first:
            self.fail_first -= 1
            return 429, {"error": {"message": "busy"}}
        chat = path.endswith("chat/completions")
        prompt = "".join(message["content"] for message in body["messages"]) if chat else body["prompt"]
        if len(prompt) > self.context:
            return 400, {"error": {"message": f"maximum context length is {self.context} tokens"}}
        if body.get("echo"):
            tokens = [*([self.bos] if self.bos else []), *pieces(prompt), " next"]
            logprobs = [None, *(-0.5 * len(token) for token in tokens[1:])]
            return 200, self._wrap(prompt, "length", None, chat, logprobs=listed(tokens, logprobs))
        said = text = self.say(prompt)
        ends = {string: text.find(string) for string in body.get("stop", ()) if string in text}
        named = min(ends, key=ends.get) if ends else None
        text = text[: ends[named]] if named else text
        finish = "length" if len(text) > body["max_tokens"] else "stop"
        text = text[: body["max_tokens"]]
        if not body.get("logprobs") or self.likely(prompt) is None:
            return 200, self._wrap(text, finish, named, chat)
        ending = [said[len(text) :][:5] if named else END] if finish == "stop" and self.lists_ending else []
        tokens, likely = [*pieces(text), *ending], math.log(self.likely(prompt))
        logprobs = [*[likely] * (len(tokens) - len(ending)), *[-9.0] * len(ending)]
        content = [
            {"token": token, "logprob": value, "top_logprobs": []}
            for token, value in zip(tokens, logprobs, strict=True)
        ]
        found = {"content": content} if chat else listed(tokens, logprobs)
        return 200, self._wrap(text, finish, named, chat, logprobs=found)

    def _wrap(self, text, finish, named, chat, **more):
        choice = {"index": 0, "finish_reason": finish, "logprobs": None, **more}
        if self.tells_stop:
            choice["stop_reason"] = named
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        usage = {"prompt_tokens": 7, "completion_tokens": len(text), "total_tokens": 7 + len(text)}
        kind = "chat.completion" if chat else "text_completion"
        return {"id": "1", "object": kind, "created": 0, "model": "m", "choices": [choice]} | (
            {"usage": usage} if self.counts else {}
        )


def pieces(text):
    return re.findall(r" ?\S+|\s", text)


def listed(tokens, logprobs):
    offsets = [sum(map(len, tokens[:place])) for place in range(len(tokens))]
    return {"tokens": tokens, "text_offset": offsets, "token_logprobs": logprobs, "top_logprobs": None}


@pytest.fixture
def server():
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def engine(server, **settings):
    return OpenAIEngine("m", ServerSection(url=server.url, **{"api": "completions", "retries": 2} | settings))


def request(text="Peru?", prefill="", **sampling):
    prompt = Prompt(user=text, system="Be brief.", prefill=prefill)
    return GenerationRequest(prompt=prompt, sampling=SamplingParams(**{"max_tokens": 90} | sampling), seed=5)


def test_texts_come_back_in_order_with_their_tokens(server):
    server.say = lambda prompt: prompt[-2:]
    asked = [request(f"number {number}") for number in range(10, 40)]
    found = engine(server).generate(asked, chat=False, max_tokens=100)
    assert [each.text for each in found] == [str(number) for number in range(10, 40)]
    assert (found[0].prompt_tokens, found[0].tokens, found[0].finish) == (7, 2, FinishReason.EOS)
    path, body = server.requests[0]
    assert path == "/v1/completions" and body["prompt"].startswith("Be brief.\n\nnumber")
    assert (body["max_tokens"], body["temperature"], body["seed"], body["model"]) == (90, 1.0, 5, "m")
    assert "stop" not in body


@pytest.mark.parametrize("tells", [True, False])
def test_a_stop_string_is_put_back(server, tells):
    server.tells_stop = tells
    server.say = lambda prompt: "I look. <begin_of_query> Peru <end_of_query> and"
    (found,) = engine(server).generate([request(stop=("</answer>", "<end_of_query>"))], chat=False, max_tokens=100)
    assert found.text == "I look. <begin_of_query> Peru <end_of_query>" and found.finish is FinishReason.STOP
    server.say = lambda prompt: "no tag at all"
    (found,) = engine(server).generate([request(stop=("</answer>", "<end_of_query>"))], chat=False, max_tokens=100)
    assert found.text == "no tag at all" and found.finish is FinishReason.EOS


def test_only_a_tag_that_stands_open_is_closed():
    stop = ("<end_of_query>", "</answer>")
    assert restore_stop("<begin_of_query> a <end_of_query> b", stop, None) is None
    assert restore_stop("<begin_of_query> a <end_of_query> <answer> b", stop, None) == "</answer>"
    assert restore_stop("plain", ("\n",), None) is None
    assert restore_stop("plain", ("\n",), "\n") == "\n"
    assert restore_stop("plain", ("\n",), "another") is None


def test_a_text_that_spends_its_budget_says_so(server):
    server.say = lambda prompt: "x" * 50
    (found,) = engine(server).generate([request(max_tokens=10)], chat=False, max_tokens=100)
    assert found.finish is FinishReason.LENGTH and found.tokens == 10


def test_chat_sends_messages_and_goes_on_with_a_response_only_where_the_server_can(server):
    one = engine(server, api="chat")
    assert one.generate([request()], chat=True, max_tokens=100)[0].text == "Lima"
    path, body = server.requests[-1]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Peru?"}]
    one.generate([request(prefill="<think>")], chat=True, max_tokens=100)
    assert server.requests[-1][1]["messages"][-1] == {"role": "user", "content": "Peru?\n\n<think>"}
    engine(server, api="chat", continues=True).generate([request(prefill="<think>")], chat=True, max_tokens=100)
    _, body = server.requests[-1]
    assert body["messages"][-1] == {"role": "assistant", "content": "<think>"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


@pytest.mark.parametrize(("api", "chat", "style"), [("chat", False, "'instruct'"), ("completions", True, "'base'")])
def test_the_api_and_the_prompt_style_must_suit_each_other(server, api, chat, style):
    with pytest.raises(ConfigError, match=f"api: {api}` needs the prompt style {style}"):
        engine(server, api=api).generate([request()], chat=chat, max_tokens=100)
    assert server.requests == []


def test_a_prompt_that_the_server_finds_too_long_has_no_completion(server):
    server.context = 20
    found = engine(server).generate([request("x" * 100), request("y")], chat=False, max_tokens=100)
    assert found[0] is None and found[1].text == "Lima"


def test_a_busy_server_is_asked_again_and_one_that_stays_away_is_unavailable(server):
    server.fail_first = 2
    assert engine(server).generate([request()], chat=False, max_tokens=100)[0].text == "Lima"
    assert len(server.requests) == 3
    server.fail_first = 100
    with pytest.raises(EngineUnavailable, match="failed for good, after 1 retries: RateLimit"):
        engine(server, retries=1).generate([request()], chat=False, max_tokens=100)
    lost = OpenAIEngine("m", ServerSection(url="http://127.0.0.1:9/v1", api="completions", retries=0))
    with pytest.raises(EngineUnavailable, match="Connection"):
        lost.generate([request()], chat=False, max_tokens=100)


def test_the_key_comes_from_the_environment_and_shows_nowhere(server, monkeypatch):
    server.key = "sk-secret"
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="MY_KEY is not set"):
        engine(server, api_key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", "sk-secret")
    one = engine(server, api_key_env="MY_KEY")
    assert one.generate([request()], chat=False, max_tokens=100)[0].text == "Lima"
    assert b"sk-secret" not in pickle.dumps(one)
    assert pickle.loads(pickle.dumps(one)).generate([request()], chat=False, max_tokens=100)[0].text == "Lima"
    monkeypatch.setenv("MY_KEY", "sk-wrong")
    with pytest.raises(ModelError, match="refuses") as error:
        engine(server, api_key_env="MY_KEY").generate([request()], chat=False, max_tokens=100)
    assert "sk-wrong" not in str(error.value)


def test_a_text_and_its_prompt_share_the_budget(server):
    server.say = lambda prompt: "x" * 50
    one = engine(server, price_in=1e6, price_out=1e7)
    (found,) = one.generate([request()], chat=False, max_tokens=20)  # the prompt has 7 tokens
    assert (found.text, found.finish) == ("x" * 13, FinishReason.LENGTH)
    assert (found.prompt_tokens, found.tokens) == (7, 13)
    assert [body["max_tokens"] for _, body in server.requests] == [20, 13]
    assert found.cost == (7 + 20 * 10) + (7 + 13 * 10)  # both writings are paid for
    (found,) = engine(server).generate([request(max_tokens=5)], chat=False, max_tokens=20)
    assert found.text == "xxxxx" and [body["max_tokens"] for _, body in server.requests[2:]] == [5]


def test_a_server_that_does_not_count_tokens_is_held_to_the_budget_by_the_text_alone(server):
    server.say = lambda prompt: "x" * 50
    server.counts = False
    (found,) = engine(server).generate([request()], chat=False, max_tokens=20)
    assert (found.text, found.prompt_tokens, len(server.requests)) == ("x" * 20, None, 1)


def test_a_prompt_that_leaves_no_room_in_the_budget_has_no_completion(server):
    assert engine(server).generate([request()], chat=False, max_tokens=7) == [None]
    assert engine(server, api="chat").generate([request()], chat=True, max_tokens=7) == [None]
    server.say = lambda prompt: ""
    assert engine(server).generate([request()], chat=False, max_tokens=7) == [None]
    server.say = lambda prompt: "x"
    assert engine(server).generate([request()], chat=False, max_tokens=8)[0].text == "x"


def test_texts_are_scored_where_the_server_can(server):
    assert engine(server).capabilities == {Capability.GENERATE}
    with pytest.raises(ModelError, match=r"server\.scores: true"):
        engine(server).score([ScoringRequest(context="a", text="b")])
    one = engine(server, scores=True)
    assert one.capabilities == {Capability.GENERATE, Capability.SCORE}
    (found,) = one.score([ScoringRequest(context="one two", text=" three four")])
    assert (found.tokens, found.logprobs, found.context_tokens) == ((" three", " four"), (-3.0, -2.5), 2)
    with pytest.raises(ModelError, match="empty text"):
        one.score([ScoringRequest(context="a", text="")])


def test_a_beginning_of_sequence_is_no_part_of_what_is_scored(server):
    server.bos = "<|begin_of_text|>"
    one = engine(server, scores=True, concurrency=1)
    alone, after = one.score(
        [
            ScoringRequest(context="", text="Oslo is the capital of Norway."),
            ScoringRequest(context="I say:", text=" Oslo is"),
        ]
    )
    assert alone.tokens == ("Oslo", " is", " the", " capital", " of", " Norway.")
    assert alone.logprobs == (-2.0, -1.5, -2.0, -4.0, -1.5, -4.0) and alone.context_tokens == 1
    assert (after.tokens, after.logprobs, after.context_tokens) == ((" Oslo", " is"), (-2.5, -1.5), 3)
    assert [body["prompt"] for _, body in server.requests] == ["Oslo is the capital of Norway.", "I say: Oslo is"]


def test_without_a_beginning_of_sequence_a_line_break_stands_before_a_text(server):
    one = engine(server, scores=True, concurrency=1)
    found = one.score([ScoringRequest(context="", text=text) for text in ("Oslo is", " Lima is")])
    assert [each.tokens for each in found] == [("Oslo", " is"), (" Lima", " is")]
    assert [each.logprobs for each in found] == [(-2.0, -1.5), (-2.5, -1.5)]
    assert [each.context_tokens for each in found] == [1, 1]
    assert [body["prompt"] for _, body in server.requests] == ["Oslo is", "\nOslo is", "\n Lima is"]


def test_a_server_that_tells_nothing_of_a_text_is_named(server):
    server.reply = lambda *arguments: (200, server._wrap("Oslo", "length", None, False))
    with pytest.raises(ModelError, match=r"does not tell.*`vllm serve`"):
        engine(server, scores=True).score([ScoringRequest(context="", text="Oslo")])


# "Oslo" and a character of three bytes; the last token is written after the prompt
@pytest.mark.parametrize(
    "tokens",
    [
        ["<s>", "Os", "lo", " \ufffd", "\ufffd", "\ufffd", " is", "x"],
        ["<s>", "Os", "lo", " \ufffd", "\ufffd", "\ufffd", " is"],
        ["<s>", " Os", "lo", " 日", "", "", " is", "\ufffd"],
        ["<s>", "Os", "lo", "日", "", "", "is", ""],
        ["", "Os", "lo", " \ufffd", "\ufffd", "\ufffd", " is", "\ufffd"],
    ],
)
def test_tokens_lie_where_they_spell_the_text(tokens):
    logprobs = [None, *(-float(place) for place in range(1, len(tokens)))]
    found = read_echo(tokens, logprobs, context="", text="Oslo 日 is")
    assert found.tokens == ("Os", "lo", " 日", "", "", " is")
    assert (found.logprobs, found.context_tokens) == ((-1, -2, -3, -4, -5, -6), 1)


def test_characters_spread_over_tokens_are_told_apart_by_what_lies_between():
    tokens = ["<s>", " \ufffd", "\ufffd", " \ufffd", "\ufffd", "本", "x"]
    found = read_echo(tokens, [None, *[-1.0] * 6], context="", text=" 日 語本")
    assert found.tokens == (" 日", "", " 語", "", "本")


def test_a_token_across_the_border_is_the_text_s():
    found = read_echo(["<s>", "a", "bc", "d", "x"], [None, -1.0, -2.0, -3.0, -4.0], context="ab", text="cd")
    assert (found.tokens, found.logprobs, found.context_tokens) == (("c", "d"), (-2.0, -3.0), 2)


@pytest.mark.parametrize(
    ("tokens", "logprobs", "says"),
    [
        (["<s>", "Os", "xx", "y"], [None, -1.0, -1.0, -1.0], "do not spell"),
        (["<s>", "Os", "lo", " is", "y"], [None, -1.0, -1.0, -1.0, -1.0], "do not spell"),
        (["<s>", "Os", "y"], [None, -1.0, -1.0], "do not spell"),
        (["<s>", "\ufffd", "x", "y"], [None, -1.0, -1.0, -1.0], "do not spell"),
        (["<s>", "Os", "lo", "y"], [None, -1.0, None, -1.0], "tells 1 log-probs for the 2 tokens"),
    ],
)
def test_an_echo_that_does_not_spell_its_text_is_no_score(tokens, logprobs, says):
    with pytest.raises(ModelError, match=says):
        read_echo(tokens, logprobs, context="", text="Oslo")


@pytest.mark.parametrize("tells", [True, False])
def test_the_policy_plays_the_environment_on_a_server(server, tells):
    server.tells_stop = tells

    def say(prompt):
        found = "<end_of_documents>" in prompt
        return "So. </think> <answer> x </answer>" if found else "Hm. <begin_of_query> a film <end_of_query>"

    server.say = say
    env = SearchQAVectorEnv(2, dataset="fictional-wiki", split="test", prompt="bare", top_k=2)
    setting = Setting(
        engine=engine(server), env=env, sampling=SamplingParams(max_tokens=99), max_tokens=2000, chat=False
    )
    for method, thought in (("r1-searcher", "Hm. "), ("r1-searcher-forced-query", "<begin_of_query>Hm. ")):
        transcripts = list(make_method(method, setting).run(env.dataset.questions[:3]))
        assert [transcript.answer for transcript in transcripts] == ["x"] * 3
        assert transcripts[0].segments[0].startswith(thought)
        assert [len(turn.calls) for turn in transcripts[0].turns] == [1, 1]
        assert transcripts[0].turns[1].calls[0].prompt_tokens == 7
    server.context = len(env.rules.dialect.prompt(env.dataset.questions[0].text, env.rules.style).text) + 40
    (cut,) = make_method("r1-searcher", setting).run(env.dataset.questions[:1])
    assert cut.stop_reason is StopReason.MAX_TOKENS and cut.answer is None and len(cut.queries) == 1


class Alike:
    """Finds the same documents for every query."""

    fingerprint = "alike"

    def __init__(self, hits):
        self.hits = tuple(hits)

    def search(self, queries, top_k):
        return [self.hits[:top_k] for _ in queries]


def replug_setting(server, chat, **settings):
    pages = [Document(id=str(n), title=f"Page {n}", text=f"Page {n} is old.") for n in range(3)]
    dataset = Dataset(
        name="pages", split="dev", questions=(Question(id="q", text="Which page?", answers=("x",)),), documents=pages
    )
    prompt = "instruct" if chat else "base"
    env = SearchQAVectorEnv(
        1, dataset=dataset, retriever=Alike([Hit(document=page, score=1.0) for page in pages]), prompt=prompt, top_k=3
    )
    return Setting(
        engine=engine(server, api="chat" if chat else "completions", **settings),
        env=env,
        sampling=SamplingParams(max_tokens=99),
        max_tokens=2000,
        chat=chat,
    )


@pytest.mark.parametrize("lists_ending", [True, False])
@pytest.mark.parametrize("chat", [True, False])
def test_answers_over_a_server_weigh_by_their_log_probs(server, chat, lists_ending):
    answers = {"Page 0": (" Oslo town\n", 0.6), "Page 1": (" Lima\n", 0.25), "Page 2": (" oslo town", 0.3)}

    def by_page(prompt, part):
        return next(answer[part] for page, answer in answers.items() if f"Passage 1, {page}" in prompt)

    server.say, server.likely = lambda prompt: by_page(prompt, 0), lambda prompt: by_page(prompt, 1)
    server.lists_ending = lists_ending
    setting = replug_setting(server, chat)
    (transcript,) = make_method({"name": "replug", "mode": "answer"}, setting).run(setting.env.dataset.questions)
    assert transcript.answer == "Oslo town"
    # a third of each probability: the endings, which are unlikely, are left out wherever they are listed
    assert transcript.turns[-1].calls[-1].text == "0.300 Oslo town\n0.083 Lima"
    assert {body["logprobs"] for _, body in server.requests} == {True if chat else 1}


def test_log_probs_are_asked_for_where_they_are_wanted_only(server):
    assert engine(server).generate([request()], chat=False, max_tokens=100)[0].logprobs == ()
    assert "logprobs" not in server.requests[-1][1]
    wanted = dataclasses.replace(request(), logprobs=True)
    (found,) = engine(server).generate([wanted], chat=False, max_tokens=100)
    assert found.logprobs == pytest.approx((math.log(0.5), -9.0)) and found.tells_ending
    server.lists_ending = False
    (found,) = engine(server).generate([wanted], chat=False, max_tokens=100)
    assert found.logprobs == pytest.approx((math.log(0.5),)) and not found.tells_ending


@pytest.mark.parametrize("chat", [True, False])
def test_a_server_that_sends_no_log_probs_back_is_named_with_what_to_do(server, chat):
    server.likely = lambda prompt: None
    setting = replug_setting(server, chat)
    with pytest.raises(ModelError, match=r"sends no log-probs.*`vllm serve`.*'transformers'.*another method"):
        list(make_method({"name": "replug", "mode": "answer"}, setting).run(setting.env.dataset.questions))


@pytest.mark.parametrize("tells", [True, False])
def test_the_baselines_of_a_trained_model_run_on_a_server(server, tells):
    server.tells_stop = tells
    server.say = lambda prompt: " x </answer>" if prompt.endswith("<answer>") else "Who knows?"
    env = SearchQAVectorEnv(2, dataset="fictional-wiki", split="test", prompt="bare", top_k=2)
    setting = Setting(
        engine=engine(server), env=env, sampling=SamplingParams(max_tokens=99), max_tokens=2000, chat=False
    )
    (question,) = env.dataset.questions[:1]
    for method, said in (("naive-generation", []), ("standard-rag", ["Who knows?</think>\n<answer> x </answer>"])):
        server.requests.clear()
        (transcript,) = make_method(method, setting).run([question])
        assert (transcript.answer, transcript.format.ok, len(transcript.queries)) == ("x", True, len(said))
        assert transcript.segments[1:] == tuple(said)
        assert [call.prompt_tokens for call in transcript.turns[-1].calls] == [7] * len(server.requests)
        assert server.requests[-1][1]["prompt"].endswith("</think>\n<answer>")
    server.context = 300  # characters: the question fits, and no document
    (cut,) = make_method("standard-rag", setting).run([question])
    assert cut.stop_reason is StopReason.MAX_TOKENS and cut.answer is None and len(cut.queries) == 1


def test_a_config_names_a_server(server):
    section = ModelSection(path="m", server=ServerSection(url=server.url))
    made = make_engine(section)
    assert isinstance(made, OpenAIEngine) and made.name == "m"
    assert model_identity(section) == f"m at {server.url}"


def test_a_model_on_a_server_judges_by_one_user_message(server, tmp_path, capsys):
    server.say = lambda prompt: str("Candidate answer: Lima" in prompt)
    rows = [
        {"question": "Capital?", "golden_answers": ["Lima"], "output": {"pred": pred}} for pred in ("Lima", "Cusco")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = ["score", str(tmp_path / "rows.jsonl"), "--format", "flashrag", "--json", "--judge", "strict"]
    assert main([*argv, "--model.server.url", server.url]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["acc_l"], found["judges"]) == (50.0, {f"strict at {server.url}": 2})
    for path, body in server.requests:
        assert path == "/v1/chat/completions" and body["model"] == "strict" and body["temperature"] == 0
        assert [message["role"] for message in body["messages"]] == ["user"]


def test_each_text_can_be_used_while_the_others_are_written(server):
    used = threading.Event()
    server.say = lambda prompt: str("slow" not in prompt or used.wait(20))
    texts = engine(server).generate_each([request("slow"), request("quick")], chat=False, max_tokens=100)
    index, completion = next(texts)
    assert (index, completion.text) == (1, "True")
    used.set()
    assert [(index, completion.text) for index, completion in texts] == [(0, "True")]


def test_a_failure_comes_after_all_that_was_answered(server):
    reply, left = server.reply, [7]

    def fails_at_the_eighth(*arguments):
        left[0] -= 1
        if left[0] >= 0:
            return reply(*arguments)
        time.sleep(0.2)
        return 500, {"error": {"message": "a fault"}}

    server.reply = fails_at_the_eighth
    found = []
    with pytest.raises(EngineUnavailable, match=r"after 0 retries: InternalServerError.* Start the server again\."):
        for index, _ in engine(server, retries=0, concurrency=2).generate_each(
            [request(f"number {number}") for number in range(20)], chat=False, max_tokens=100
        ):
            found.append(index)
    assert len(found) == 7
    assert len(server.requests) < 12, "what waits is not asked after a failure"


PRICES = {"price_in": 2.0, "price_out": 10.0}


def test_a_call_costs_what_its_tokens_cost(server):
    server.say = lambda prompt: "Lima"
    (found,) = engine(server, **PRICES).generate([request()], chat=False, max_tokens=100)
    assert found.cost == pytest.approx((7 * 2.0 + 4 * 10.0) / 1e6)
    (scored,) = engine(server, scores=True, **PRICES).score([ScoringRequest(context="a b ", text="c d")])
    read = scored.context_tokens + len(scored.tokens)
    assert scored.cost == pytest.approx((read * 2.0 + 10.0) / 1e6)
    (free,) = engine(server, price_in=0, price_out=0).generate([request()], chat=False, max_tokens=100)
    (untold,) = engine(server).generate([request()], chat=False, max_tokens=100)
    assert (free.cost, untold.cost) == (0.0, None)


def test_one_price_without_the_other_is_refused():
    with pytest.raises(ValidationError, match="price_in and price_out belong together"):
        ServerSection(url="http://127.0.0.1:9/v1", price_in=1.0)


@pytest.mark.parametrize("method", ["naive-generation", "r1-searcher"])
@pytest.mark.parametrize("told", [True, False])
def test_an_evaluation_counts_every_call_and_makes_up_neither_tokens_nor_money(server, method, told, tmp_path):
    server.say = lambda prompt: "So. </think><answer> Lima </answer>"
    wrap = server._wrap
    if not told:
        server._wrap = lambda *arguments, **more: {**wrap(*arguments, **more), "usage": None}
    argv = ["eval", "--method", method, "--model", "m", "--model.server.url", server.url, "--limit", "2"]
    argv += ["--model.server.price-in", "2", "--model.server.price-out", "10", "--env.prompt", "instruct"]
    assert main([*argv, "--evaluation.temperatures", "[0]", "--out", str(tmp_path / "out")]) == 0
    row = json.loads((tmp_path / "out" / "result.json").read_text())["results"][0]
    assert row["calls_per_question"] == 1 and row["search_cost_per_question"] == 0
    if told:
        cost = (row["read_tokens_per_question"] * 2 + row["written_tokens_per_question"] * 10) / 1e6
        assert row["read_tokens_per_question"] == 7 and row["cost_per_question"] == pytest.approx(cost)
    else:
        assert (row["read_tokens_per_question"], row["written_tokens_per_question"]) == (None, None)
        assert (row["model_cost_per_question"], row["cost_per_question"]) == (None, None)
    from search_agents.leaderboard.board import Board
    from search_agents.leaderboard.submit import candidates, evaluations_in

    (candidate,) = candidates(evaluations_in(tmp_path / "out")[0][0])
    board = Board(tmp_path / "board")
    board.add(candidate)
    (kept,) = board.check().rows.values()
    assert (kept.cost.money is not None, kept.cost.calls) == (told, 1)
    assert main(["leaderboard", "show", "--board", str(tmp_path / "board")]) == 0
    header, _, line = (tmp_path / "board" / "LEADERBOARD.md").read_text().split("| agent")[1].splitlines()[:3]
    cells = dict(zip(header.split("|"), line.split("|")[1:], strict=True))
    shown = {name.strip(): cell.strip() for name, cell in cells.items()}
    if not told:
        assert {shown[name] for name in ("tokens read/q", "written/q", "money/q", "model money/q")} == {"-"}
