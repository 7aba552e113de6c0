"""Pictures are prepared once and in good time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from medtune.errors import UnreadableImageError
from medtune.generation.ahead import EncodedRequest, Encoding
from medtune.language import msg
from medtune.types import Features, Message, Request


class Pictures:
    """Counts, and takes its time."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.lock = threading.Lock()

    def tensors(self, images: list[Any], *, sample_id: str) -> dict[str, torch.Tensor]:
        with self.lock:
            self.seen.append(sample_id)
        time.sleep(0.02)
        if images == ["torn"]:
            raise UnreadableImageError(msg("There is no question."), file="torn.png")
        return {"pixel_values": torch.ones(4, 6), "image_grid_thw": torch.tensor([[1, 2, 2]])}


class StandIn:
    def __init__(self) -> None:
        self.pictures = Pictures()

    def encode_seen(self, messages: Any, grids: Any, *, sample_id: str) -> Features:  # noqa: ARG002
        return Features(sample_id, torch.ones(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64))


def ask(name: str, image: Any) -> Request:
    return Request(name, (Message(role="user", content="<image>?"),), (image,))


@pytest.fixture(autouse=True)
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtune.generation.ahead._opened", lambda image: Path(image).stem if isinstance(image, Path) else image)


def test_threads_that_want_one_picture_wait_for_the_first() -> None:
    encoder = StandIn()
    requests = [ask(f"r{n}", Path("one.png")) for n in range(12)] + [ask("alone", Path("two.png"))]
    with Encoding(encoder, requests, ahead=16, dtype=torch.float32, device=torch.device("cpu")) as encoding:  # type: ignore[arg-type]
        taken = [encoding.take() for _ in requests]
    assert all(isinstance(each, EncodedRequest) for each in taken)
    assert len(encoder.pictures.seen) == 2
    assert len({id(each.pictures[0]) for each in taken[:12] if isinstance(each, EncodedRequest)}) == 1


@pytest.mark.parametrize("lent", [True, False])
def test_pixels_for_a_gpu_are_page_locked_where_the_system_lends_such_memory(lent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def pin_memory(pixels: torch.Tensor) -> torch.Tensor:
        if not lent:
            raise RuntimeError("CUDA error: out of memory")
        return 2 * pixels

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    for device, factor in (("cuda", 1 + lent), ("cpu", 1)):
        requests = [ask("r", Path("one.png"))]
        with Encoding(StandIn(), requests, ahead=1, dtype=torch.float16, device=torch.device(device)) as encoding:  # type: ignore[arg-type]
            taken = encoding.take()
        assert isinstance(taken, EncodedRequest)
        assert torch.equal(taken.pictures[0].pixels, factor * torch.ones(4, 6, dtype=torch.float16))


def test_a_damaged_picture_is_told_to_all_who_show_it() -> None:
    requests = [ask(f"r{n}", Path("torn.png")) for n in range(6)]
    with Encoding(StandIn(), requests, ahead=6, dtype=torch.float32, device=torch.device("cpu")) as encoding:  # type: ignore[arg-type]
        taken = [encoding.take() for _ in requests]
    assert [each[1].sample for each in taken if isinstance(each, tuple)] == [f"r{n}" for n in range(6)]
