"""The board that is kept here holds what its episodes bear out, and its page is the one that they make."""

from pathlib import Path

from search_agents.cli import main

BOARD = Path(__file__).parents[2] / "benchmarks" / "leaderboard"


def test_the_rows_of_the_kept_board_agree_with_their_episodes_and_its_page_with_them(tmp_path, capsys):
    assert main(["leaderboard", "check", "--board", str(BOARD)]) == 0
    assert "10 rows agree with their episodes" in capsys.readouterr().out
    pages = ["--md", str(tmp_path / "board.md"), "--html", str(tmp_path / "board.html")]
    assert main(["leaderboard", "show", "--board", str(BOARD), *pages]) == 0
    assert (tmp_path / "board.md").read_text() == (BOARD / "LEADERBOARD.md").read_text()
