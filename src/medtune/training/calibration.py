"""The measured numbers of the cost model, in one table, each with where it comes from.

``python benchmarks/plan_accuracy.py --fit RUN ...`` prints new values of those that runs can tell. Rows such as "v6" are those
of the ladder of prototypes in docs/benchmarks.md, "One GPU, step by step".
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CALIBRATION", "LOGITS_CHUNK", "SOURCES", "Calibration"]

LOGITS_CHUNK = 512
"""Tokens whose logits are held at once: ``medtune.training.loss.CHUNK_TOKENS``, without importing torch."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Factors between physics and a real card; :data:`SOURCES` says of each where it is from.

    Attributes:
        kept_compiled: Bytes kept for the backward pass, measured over counted, decoder layers compiled.
        kept_eager: The same, not compiled.
        logit_bytes: Of one logit of the chunk at the peak.
        context_bytes: GPU memory outside of torch's allocator: CUDA context, kernels, libraries.
        margin: Share of the memory that is left free, for fragmentation.
        process_bytes: Main memory of the training process itself, on a CPU.
        matmul_share: Best matrix product over the data sheet's figure.
        bandwidth_share: Best copy over the data sheet's figure.
        model_matmul_share: Products inside a model over the best product, at many tokens.
        half_tokens: Tokens x width / 4096 at which a product reaches half its speed.
        grouped_share: Grouped products of experts over dense ones.
        attention_share: Attention's products over the best product.
        vision_share: A vision tower's products over the best product, all its other work included.
        vision_share_compiled: The same, its blocks compiled.
        traffic_compiled: Bytes moved by everything that is no product, over the bytes kept.
        traffic_eager: The same, not compiled.
        host_layer_eager: Seconds of Python and kernel launches for one layer, forward and backward.
        host_layer_compiled: The same, compiled.
        gathering_block: Seconds that ZeRO-3 adds to a pass for one block of the model: the hooks of all modules in it.
        step_seconds: Of each optimizer step: clipping, optimizer, logging.
        micro_seconds: Of each pass that is not overlapped with the GPU's work.
        host_layer_cpu: As ``host_layer_eager``, on a CPU.
        compile_seconds: Until the decoder layers are compiled.
        picture_seconds: Reading and cutting up one picture, on one core.
        load_bytes_per_second: Reading a model from disk.
        start_seconds: Imports and tokenizer.
        disk_bytes_per_second: Reading features from disk.
        host_bytes_per_second: Between main memory and GPU.
    """

    kept_compiled: float = 1.01
    kept_eager: float = 1.06
    logit_bytes: float = 10.0
    context_bytes: float = 0.6 * 1024**3
    margin: float = 0.08
    process_bytes: float = 0.6 * 1024**3
    matmul_share: float = 0.785
    bandwidth_share: float = 0.90
    model_matmul_share: float = 0.85
    half_tokens: float = 180.0
    grouped_share: float = 0.25
    attention_share: float = 0.12
    vision_share: float = 0.34
    vision_share_compiled: float = 0.49
    traffic_compiled: float = 8.0
    traffic_eager: float = 19.9
    host_layer_eager: float = 7.8e-3
    host_layer_compiled: float = 1.5e-3
    gathering_block: float = 13.4e-3
    step_seconds: float = 0.007
    micro_seconds: float = 0.006
    host_layer_cpu: float = 2.5e-3
    compile_seconds: float = 24.0
    picture_seconds: float = 3.6e-3
    load_bytes_per_second: float = 3e9
    start_seconds: float = 20.0
    disk_bytes_per_second: float = 1.5e9
    host_bytes_per_second: float = 55e9


_SHARD = "prototype, Qwen3-VL-8B, H100"
_ENGINE = "medtune train, Qwen3-VL-8B, H100 (docs/performance.md)"

SOURCES: dict[str, str] = {
    "kept_compiled": f"measured: {_SHARD}, rows v6 and v6c: 5.81 MiB a token, of which 36 x 151 kB are not logits",
    "kept_eager": f"measured: {_SHARD}, row v5: 213 kB a token and layer",
    "logit_bytes": "counted: float32 logits, a temporary of logsumexp, and the 16-bit product (training/loss.py)",
    "context_bytes": "assumed",
    "margin": "assumed",
    "process_bytes": "measured: torch, transformers and peft imported, CPU",
    "matmul_share": "measured: 8192 x 8192 x 8192 bf16 at 776 TFLOP/s on an H100; assumed for other cards",
    "bandwidth_share": "measured: copy at 3.02 TB/s on an H100; assumed for other cards",
    "model_matmul_share": f"measured: {_SHARD}, profile of v6: 164 ms of products for 8 rows",
    "half_tokens": "measured: 4096 to 12288 and 4096 to 4096 at 864, 3456 and 6912 tokens on an H100",
    "grouped_share": "measured: 12 of 48 layers of Qwen3-VL-30B-A3B, LoRA on the experts too, H100: 0.165 s for 16 rows",
    "attention_share": f"measured: {_SHARD}, profile of v6: 16 ms for 8 rows of 430 tokens",
    "vision_share": "measured: tower of Qwen3-VL-8B, H100, 16 pictures of 512 x 512 at once: 254 pictures/s",
    "vision_share_compiled": f"measured: {_ENGINE}, online against cached: 44 ms for 16 pictures of 512 x 512",
    "traffic_compiled": f"measured: {_SHARD}, profile of v6: 47 ms for 3,584 tokens",
    "traffic_eager": f"measured: {_SHARD}, profile of v5: 162 ms for 3,424 tokens",
    "host_layer_eager": f"measured: {_SHARD}, row v5s: 0.283 s for each pass of 2 rows",
    "host_layer_compiled": "assumed",
    "gathering_block": "measured: Qwen3-VL-8B, two H200, 8 and 36 layers beside 27 blocks of the tower: 0.48 and 0.84 s a pass",
    "step_seconds": f"measured: {_SHARD}, rows v6 and v6c: what the profile of the passes leaves of a step",
    "micro_seconds": f"measured: {_ENGINE}, what products and traffic leave of a step of one pass",
    "host_layer_cpu": "assumed",
    "compile_seconds": f"measured: {_ENGINE}, first step; 44 s on a host that had compiled nothing before",
    "picture_seconds": "measured: 512 x 512 JPEG, Xeon, one thread: 3.3 to 4.0 ms",
    "load_bytes_per_second": "measured: Qwen3-VL-8B from a memory file system in 4.4 to 6.8 s",
    "start_seconds": "measured: cold import of torch and transformers in 15 to 25 s",
    "disk_bytes_per_second": "assumed",
    "host_bytes_per_second": "measured: pinned main memory to an H100",
}

CALIBRATION = Calibration()
"""What the plan uses."""
