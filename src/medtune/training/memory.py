"""Memory of a training run, from shapes. Imports nothing heavy.

Weights; adapter and gradients in float32; AdamW's two states in float32 (Loshchilov & Hutter 2019, arXiv:1711.05101) or in 8
bits; what each decoder layer keeps of a token for its backward pass, counted value by value; and the largest of what comes and
goes.
"""

from __future__ import annotations

from dataclasses import dataclass

from medtune.models.weights import Weight
from medtune.training.calibration import CALIBRATION, LOGITS_CHUNK, Calibration
from medtune.training.choice import EngineChoice
from medtune.training.passes import Setup, pass_tokens

__all__ = ["Memory", "cache_bytes", "kept_bytes", "memory_of", "state_bytes", "stored_bytes"]

_QUANTIZED_BYTES = 0.5 + 0.127 / 8
"""Of a 4-bit weight with quantized constants (Dettmers et al. 2023, arXiv:2305.14314, section 3: 0.127 bits a parameter)."""
_QUANTIZED_ONCE_BYTES = 0.5 + 0.5 / 8
"""Without: a float32 constant for 64 weights."""
_STATES_32_BIT = 2 * 4.0
_STATES_8_BIT = 2 * (1 + 4 / 256)
"""A byte of each state, and a float32 scale for 256 of them: the blocks of bitsandbytes (``optim/optimizer.py``, 0.50; those of
Dettmers et al. 2022, arXiv:2110.02861, section 2.1, have 2,048). Tensors of less than 4,096 values, which it leaves in float32, are
not told apart."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device at the peak, as torch's allocator counts them (on a CPU: of the process).

    Attributes:
        weights: Base weights, or this device's share, and what is gathered of them at once.
        adapter: Trained weights beside the base, float32.
        gradients: Of all that is trained.
        optimizer: AdamW's two states.
        activations: Kept for the backward pass.
        working: The largest of what comes and goes: logits, a layer that is computed again, the vision tower.
        pictures: Picture features of a pass, and what a trained tower keeps.
        process: On a CPU, the process itself.
        host: Main memory for a cache in memory and for what is offloaded, per device. Not in the peak.
        disk: Of a cache on disk. Not in the peak.
        loading: Weights that are divided later, whole: every device loads all of them first.
    """

    weights: float
    adapter: float
    gradients: float
    optimizer: float
    activations: float
    working: float
    pictures: float
    process: float
    host: float
    disk: float
    loading: float = 0.0

    @property
    def peak(self) -> float:
        training = (
            self.weights
            + self.adapter
            + self.gradients
            + self.optimizer
            + self.activations
            + self.working
            + self.pictures
            + self.process
        )
        return max(training, self.loading)


def kept_bytes(setup: Setup, *, compiled: bool, calibration: Calibration = CALIBRATION) -> float:
    """What a decoder layer keeps of one token for its backward pass, on average over the layers.

    Counted for Qwen3's layer with LoRA on its linear modules: the input of each linear module (for its A), queries, keys and
    values before and after their norm, the attention's output, and the three parts of the feed-forward product. Not compiled,
    norms keep a float32 copy of what they read instead, and the activation of the gate is kept too.
    """
    size = setup.size
    dense_share = 1 - size.sparse_layers / max(1, size.layers)
    hidden, query, keys = size.hidden, size.query_width, size.kv_width
    attention = 2 * hidden + keys + query + keys + query
    inside = 3.0 * size.intermediate * dense_share
    gated = size.intermediate * dense_share
    if size.sparse_layers:
        share, through = 1 - dense_share, size.top_k
        inside += share * through * (hidden + 2 * size.expert_intermediate)
        gated += share * through * size.expert_intermediate
        if setup.adapter.trains_experts:
            inside += share * through * (hidden + size.expert_intermediate)
    value = setup.value_bytes
    if compiled:
        return calibration.kept_compiled * value * (attention + inside + 2 * hidden + query + keys)
    return calibration.kept_eager * (value * (attention + inside + gated) + 4 * (2 * hidden + query + keys))


def state_bytes(optimizer: str) -> float:
    """Bytes of the optimizer's states for each trained parameter; of those that are no AdamW, as much as it has."""
    return _STATES_8_BIT if optimizer.endswith(("adamw_8bit", "adamw_bnb_8bit")) else _STATES_32_BIT


