from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_agents.engines.base import FinishReason
from search_agents.engines.codec import TextCodec

from search_env.dialects import DIALECTS
from search_env.errors import ModelError
from search_env.types import Prompt

TAGS = sorted({tag for dialect in DIALECTS.values() for tag in dialect.tags})
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
texts = st.lists(st.one_of(st.sampled_from([*TAGS, *SPECIAL, "\n", "é", "漢"]), st.text(max_size=8)), max_size=8).map(
    "".join
)


@pytest.fixture(scope="module")
def codec(tokenizer: Any) -> TextCodec:
    return TextCodec(tokenizer, [tokenizer.eos_token_id])


def special_ids(codec: TextCodec) -> set[int]:
    return set(codec.tokenizer.all_special_ids) | set(codec.tokenizer.convert_tokens_to_ids(SPECIAL))


@given(text=texts)
def test_an_observation_holds_no_special_token_and_reads_as_it_was_written(codec: TextCodec, text: str) -> None:
    ids = codec.encode_observation(text)
    assert special_ids(codec).isdisjoint(ids)
    assert codec.decode(ids) == text


def test_tags_of_the_dialect_stay_single_tokens_in_an_observation(codec: TextCodec) -> None:
    (tag_id,) = codec.encode_observation("<begin_of_documents>")
    assert tag_id == codec.tokenizer.convert_tokens_to_ids("<begin_of_documents>")


def test_a_plain_prompt_is_system_user_and_prefill(codec: TextCodec) -> None:
    ids = codec.encode_prompt(Prompt(system="Be kind.", user="Who?", prefill="<think>"), chat=False)
    assert codec.decode(ids) == "Be kind.\n\nWho?<think>"


def test_a_chat_prompt_goes_through_the_template_and_ends_in_the_prefill(codec: TextCodec) -> None:
    ids = codec.encode_prompt(Prompt(system="Be kind.", user="Who?", prefill="<think>"), chat=True)
    assert codec.decode(ids) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n<think>"
    )
    assert ids[0] == codec.tokenizer.convert_tokens_to_ids("<|im_start|>")


def test_without_a_system_message_the_template_gets_none(codec: TextCodec) -> None:
    ids = codec.encode_prompt(Prompt(user="Who?"), chat=True)
    assert codec.decode(ids) == "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"


def test_chat_without_a_template_says_what_to_choose_instead(codec: TextCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec.tokenizer, "chat_template", None)
    with pytest.raises(ModelError, match=r"chat template.*'base'"):
        codec.encode_prompt(Prompt(user="Who?"), chat=True)


def test_a_tokenizer_that_starts_texts_with_a_token_does_so_in_prompts_only(tokenizer: Any) -> None:
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    bos = bpe.token_to_id("<|im_start|>")
    bpe.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", bos)])
    codec = TextCodec(PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<|im_start|>"), [])
    assert codec.encode_prompt(Prompt(user="Who?"), chat=False) == [bos, *codec.encode_observation("Who?")]
    assert bos not in codec.encode_observation("Who?")


def end_token_by_token(codec: TextCodec, ids: list[int], stop: tuple[str, ...]) -> tuple[int, str] | None:
    """What the engine does: the cheap test, then the exact one, after every token."""
    marks = codec.may_end(stop, len(codec.tokenizer))
    for count in range(1, len(ids) + 1):
        if marks[ids[count - 1]] and (end := codec.segment_end(ids[:count], stop)):
            return count, end.text
    return None


def end_by_brute_force(codec: TextCodec, ids: list[int], stop: tuple[str, ...]) -> tuple[int, str] | None:
    """Decode everything after every token."""
    for count in range(1, len(ids) + 1):
        text = codec.decode(ids[:count])
        ends = [text.index(string) + len(string) for string in stop if string in text]
        if ends:
            return count, text[: min(ends)]
    return None


@pytest.mark.parametrize("dialect", DIALECTS)
@given(data=st.data())
def test_stop_strings_are_found_exactly_where_they_are_complete(
    codec: TextCodec, dialect: str, data: st.DataObject
) -> None:
    stop = DIALECTS[dialect].stop
    pieces = [*stop, stop[0][:-1], stop[1][2:], "<", ">", ">.", " the", "é", "漢"]
    text = data.draw(st.lists(st.sampled_from(pieces), max_size=8).map("".join))
    by_letters = [token_id for character in text for token_id in codec.tokenizer.encode(character)]
    for ids in (codec.tokenizer.encode(text), by_letters):
        assert end_token_by_token(codec, ids, stop) == end_by_brute_force(codec, ids, stop)


@given(ids=st.lists(st.integers(3, 255), max_size=40), stop=st.sampled_from([("é",), ("a", "bc"), ("漢字",), (" é>",)]))
def test_any_bytes_and_any_stop_strings_agree_with_decoding_everything(
    codec: TextCodec, ids: list[int], stop: tuple[str, ...]
) -> None:
    ids += codec.tokenizer.encode(stop[0])
    assert end_token_by_token(codec, ids, stop) == end_by_brute_force(codec, ids, stop)


def test_a_token_that_reaches_beyond_the_tag_is_kept_but_not_its_text(codec: TextCodec) -> None:
    ids = codec.tokenizer.encode("Oslo</answer", add_special_tokens=False)
    overshooting = codec.tokenizer.encode(">.")
    assert len(overshooting) == 1  # one token for the end of the tag and the full stop
    end = codec.segment_end([*ids, *overshooting], ("</answer>",))
    assert end == (FinishReason.STOP, "Oslo</answer>")


def test_the_end_of_sequence_ends_a_segment_and_is_not_in_its_text(codec: TextCodec) -> None:
    ids = [*codec.tokenizer.encode("Oslo"), codec.tokenizer.eos_token_id]
    assert codec.segment_end(ids, ()) == (FinishReason.EOS, "Oslo")
    np.testing.assert_array_equal(np.flatnonzero(codec.may_end((), len(codec.tokenizer))), [ids[-1]])


def test_ids_that_the_tokenizer_does_not_know_never_end_a_segment(codec: TextCodec) -> None:
    marks = codec.may_end(("</answer>",), len(codec.tokenizer) + 10)
    assert not marks[-10:].any()
