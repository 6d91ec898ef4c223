import pytest
from gymnasium.error import ResetNeeded

from search_env import SearchQAEnv
from search_env.render import visible

EVIL = "\x1b[31mred\x1b]8;;http://evil\x07 [bold]loud[/bold] :boom: \x9b2J \u202etxt\r\x08"
SEARCH = f"{EVIL} <begin_of_query> Norway <end_of_query>"
ANSWER = "</think> <answer> Oslo </answer>"


def dangerous(text):
    return [
        char for char in text if (ord(char) < 32 and char not in "\n\t") or 127 <= ord(char) < 160 or char == "\u202e"
    ]


def play(env):
    env.reset(options={"question": "munch"})
    env.step(SEARCH)
    env.step(ANSWER)


def test_visible_keeps_ordinary_text_of_any_script():
    text = "Zoë, 北京, ‘quoted’ 👩‍🚀 می‌خواهم\n\ttab"
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[2J", r"\x1b[2J"), ("\u202eb", r"\u202eb"), ("\ud800", r"\ud800"), ("a\rb\0", r"a\rb\x00")],
)
def test_visible_shows_commands_to_the_terminal_as_escapes(text, shown):
    assert visible(text) == shown


def test_ansi_mode_returns_the_episode_as_text(settings):
    env = SearchQAEnv(**settings, render_mode="ansi")
    play(env)
    text = env.render()
    assert text.startswith("Question: What is the capital of the country where Edvard Munch was born?\n")
    assert "(1) " in text and "[bold]loud[/bold] :boom:" in text
    assert text.endswith("\n[answered] reward 1 (f1 1, format 0)\n")
    assert dangerous(text) == []


def test_ansi_mode_prints_nothing(settings, capsys):
    play(SearchQAEnv(**settings, render_mode="ansi"))
    assert capsys.readouterr().out == ""


def test_human_mode_prints_each_turn_once_as_it_goes_and_never_as_markup(settings, capsys):
    env = SearchQAEnv(**settings, render_mode="human")
    env.reset(options={"question": "munch"})
    assert capsys.readouterr().out == "Question: What is the capital of the country where Edvard Munch was born?\n"
    env.step(SEARCH)
    turn = capsys.readouterr().out
    assert "[bold]loud[/bold] :boom:" in turn and r"\x1b[31mred" in turn and "Norway: Norway is a country." in turn
    env.step(ANSWER)
    end = capsys.readouterr().out
    assert end.startswith(ANSWER) and "[answered] reward" in end
    assert dangerous(turn + end) == []


def test_human_mode_renders_the_whole_episode_on_demand_and_returns_none(settings, capsys):
    env = SearchQAEnv(**settings, render_mode="human")
    play(env)
    capsys.readouterr()
    assert env.render() is None
    out = capsys.readouterr().out
    assert out.startswith("Question: ") and "Norway: " in out and out.endswith(")\n")


def test_nothing_to_render_is_said(settings):
    with pytest.raises(ResetNeeded):
        SearchQAEnv(**settings, render_mode="ansi").render()
    env = SearchQAEnv(**settings)
    env.reset()
    with pytest.warns(UserWarning, match='render_mode="ansi"'):
        assert env.render() is None
