"""The sections of configs, each frozen, with defaults, and refusing unknown keys.

The docstring under a field is its help text on the command line.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from search_agents.config.recipes import read_retriever
from search_env.secrets import VariableName

__all__ = [
    "EnvSection",
    "EvaluationSection",
    "HeldOutSection",
    "JudgeSection",
    "KeepSection",
    "LearnerSection",
    "LoRASection",
    "ModelSection",
    "OptimizerSection",
    "PlainName",
    "QuestionSet",
    "RolloutSection",
    "RunSection",
    "SFTRunSection",
    "SFTSection",
    "SamplingSection",
    "Section",
    "ServerSection",
    "StageSection",
    "TrainRunSection",
    "UntilSection",
    "VLLMSection",
]


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, field docstrings as help."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
        validate_default=True,
        allow_inf_nan=False,
    )


PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A name that may be part of a path."""


def _spec(given: str | dict[str, Any]) -> str | dict[str, Any]:
    # A file is read here, so that what is stored with a run says what searched.
    return read_retriever(given) if isinstance(given, str) else given


class EnvSection(Section):
    """The environment: which questions, which documents, which protocol."""

    id: str = "SearchQA-FictionalWiki-v0"
    """Registered id of the environment; `search-env list environments` names them."""
    data: str | None = None
    """Folder with train.jsonl, dev.jsonl and corpus.jsonl (not needed by a retriever that has documents of its own),
    for a set that is not embedded."""
    retriever: Annotated[str | dict[str, Any], AfterValidator(_spec)] = "bm25"
    """What runs the queries: a name, {name: NAME, …} with its settings, or the path of a YAML file that holds them;
    `search-env list retrievers` names them."""
    dialect: str = "r1-searcher"
    """The protocol of tags."""
    prompt: str = "bare"
    """Wording of the prompt: base, instruct, bare, the path of a prompt file, or the name of a shipped one."""
    top_k: PositiveInt = 3
    """Documents that one search returns."""
    max_searches: NonNegativeInt = 8
    """Searches that one episode may run."""
    max_turns: PositiveInt = 10
    """Segments that one episode may have."""
    max_chars: PositiveInt = 40_000
    """Characters that one episode may have, the documents' included."""


class ServerSection(Section):
    """A server that speaks OpenAI's API."""

    url: str
    """Base URL of its API, for example http://127.0.0.1:8000/v1."""
    api: Literal["chat", "completions"] = "chat"
    """`chat` takes system and user words, `completions` plain text."""
    api_key_env: VariableName | None = None
    """Name of the environment variable that holds the key; null sends none."""
    continues: bool = False
    """Whether the chat API can go on with a response that was begun for it, as vLLM and SGLang can; elsewhere its
    beginning ends the user's words."""
    scores: bool = False
    """Whether the completions API tells the log-probabilities of a given text (`echo`), as vLLM's does."""
    concurrency: PositiveInt = 16
    """Requests on their way at the same time."""
    timeout: PositiveFloat = 120.0
    """Seconds that one request may take."""
    retries: NonNegativeInt = 5
    """Times that a request is repeated after it failed, later each time."""
    price_in: NonNegativeFloat | None = None
    """USD for a million tokens that the model reads; 0 if nobody charges for them, null if that is not known."""
    price_out: NonNegativeFloat | None = None
    """USD for a million tokens that it writes."""

    @model_validator(mode="after")
    def _has_both_prices(self) -> ServerSection:
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("price_in and price_out belong together: give both, or neither")
        return self

    @field_validator("url")
    @classmethod
    def _holds_no_secret(cls, url: str) -> str:
        # It is stored with every run and stands in messages.
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an address like http://127.0.0.1:8000/v1")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("must hold no user, password or query; name a variable with a key in api_key_env")
        return url


class VLLMSection(Section):
    """The engine of vLLM, if it runs the model."""

    max_context: PositiveInt | None = None
    """Most tokens of one text with its prompt; null takes as many as the model can."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Number format of its weights; null takes that of the model. A learner in float32 that computes in bfloat16
    (learner.autocast) is to be sampled in bfloat16, too, which takes half the memory."""
    kv_cache_gb: PositiveFloat = 2.0
    """Memory of its key-value cache in GiB, on each of its GPUs; what does not fit waits."""
    tensor_parallel_size: PositiveInt = 1
    """GPUs of one machine that one engine is spread over; must divide the model's attention heads."""


