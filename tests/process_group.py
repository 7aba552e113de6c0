"""Several training processes on this machine, talking through gloo. One that hangs is a failure, not a wait."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

_FOR_THE_SERVER = {
    "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])),
    "DS_ACCELERATOR": "cpu",
}
"""It is told neither this process's path of modules nor, when it imports DeepSpeed, that the processes will see no GPU."""

_PRELOADED = ["torch.distributed", "transformers", "peft", "accelerate", "tiny_training", "deepspeed"]


def run_ranks(
    function: Callable[..., Any],
    num_processes: int,
    *arguments: Any,
    seconds: float = 600.0,
    environment: Mapping[str, str] | None = None,
) -> list[Any]:
    """Call ``function(*arguments)`` in every process of a group; what each returned, or its error as text.

    The processes are forked from a server that has imported the heavy packages once and used none of them. ``seconds`` is how long
    a busy machine may take for what an idle one does in twenty: only a group that hangs waits for it, gloo itself half an hour.

    Raises:
        AssertionError: Some did not end in time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes, ends = [], []
    for rank in range(num_processes):
        given = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(num_processes),
            "LOCAL_WORLD_SIZE": str(num_processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "CUDA_VISIBLE_DEVICES": "",
            "ACCELERATE_USE_CPU": "true",
            **(environment or {}),
        }
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_rank, args=(there, given, function, arguments))
        with mock.patch.dict(os.environ, _FOR_THE_SERVER):
            process.start()
        there.close()
        processes.append(process)
        ends.append(here)
    deadline = time.monotonic() + seconds
    results: list[Any] = []
    hung = []
    for rank, (process, end) in enumerate(zip(processes, ends, strict=True)):
        try:
            results.append(end.recv() if end.poll(max(0.0, deadline - time.monotonic())) else None)
        except EOFError:
            results.append(None)
        process.join(max(0.1, deadline - time.monotonic()))
        if process.is_alive():
            hung.append(rank)
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    assert not hung, f"ranks {hung} hung for {seconds} s; the others: {results}"
    return results


def _rank(end: Any, environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    import torch

    torch.set_num_threads(1)
    try:
        result = function(*arguments)
    except BaseException as error:  # a worker tells of everything, of Ctrl-C too
        result = f"{type(error).__name__}: {error}"
        if not hasattr(error, "remedy"):
            traceback.print_exc()
    end.send(result)
    end.close()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
