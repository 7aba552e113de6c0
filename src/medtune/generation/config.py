"""Settings of the recipe's ``generation`` section."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from medtune.types import Sampling, Settings

__all__ = ["EchoSettings", "GenerationSettings", "GeneratorSettings", "HfSettings", "OpenAiSettings", "VllmSettings"]


class HfSettings(Settings):
    """The model in this process, with transformers."""

    in_process: ClassVar[bool] = True
    kind: Literal["hf"] = "hf"
    """Transformers on this machine."""
    fast: bool | Literal["auto"] = "auto"
    """Packed prompts, a static cache, CUDA graphs and continuous batching (docs/generation.md). ``auto`` = for the Qwen families on
    one device, which are served; all others run transformers' ``generate``."""
    memory_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Part of the memory that the weights leave free which the fast path may fill."""
    max_batch_rows: Annotated[int, Field(ge=1)] = 256
    """Answers that the fast path writes at a time, at most, where ``generation.batch_size`` is ``auto``. What is under way is
    lost when a run is killed."""


class OpenAiSettings(Settings):
    """A server that speaks the OpenAI chat-completions protocol (vLLM, SGLang, llama.cpp, a cloud service)."""

    in_process: ClassVar[bool] = False
    kind: Literal["openai"] = "openai"
    """A server with the OpenAI chat-completions protocol."""
    base_url: Annotated[str, Field(pattern=r"^https?://[^/]+")]
    """Up to and including the version, for example ``http://127.0.0.1:8000/v1``."""
    model: Annotated[str, Field(min_length=1)]
    """The name under which the server offers the model."""
    api_key_env: str | None = None
    """The environment variable that holds the key. The key itself never stands in a recipe."""
    max_concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests under way at the same time."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 120.0
    """Longest silence of the server within one request."""
    max_retries: Annotated[int, Field(ge=0, le=20)] = 5
    """Further attempts after status 408, 409, 425, 429 or 5xx, a timeout, a lost connection or an answer that cannot be read. A
    request that fails in all of them costs its own row; ten in a row end the evaluation, which goes on when it is called again."""
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    """What the server allows, retries included. None = no limit."""
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    """What the server allows of prompts and answers together. None = no limit."""

    @property
    def label(self) -> str:
        """How readers are told who answers."""
        return f"{self.model} ({self.base_url})"


class VllmSettings(Settings):
    """The model in this process, with vLLM, which is installed apart (docs/generators.md says which versions were tried)."""

    in_process: ClassVar[bool] = True
    kind: Literal["vllm"] = "vllm"
    """vLLM on this machine."""
    max_model_len: Annotated[int, Field(gt=0)] = 16384
    """Tokens of a prompt and its answer together, at most. vLLM reserves memory for one of this length."""
    max_num_seqs: Annotated[int, Field(ge=1)] = 128
    """Answers written at a time, at most."""
    gpu_memory_utilization: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Part of the GPU's memory that vLLM takes for weights, cache and work."""
    tensor_parallel_size: Annotated[int, Field(ge=1)] = 1
    """GPUs that share one copy of the model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    """Of the weights. Default: ``model.dtype``."""
    max_lora_rank: Annotated[int, Field(ge=1)] | None = None
    """Room for the adapter. Default: its own rank, rounded up to one that vLLM knows."""
    enforce_eager: bool = False
    """Without compilation and CUDA graphs: starts sooner, writes more slowly."""
    check_adapter: bool = True
    """Ask transformers and vLLM one fixed prompt with and without the adapter first, and refuse to go on when they do not agree.
    Costs one more loading of the model. Without it adapters on the vision tower, the projector or experts are refused."""


class EchoSettings(Settings):
    """No model: given answers in turn, or the question again. For tests and for trying a pipeline."""

    in_process: ClassVar[bool] = False
    kind: Literal["echo"] = "echo"
    """No model; for tests."""
    answers: tuple[str, ...] = ()
    """Given in turn, from the start again after the last. Empty: the question is the answer."""

    @property
    def label(self) -> str:
        """How readers are told who answers."""
        return "echo"


GeneratorSettings = Annotated[HfSettings | VllmSettings | OpenAiSettings | EchoSettings, Field(discriminator="kind")]


class GenerationSettings(Settings):
    """How answers are generated, for ``evaluate`` and ``chat``."""

    generator: GeneratorSettings = HfSettings()
    """Who writes: ``hf``, ``vllm``, ``openai`` or ``echo``."""
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Answers that ``hf`` writes at a time. ``auto`` = as many as fit into memory (8 where the fast path does not serve the model).
    Halved by itself when the accelerator's memory does not hold them."""
    num_processes: Annotated[int, Field(ge=1)] | None = None
    """Processes that share the questions of ``evaluate``, each with a copy of the model on a GPU of its own (``hf``; ``vllm``: on
    ``tensor_parallel_size`` GPUs). Default: one for each GPU, as far as there are 32 questions for each; without a GPU one."""
    sampling: Sampling = Sampling()
    """How text is drawn. Greedy unless stated: a score then means the same on every run."""