def memory_of(setup: Setup, choice: EngineChoice, calibration: Calibration = CALIBRATION) -> Memory:
    """Memory of one device at the peak of a pass with as many tokens as are allowed."""
    size, adapter, workload, division = setup.size, setup.adapter, setup.workload, setup.division
    value = setup.value_bytes
    tokens = pass_tokens(setup, choice, at_peak=True)
    every, layers = choice.checkpointing.every, size.layers
    again = layers // every if every else 0
    kept = kept_bytes(setup, compiled=choice.compile, calibration=calibration)
    inputs = again * size.hidden * value * tokens
    activations = (layers - again) * kept * tokens
    if not choice.checkpointing.offload:
        activations += inputs

    targets = min(tokens * workload.num_targets / max(1, workload.num_tokens), LOGITS_CHUNK)
    logits = targets * size.vocabulary * calibration.logit_bytes * (value / 2)
    recomputed = kept * tokens if again else 0.0
    if choice.checkpointing.offload:
        recomputed += 2 * size.hidden * value * tokens  # one on its way, one in use

    features, tower_kept, tower_working = _vision_memory(setup, choice, tokens)
    # The tower is done before the first decoder layer keeps anything.
    working = max(logits, recomputed, tower_working - activations, _spread_out(setup))
    trained = float(adapter.num_trainable)
    added = 0.0 if adapter.kind == "full" else trained
    states = state_bytes(choice.optimizer) * trained
    host = division.offloaded(weights=stored_bytes(setup), trained=trained, states=states)
    host += inputs if choice.checkpointing.offload else 0.0
    cache = cache_bytes(setup)
    loaded = stored_bytes(setup) if adapter.kind == "qlora" else size.num_parameters * setup.weight_bytes
    return Memory(
        weights=division.weights(stored_bytes(setup), layers=layers),
        adapter=4 * added / division.weight_share,
        gradients=division.gradients(4 * trained),
        optimizer=division.optimizer(states),
        activations=activations,
        working=working,
        pictures=features + tower_kept,
        process=0.0 if setup.device.is_gpu else calibration.process_bytes,
        host=host + (cache if choice.vision_cache == "memory" else 0.0),
        disk=cache if choice.vision_cache == "disk" else 0.0,
        loading=loaded if division.weight_share > 1 else 0.0,
    )


def cache_bytes(setup: Setup) -> float:
    """What a feature cache of all pictures takes; those of validation are taken to be as large as those of training."""
    workload = setup.workload
    mean = workload.num_patches / max(1, workload.num_pictures)
    return setup.size.cache_bytes(mean, setup.value_bytes) * workload.num_kept


def stored_bytes(setup: Setup) -> float:
    """Bytes of the base weights, of all devices together."""
    size, adapter = setup.size, setup.adapter
    if adapter.kind == "qlora":
        quantized = sum(weight.size for weight in setup.size.weights if _is_packed(weight))
        each = _QUANTIZED_BYTES if adapter.double_quantization else _QUANTIZED_ONCE_BYTES
        return quantized * each + (size.num_parameters - quantized) * setup.weight_bytes
    if adapter.kind == "full":
        # Trained weights are float32, and autocast keeps a 16-bit copy of each for the length of a pass.
        each = 4.0 + (2.0 if setup.precision == "bf16" else 0.0)
        return adapter.num_trainable * each + (size.num_parameters - adapter.num_trainable) * setup.weight_bytes
    return size.num_parameters * setup.weight_bytes


def _is_packed(weight: Weight) -> bool:
    """As :mod:`medtune.models.four_bit_load`: linear layers of the language model in whole blocks of 64, and fused experts."""
    return weight.part == "experts" or (weight.part == "language" and weight.is_linear and weight.shape[-1] % 64 == 0)


def _spread_out(setup: Setup) -> float:
    """The largest 4-bit weight in 16 bits: one at a time is spread out for its product."""
    if setup.adapter.kind != "qlora":
        return 0.0
    largest = max((weight.size for weight in setup.size.weights if _is_packed(weight)), default=0)
    return 2.0 * largest


def _vision_memory(setup: Setup, choice: EngineChoice, tokens: float) -> tuple[float, float, float]:
    """(features of a pass, what a trained tower keeps, what a frozen one has at once), in bytes."""
    size, workload = setup.size, setup.workload
    vision = size.vision
    if vision is None or not workload.num_patches:
        return 0.0, 0.0, 0.0
    value = setup.value_bytes
    patches = max(workload.most_patches, tokens * workload.num_patches / max(1, workload.num_tokens))
    features = size.cache_bytes(patches, value)
    # A block has its input, the normed input, queries, keys, values, their attention, and twice the feed-forward width.
    block = (7 * vision.hidden + 2 * vision.intermediate) * value
    pixels = vision.patch_values * value
    if not setup.adapter.trains_tower:
        cached = choice.vision_cache != "none"  # then pictures go through one after the other
        # Each merger keeps its normed input and both sides of its activation.
        merged = 3 * vision.levels * vision.hidden * value if setup.adapter.trains_vision else 0.0
        return features, patches * merged, (0.0 if cached else 1.0) * patches * (block + pixels)
    if choice.checkpointing.every:
        return features, patches * vision.depth * vision.hidden * value, patches * (block + pixels)
    return features, patches * (vision.depth * block + pixels), 0.0
