"""The loss picture, and how times are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from medtune.training.callbacks import clock
from medtune.training.finish import mean_loss
from medtune.training.meter import Meter
from medtune.training.plot import _scale_losses, plot_losses, smooth
from medtune.training.trainer import best_step

HISTORY = [
    {"step": 1, "loss": 4.0},
    {"step": 3, "loss": 2.0},
    {"step": 3, "eval_loss": 2.5},
    {"step": 6, "loss": 1.0},
    {"step": 6, "eval_loss": 2.5},
]


def test_picture(tmp_path: Path) -> None:
    plot_losses(HISTORY, tmp_path / "loss.png", title="run", num_train=12, num_validation=4)
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (1200, 675)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24) or []}
    assert {(0x1F, 0x77, 0xB4), (0xD6, 0x27, 0x28)} <= colours, "the smoothed training loss and the validation loss"


def test_a_picture_of_nothing_is_still_one(tmp_path: Path) -> None:
    plot_losses([], tmp_path / "loss.png", title="run", num_train=0, num_validation=0)
    assert (tmp_path / "loss.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("losses", "scale"), [([9.6, 0.25], "log"), ([2.2, 1.4], "linear"), ([9.6, 0.0], "linear"), ([], "linear"), ([4.0], "linear")]
)
def test_a_beginning_far_above_the_rest_does_not_flatten_it(losses: list[float], scale: str) -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    _scale_losses(axes, losses)
    assert axes.get_yscale() == scale
    assert axes.get_ylim()[0] == 0 or scale == "log"


def test_smoothing_starts_at_the_first_value() -> None:
    assert smooth([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])
    # 0.7 * 0.3 * 1 + 0.3 * 2 = 0.81, over 1 - 0.49 = 0.51
    assert smooth([1.0, 2.0]) == pytest.approx([1.0, 0.81 / 0.51])


def test_mean_loss_weights_an_entry_by_its_steps() -> None:
    assert mean_loss(HISTORY) == pytest.approx((4.0 * 1 + 2.0 * 2 + 1.0 * 3) / 6)
    assert mean_loss([]) is None


def test_of_equal_losses_the_earlier_step_is_the_best() -> None:
    assert best_step(HISTORY) == 3
    assert best_step(HISTORY[:2]) is None


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 9.6, 61, 3599.6, 3661)] == ["0:00", "0:10", "1:01", "1:00:00", "1:01:01"]


def test_the_steady_state_leaves_out_the_first_steps_and_pauses() -> None:
    now = [0.0]
    meter = Meter(clock=lambda: now[0])
    for seconds in (60.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0):
        assert meter.steady_state(1) is None or seconds == 2.0
        now[0] += seconds
        meter.add_tokens(100)
        meter.count_step()
    now[0] += 30.0
    meter.pause(30.0)
    assert meter.steady_state(4) == (2.0, 200.0)


def test_an_epochs_speed_is_of_all_its_steps_and_not_of_the_last_log() -> None:
    now = [0.0]
    meter = Meter(clock=lambda: now[0])
    assert meter.epoch_speed(1) is None
    for seconds, tokens in ((10.0, 100), (10.0, 300)):
        now[0] += seconds
        meter.add_tokens(tokens)
        meter.read(2)  # a line of the log
    now[0] += 30.0
    meter.pause(30.0)  # its validation
    assert meter.epoch_speed(2) == 2 * 400 / 20
    now[0] += 5.0
    meter.add_tokens(50)
    assert meter.epoch_speed(1) == 10.0


def test_speed_leaves_out_the_time_of_evaluations() -> None:
    times = iter([0.0, 10.0, 20.0])
    meter = Meter(clock=lambda: next(times))
    meter.add_tokens(100)
    meter.pause(5.0)
    assert meter.read(2)["tokens_per_second"] == 40.0
    meter.add_tokens(100)
    assert meter.read(1)["tokens_per_second"] == 10.0
