"""Names out of configs, data and archives stay inside the folder that they were meant for."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from search_agents.cli import main
from search_agents.config import TrainConfig, load_config
from search_agents.config.schema import ComparisonConfig
from search_agents.learning.run_folder import RunFolder, write_json

from search_env.datasets import PUBLISHED, load
from search_env.datasets.files import read_lines
from search_env.errors import ConfigError, DatasetError

OUTSIDE = ["../x", "../../x", "/tmp/x", "a/b", "..", ".", ".hidden", "", "a\0b", "a\n", "a b", "~"]


def make(config: dict[str, Any], tmp_path: Path, schema: Any = TrainConfig) -> Any:
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(config))
    return load_config(schema, [file], ())


@pytest.mark.parametrize("name", OUTSIDE)
def test_the_name_of_a_run_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    """Risk 19: path traversal by the name of a run."""
    with pytest.raises(ConfigError, match=r"run\.name"):
        make({"run": {"name": name}}, tmp_path)
    assert make({"run": {"name": "a-1.b_c"}}, tmp_path).run.name == "a-1.b_c"


@pytest.mark.parametrize("name", OUTSIDE)
def test_the_name_of_a_split_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    """Risk 19: path traversal by a split, which names a file of questions and a folder of results."""
    for config, schema in (
        ({"evaluation": {"split": name}}, TrainConfig),
        ({"stages": [{"name": "one", "reward": "f1", "max_steps": 1, "split": name}]}, TrainConfig),
        ({"methods": ["random"], "sets": [{"id": "SearchQA-FictionalWiki-v0", "split": name}]}, ComparisonConfig),
    ):
        with pytest.raises(ConfigError, match="split"):
            make(config, tmp_path, schema)


def test_a_split_is_a_file_of_its_own_folder(tmp_path: Path) -> None:
    """Risk 19: path traversal by a split that is given to the environment."""
    row = json.dumps({"id": "q", "question": "Who?", "answers": ["I"]}) + "\n"
    (tmp_path / "secret.jsonl").write_text(row)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dev.jsonl").write_text(row)
    assert load("custom", split="dev", data=tmp_path / "data").questions
    for split in ("../secret", str(tmp_path / "secret"), "sub/../../secret"):
        with pytest.raises(ConfigError, match="unknown split"):
            load("custom", split=split, data=tmp_path / "data")


def test_the_name_of_a_new_package_leads_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Risk 19: path traversal by the name of a package."""
    monkeypatch.chdir(tmp_path)
    for name in ("../x", "/tmp/x", "a/b", "..", "a.b"):
        assert main(["new", "agent", name]) == 2
    assert list(tmp_path.iterdir()) == []


def test_what_an_archive_names_is_read_and_never_unpacked(tmp_path: Path) -> None:
    """Risk 19: an archive whose members lie elsewhere, or are links to what lies elsewhere."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("secret\n")
    archive = inside / "dump.tar"
    with tarfile.open(archive, "w") as file:
        for name in ("../../evil", "/evil", "plain"):
            member = tarfile.TarInfo(name)
            member.size = 4
            file.addfile(member, io.BytesIO(b"row\n"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("link")
            link.type, link.linkname = kind, str(tmp_path / "secret")
            file.addfile(link)
        device = tarfile.TarInfo("device")
        device.type = tarfile.FIFOTYPE
        file.addfile(device)
    before = sorted(tmp_path.rglob("*"))
    assert [line.data for line in read_lines(archive)] == [b"row"] * 3
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """Risk 19: a link that stands where a run will write."""
    victim = tmp_path / "victim.json"
    victim.write_text("untouched")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").symlink_to(victim)
    (tmp_path / "run" / ".summary.json.tmp").symlink_to(victim)
    write_json(tmp_path / "run" / "summary.json", {"f1": 1.0})
    assert victim.read_text() == "untouched"
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == {"f1": 1.0}


def test_a_checkpoint_that_is_a_link_is_not_deleted_through_it(tmp_path: Path) -> None:
    """Risk 19: a link that stands where a run deletes."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "COMPLETE").touch()
    (victim / "precious").touch()
    run = RunFolder(tmp_path / "run")
    (run.path / "checkpoints").mkdir(parents=True)
    (run.path / "checkpoints" / "step_000001").symlink_to(victim)
    run.checkpoint(2).mkdir()
    (run.checkpoint(2) / "COMPLETE").touch()
    run.keep_newest_checkpoints(1)
    assert sorted(path.name for path in victim.iterdir()) == ["COMPLETE", "precious"]
    assert run.checkpoint(2).is_dir()


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.name)
def test_a_download_is_of_one_commit(published: Any) -> None:
    """Risk 19: what is fetched is named by the hash of its content, or its revision must be named."""
    if published.hub is None:
        pytest.skip("it is not on the hub")
    if published.hub.revision is None:
        with pytest.raises((ConfigError, DatasetError), match="revision"):
            list(published._hub_rows(next(iter(published.hub.splits)), None))
    else:
        assert re.fullmatch("[0-9a-f]{40}", published.hub.revision)
