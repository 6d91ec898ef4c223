from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_env.dialects import DIALECTS, make_inert
from search_env.dialects.inert import _INVISIBLE, has_tag

LISTED = """
<s> </s> <unk> <pad> <bos> <eos> <mask> <cls> <sep> <sop> <eop> <eod> <eoh> <EOD> <BOS_TOKEN>
<|im_start|> <|im_end|> <|endoftext|> <|begin_of_text|> <|end_of_text|> <|start_header_id|> <|eot_id|> <|python_tag|>
<|reserved_special_token_0|> <|channel|> <|message|> <|channel> <channel|> <|"|> <|vision_start|> <|image_pad|>
<start_of_turn> <end_of_turn> <unused12> <0x0A> <extra_id_0> <fim_prefix> <|fim_middle|> <file_sep> <tool_call>
</tool_call> <tool_response> <end_of_utterance> <image> <reserved_106> <｜User｜> <｜begin▁of▁sentence｜>
<｜tool▁calls▁begin｜> <|START_OF_TURN_TOKEN|> <<SYS>> <</SYS>> [INST] [/INST] [CLS] [SEP] [MASK] [PAD] [UNK] [BOS]
[TOOL_CALLS] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [IMG_END] [THINK] [gMASK] [sMASK] [unused0] [|endofturn|] [|user|]
]~b] ]~!b[ [e~[ ]<]minimax[>[ >>TITLE<< >>ABSTRACT<< </think> <THINK> ＜think＞ ﹤think﹥
"""
SPECIAL_TOKENS = LISTED.split()
TAGS = sorted({tag for dialect in DIALECTS.values() for tag in dialect.tags})
LIVE = TAGS + SPECIAL_TOKENS
PIECES = ["<", ">", "<|", "|>", "</", "[", "]", "[/", "think", "answer", "INST", "\n", "\u200b", "\ud800", "\x00", " "]

poison = st.lists(st.one_of(st.sampled_from(LIVE), st.sampled_from(PIECES), st.text(max_size=8)), max_size=12)


@pytest.mark.parametrize("token", LIVE)
def test_every_tag_and_special_token_is_defused_and_stays_readable(token):
    inert = make_inert(f"before {token} after{token}")
    assert token not in inert
    assert inert.startswith("before ")
    assert len(inert) == len(f"before {token} after{token}")
    assert "".join(filter(str.isalnum, token)) in "".join(filter(str.isalnum, inert))


@given(poison.map("".join))
def test_no_tag_survives_any_mixture_and_a_second_pass_changes_nothing(text):
    inert = make_inert(text)
    assert [token for token in LIVE if token in inert] == []
    assert not has_tag(inert)
    assert make_inert(inert) == inert


@given(poison.map("".join))
def test_an_inert_text_is_one_encodable_line_without_controls(text):
    inert = make_inert(text)
    inert.encode("utf-8")
    assert inert.splitlines() in ([], [inert])
    assert not [c for c in inert if unicodedata.category(c) in ("Cc", "Cs")]


@given(poison.map("".join))
def test_compatibility_normalisation_wakes_no_tag_of_a_dialect(text):
    woken = unicodedata.normalize("NFKC", make_inert(text))
    assert [tag for tag in TAGS if tag in woken] == []


def test_no_other_character_normalises_to_an_angle_bracket():
    folds = {c for c in map(chr, range(sys.maxunicode + 1)) if set(unicodedata.normalize("NFKC", c)) & set("<>")}
    assert folds == set("<>＜＞﹤﹥")


def test_ordinary_text_is_left_alone():
    text = "If 3 < 4 and b > a [1], then “naïve” – 東京 नमस्ते 👩‍👩‍👧 می‌خواهم cost $5 & more."
    assert make_inert(text) == text


def test_a_tag_hidden_by_invisible_characters_is_found():
    assert make_inert("<an\u200bsw\x00er>") == "‹answer›"
    assert make_inert("<\U000e0041answer\u202e>") == "‹answer›"


def test_line_breaks_of_every_kind_become_blanks():
    assert make_inert("a\nb\r\nc\u2028d\x85e\tf\x0bg") == "a b c d e f g"


def test_no_character_that_is_dropped_is_printable():
    assert [c for c in map(chr, range(sys.maxunicode + 1)) if c.isprintable() and _INVISIBLE.match(c)] == []
