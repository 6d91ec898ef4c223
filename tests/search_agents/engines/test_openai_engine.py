"""The engine of servers, against a stand-in on the loopback that names the stop string, or does not."""

from __future__ import annotations

import json
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError
from search_agents.cli import main
from search_agents.config.sections import ModelSection, ServerSection
from search_agents.engines.base import Capability, FinishReason, GenerationRequest, SamplingParams, ScoringRequest
from search_agents.engines.build import make_engine, model_identity
from search_agents.engines.openai import OpenAIEngine, restore_stop
from search_agents.methods import Setting, make_method

from search_env import SearchQAVectorEnv
from search_env.errors import ConfigError, EngineUnavailable, ModelError
from search_env.types import Prompt, StopReason

pytest.importorskip("openai")


class Server:
    """Says what `say` returns for a prompt, cut at the first stop string."""

    def __init__(self):
        self.say = lambda prompt: "Lima"
        self.tells_stop, self.context, self.fail_first, self.key = True, 10_000, 0, None
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
            tokens = [piece for word in prompt.split(" ") for piece in (" ", word)][1:]
            offsets = [sum(map(len, tokens[:place])) for place in range(len(tokens))]
            logprobs = [None, *(-0.5 * len(token) for token in tokens[1:])]
            found = {"tokens": tokens, "text_offset": offsets, "token_logprobs": logprobs, "top_logprobs": None}
            return 200, self._wrap(prompt, "length", None, chat, logprobs=found)
        text = self.say(prompt)
        ends = {string: text.find(string) for string in body.get("stop", ()) if string in text}
        named = min(ends, key=ends.get) if ends else None
        text = text[: ends[named]] if named else text
        finish = "length" if len(text) > body["max_tokens"] else "stop"
        return 200, self._wrap(text[: body["max_tokens"]], finish, named, chat)

    def _wrap(self, text, finish, named, chat, **more):
        choice = {"index": 0, "finish_reason": finish, "logprobs": None, **more}
        if self.tells_stop:
            choice["stop_reason"] = named
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        usage = {"prompt_tokens": 7, "completion_tokens": len(text), "total_tokens": 7 + len(text)}
        kind = "chat.completion" if chat else "text_completion"
        return {"id": "1", "object": kind, "created": 0, "model": "m", "choices": [choice], "usage": usage}


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


def test_texts_are_scored_where_the_server_can(server):
    assert engine(server).capabilities == {Capability.GENERATE}
    with pytest.raises(ModelError, match=r"server\.scores: true"):
        engine(server).score([ScoringRequest(context="a", text="b")])
    one = engine(server, scores=True)
    assert one.capabilities == {Capability.GENERATE, Capability.SCORE}
    (found,) = one.score([ScoringRequest(context="one two", text=" three four")])
    assert found.tokens == (" ", "three", " ", "four") and found.context_tokens == 3
    assert found.logprobs == (-0.5, -2.5, -0.5, -2.0)


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