class ModelSection(Section):
    """The language model."""

    path: str = "tiny"
    """`tiny` (shipped with the package), a model folder, a run folder, or a hub id; its name there if on a server."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights, and of the computation when sampling. What is trained is in float32:
    learner.autocast computes in bfloat16, and learner.lora trains float32 adapters on weights in either."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a model that is loaded here answers; auto takes a GPU if there is one. (In training, learner and rollout
    say how many GPUs their processes have.)"""
    server: ServerSection | None = None
    """The server that runs the model, for evaluation; null loads it here."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What runs a model that is loaded here, in evaluation and for the episodes of RL; `vllm` needs the package."""
    vllm: VLLMSection = VLLMSection()
    """Settings of the engine `vllm`."""
    continuous: bool | None = None
    """Whether the engine `transformers` plays each episode in its own time, so that none waits for the searches of
    others; false plays them in turns. null is true on a GPU. On a CPU it is worth it if a search takes 50 ms or more;
    log-probabilities then vary in their last digits with the time that searches take."""

    @model_validator(mode="after")
    def _runs_in_one_place(self) -> ModelSection:
        if self.server is not None and self.engine != "transformers":
            raise ValueError("a model runs on a server or here: remove model.server or model.engine")
        return self


class RolloutSection(Section):
    """How episodes are sampled."""

    temperature: PositiveFloat = 1.0
    """Sampling temperature in training; 1 samples the policy itself."""
    max_segment_tokens: PositiveInt = 128
    """Tokens that the model may write in one segment."""
    max_episode_tokens: PositiveInt = 768
    """Tokens of a whole episode: prompt, segments and documents."""
    num_envs: PositiveInt = 128
    """Episodes that a process samples at the same time."""
    num_env_runners: NonNegativeInt = 0
    """Processes that sample; 0 samples in the learner's process with the learner's own weights."""
    num_gpus_per_env_runner: NonNegativeFloat = 0.0
    """GPUs of each of these processes; a share lets several of them have one GPU together. A vLLM engine on several
    GPUs (model.vllm.tensor_parallel_size) has as many."""
    max_staleness: Annotated[int, Field(ge=0, le=1)] = 0
    """1 samples the next batch while the learner trains, with the weights from before that step; needs
    num_env_runners."""

    @model_validator(mode="after")
    def _segment_fits_episode(self) -> RolloutSection:
        if self.max_segment_tokens >= self.max_episode_tokens:
            raise ValueError(
                f"max_segment_tokens ({self.max_segment_tokens}) must be less than "
                f"max_episode_tokens ({self.max_episode_tokens})"
            )
        return self

    @model_validator(mode="after")
    def _somebody_samples_meanwhile(self) -> RolloutSection:
        if self.max_staleness and not self.num_env_runners:
            raise ValueError(
                "max_staleness 1 needs processes that sample while the learner trains: write --rollout.num-env-runners "
                "1, or more, or --rollout.max-staleness 0"
            )
        return self


class LoRASection(Section):
    """Low-rank adapters in every linear layer but the output."""

    rank: PositiveInt = 32
    """Rank of an adapter."""
    alpha: PositiveFloat = 32.0
    """What an adapter adds is scaled by alpha / rank."""


