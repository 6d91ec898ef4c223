"""``search-env fit`` trains the part of a method, on training questions, with the model in use."""

import json
import re
import shlex

import pytest
from search_agents.cli import fit, main
from search_agents.cli.evaluation_config import read_config
from search_agents.config.sections import Section
from search_agents.methods import fit_options, naive


class Options(Section):
    rounds: int = 1


@pytest.fixture
def trainable(monkeypatch):
    seen = {}

    def fit(setting, questions, folder, options):
        folder.mkdir(parents=True)
        seen.update(model=setting.engine.name, ids=[question.id for question in questions], rounds=options.rounds)
        return {"labels": len(questions)}

    monkeypatch.setattr(naive.NaiveGeneration, "fit", staticmethod(fit), raising=False)
    monkeypatch.setattr(naive.NaiveGeneration, "fit_options", lambda: Options, raising=False)
    return seen


def test_the_part_is_trained_on_training_questions_with_the_model(trainable, tmp_path, capsys):
    method = "{name: naive-generation, rounds: 3}"
    assert main(["fit", "--method", method, "--model", "tiny", "--limit", "5", "--out", str(tmp_path / "part")]) == 0
    out = capsys.readouterr().out
    assert json.loads(out[: out.index("}") + 1]) == {"labels": 5} and out.endswith(f"{tmp_path / 'part'}\n")
    assert trainable["rounds"] == 3 and all(id_.startswith("train-") for id_ in trainable["ids"])


def test_another_split_can_be_named(trainable, tmp_path):
    arguments = ["--method", "naive-generation", "--limit", "2", "--evaluation.split", "test"]
    assert main(["fit", *arguments, "--out", str(tmp_path / "part")]) == 0
    assert all(id_.startswith("test-") for id_ in trainable["ids"])


def test_a_method_without_a_part_names_those_that_have_one(trainable, tmp_path, capsys):
    assert main(["fit", "--method", "random", "--limit", "2", "--out", str(tmp_path / "part")]) == 2
    err = capsys.readouterr().err
    assert "'random' has no part of its own to train" in err and "naive-generation" in err


@pytest.mark.parametrize("method", ["recomp", "skr", "cr-planner", "rearter"])
def test_a_method_that_lacks_its_part_names_a_command_that_fit_takes_and_the_option_for_its_folder(
    method, tmp_path, capsys
):
    assert main(["eval", "--method", method, "--limit", "2", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    command = re.search(r"search-env fit (.+? --out FOLDER)", said)[1]
    arguments, settings = fit.parser("fit", "").parse_known_args(shlex.split(command))
    arguments.model = "tiny"
    assert method in str(read_config(arguments, settings, check_method=fit_options).method)
    assert f"{{name: {method}, part: FOLDER}}" in said