class OptimizerSection(Section):
    """The optimizer step, whatever the loss."""

    lr: PositiveFloat = 1e-5
    """Learning rate of AdamW."""
    minibatch_size: PositiveInt = 32
    """Most episodes of one optimizer step; a batch that it does not divide is cut into nearly equal parts."""
    micro_batch_tokens: PositiveInt = 4096
    """Most tokens of one forward pass, padding included if there is any; bounds the memory."""
    autocast: bool = False
    """Compute in bfloat16, episodes as well, while the weights keep their number format."""
    packing: bool = True
    """Compute no padding, and on a CPU what all rows begin with once. Models of few millions are faster without."""
    gradient_checkpointing: bool = False
    """Compute every layer again in the backward pass: less memory, a third more time."""
    lora: LoRASection | None = None
    """Train low-rank adapters, which need far less memory for the optimizer; null trains all weights."""
    grad_clip: PositiveFloat = 1.0
    """Largest global norm of the gradient."""
    num_learners: NonNegativeInt = 0
    """Learner processes; 0 learns in the driver's process."""
    num_gpus_per_learner: Annotated[int, Field(ge=0, le=1)] | None = None
    """GPUs of each learner; null gives it one if this machine has any."""
    sharded: bool = False
    """Learners share weights, gradients and moments (FSDP2), for models too large for each to hold them all."""

    @model_validator(mode="after")
    def _shards_need_learners(self) -> OptimizerSection:
        if self.sharded and (self.num_learners < 2 or self.lora is not None):
            raise ValueError("sharded needs num_learners >= 2 and no lora: it spreads all weights over the learners")
        return self


class LearnerSection(OptimizerSection):
    """The algorithm: the batch, the step and the loss; `configs/algorithms` holds the usual ones."""

    advantage: Literal["reinforce++", "reinforce++-baseline", "grpo", "dr-grpo", "rloo"] = "reinforce++-baseline"
    """Advantage estimator; all but reinforce++ compare an episode with those of its group."""
    objective: Literal["ppo", "gspo", "cispo"] = "ppo"
    """Clipped ratio of each token, of the whole episode, or REINFORCE weighted by the truncated ratio."""
    aggregation: Literal["token", "sequence", "constant"] = "token"
    """What the loss averages: all tokens, episodes of averaged tokens, or the sum of tokens over a constant."""
    prompts_per_batch: PositiveInt = 32
    """Questions in one training step."""
    group_size: PositiveInt = 4
    """Episodes for each question."""
    kl_coef: NonNegativeFloat = 0.0
    """Weight of the token-level KL to the untrained model; 0 keeps no reference model."""
    kl_in: Literal["reward", "loss"] = "reward"
    """Where that KL counts."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """Estimator of that KL; in the loss, k2 or k3."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Clip range of the importance ratio, above 1 unless clip_high says otherwise."""
    clip_high: PositiveFloat | None = None
    """Clip range above 1; null takes that of clip."""
    mismatch: Literal["ignored", "truncated", "masked"] = "ignored"
    """Correction of what engine and learner compute differently, by importance weights; costs a forward pass."""
    mismatch_cap: Annotated[float, Field(gt=1)] = 2.0
    """Largest weight of that correction."""
    dynamic_sampling: NonNegativeInt = 0
    """Times that other questions are asked for groups whose episodes all earned the same; 0 trains on those too."""
    mask_overlong: bool = False
    """Leave truncated episodes out of the loss."""
    mask_documents: bool = True
    """Leave what the environment wrote out of the loss; false only to measure what that is good for."""

    @model_validator(mode="after")
    def _groups_allow_a_baseline(self) -> LearnerSection:
        if self.advantage != "reinforce++" and self.group_size < 2:
            raise ValueError(f"advantage {self.advantage} needs group_size >= 2: a group of one has no baseline")
        if self.dynamic_sampling and self.group_size < 2:
            raise ValueError("dynamic_sampling needs group_size >= 2: a group of one never has a signal")
        if self.kl_coef > 0 and self.kl_in == "loss" and self.kl_estimator == "k1":
            raise ValueError("kl_in loss needs kl_estimator k2 or k3: the gradient of k1 is 0 on average")
        if self.minibatch_size > self.prompts_per_batch * self.group_size:
            raise ValueError(
                f"minibatch_size ({self.minibatch_size}) is more than the batch holds: "
                f"prompts_per_batch x group_size = {self.prompts_per_batch * self.group_size}"
            )
        return self


class UntilSection(Section):
    """When a stage is over before its steps are spent."""

    search_rate: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Share of episodes that search, at least."""
    format_rate: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Share of episodes in the right format, at least."""
    patience: PositiveInt = 2
    """Steps in a row that must reach both."""


class StageSection(Section):
    """One stage: its reward and its length."""

    name: Annotated[str, Field(min_length=1)]
    """Name of the stage in metrics and plots."""
    reward: str | dict[str, float]
    """Name of a reward, or a weight for each reward part by name."""
    split: PlainName | None = None
    """Split of the data whose questions it asks; null asks those of train."""
    max_steps: PositiveInt
    """Steps after which the stage is over in any case."""
    until: UntilSection | None = None
    """Ends the stage early; null runs all steps."""


class EvaluationSection(Section):
    """The evaluation on held-out questions."""

    split: PlainName = "test"
    """Split of the dataset that holds the questions."""
    questions: PositiveInt = 200
    """Questions to ask, spread evenly over the split when it has more."""
    temperatures: Annotated[tuple[float, ...], Field(min_length=1)] = (1.0,)
    """Sampling temperatures, 0 for greedy; the first is the one of the headline figures."""
    batch_size: PositiveInt = 128
    """Episodes that run at the same time. Another number gives the same tokens in float32, and perhaps not in
    bfloat16."""

    @model_validator(mode="after")
    def _temperatures_differ(self) -> EvaluationSection:
        if min(self.temperatures) < 0 or len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"temperatures must be different and not negative, not {list(self.temperatures)}")
        return self


class HeldOutSection(EvaluationSection):
    """The evaluation that is part of a training run."""

    baselines: bool = True
    """Also measure forced first query, closed book and single-retrieval RAG, before and after, the random agent and
    the oracle."""


class RunSection(Section):
    """The run itself."""

    name: PlainName = "run"
    """Without --out the folder is outputs/<name>-<time>."""
    seed: NonNegativeInt = 0
    """Seed of everything that is drawn: order of questions, tokens, floors. With it tokens are the same at any
    concurrency in float32; in bfloat16 rounding may change them."""
    threads: PositiveInt = 1
    """Threads of torch; one is the fastest for models of a few million parameters."""


class SFTRunSection(RunSection):
    """The run itself and its checkpoints."""

    checkpoint_every: PositiveInt = 5
    """Steps between checkpoints; the end of a stage is always one."""
    keep_checkpoints: PositiveInt = 2
    """Newest checkpoints to keep."""


class TrainRunSection(SFTRunSection):
    """The run itself and what it keeps."""

    sampled_groups: NonNegativeInt = 4
    """Groups in each step whose best and worst episodes are written to episodes/."""


class QuestionSet(Section):
    """One set of questions of a comparison."""

    id: str = "SearchQA-FictionalWiki-v0"
    """Registered id of the environment."""
    data: str | None = None
    """Its data; see `EnvSection.data`."""
    split: PlainName | None = None
    """Split that holds the questions; null takes that of the evaluation."""


class SamplingSection(Section):
    """Which questions are asked, and how often."""

    split: PlainName = "train"
    """Split of the dataset that holds the questions."""
    questions: PositiveInt = 1000
    """Questions to ask, spread evenly over the split when it has more."""
    teacher: Literal["model", "annotation"] = "model"
    """Who plays: the model, or the set's own annotation (look-ups or gold titles), for a model to begin with; model and
    lengths then only say who shall imitate it."""
    samples: PositiveInt = 5
    """Episodes for each question; the annotation has one."""


class KeepSection(Section):
    """Which episodes are right, and which of those are kept."""

    metric: Literal["f1", "em", "cem"] = "em"
    """Metric of the answer that decides."""
    at_least: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What the metric must reach."""
    format: bool = True
    """Whether the format must be right, too."""
    min_searches: NonNegativeInt = 0
    """Searches that an episode must have, at least."""
    per_question: PositiveInt | None = None
    """Most episodes to keep for one question; null keeps all that are right."""
    prefer: Literal["shortest", "random"] = "random"
    """Which of them, when a question has more: those with the fewest tokens, or a draw by the seed."""


class SFTSection(Section):
    """What is imitated."""

    trajectories: str | None = None
    """Folder that `search-env sample` has written."""
    epochs: PositiveInt = 3
    """Passes over the trajectories."""


class JudgeSection(Section):
    """How a judge is asked."""

    chat: bool = True
    """Whether the message goes through the model's chat template; false for a model that has none."""
    max_tokens: PositiveInt = 64
    """Tokens that a reply may have; a judge that reasons first needs more."""
    batch_size: PositiveInt = 64
    """Answers that are judged at the same time."""
