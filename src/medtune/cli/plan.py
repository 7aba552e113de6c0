"""`medtune plan`: what a recipe's training will need, and what the engine chose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from medtune.cli.parameters import AsJson, Overrides, RecipeName
from medtune.language import Text, msg

if TYPE_CHECKING:
    from medtune.training.forecast import Forecast

__all__ = ["plan"]

_GIB = 1024**3


def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=str(msg("For this GPU, such as H100 or A100-40GB; for this machine when left out."))),
    ] = None,
    num_gpus: Annotated[int | None, typer.Option(min=1, metavar="N", help=str(msg("For so many of them.")))] = None,
    price: Annotated[float | None, typer.Option(min=0, metavar="P", help=str(msg("What one of them costs for an hour.")))] = None,
    as_json: AsJson = False,
) -> None:
    from medtune import api
    from medtune.cli.progress import Progress
    from medtune.cli.tables import print_json

    with Progress() as listener:
        forecast = api.plan(recipe, overrides or (), gpu=gpu, num_gpus=num_gpus, price=price, listener=listener)
    print_json(summary(forecast)) if as_json else _print(forecast)


def summary(forecast: Forecast) -> dict[str, object]:
    """The plan as JSON: bytes, seconds, parameters."""
    estimate = forecast.estimate
    return {
        "device": forecast.device,
        "num_devices": forecast.num_devices,
        "precision": forecast.precision,
        "parameters": dict(forecast.size.parts),
        "adapter": {
            "kind": forecast.adapter.kind,
            "num_trainable": forecast.adapter.num_trainable,
            "num_total": forecast.adapter.num_total,
            "modules": [row._asdict() for row in forecast.adapter.rows],
        },
        "workload": forecast.workload,
        "choice": forecast.choice,
        "reasons": forecast.chosen.reasons,
        "memory": estimate.memory,
        "peak": estimate.memory.peak,
        "capacity": estimate.capacity,
        "step": estimate.step,
        "seconds_per_step": estimate.step.total,
        "tokens_per_second": estimate.tokens_per_second,
        "rows_per_second": estimate.rows_per_second,
        "startup_seconds": estimate.startup_seconds,
        "evaluation_seconds": estimate.evaluation_seconds,
        "seconds": estimate.seconds,
        "hours": forecast.hours,
        "price": forecast.price,
        "cost": forecast.cost,
        "notes": forecast.notes,
    }


_PARTS: dict[str, Text] = {
    "language": msg("language"),
    "experts": msg("experts"),
    "embedding": msg("embedding"),
    "head": msg("output layer"),
    "vision": msg("vision tower"),
    "projector": msg("projector"),
}

_MEMORY: dict[str, Text] = {
    "weights": msg("weights"),
    "adapter": msg("adapter"),
    "gradients": msg("gradients"),
    "optimizer": msg("optimizer"),
    "activations": msg("activations"),
    "working": msg("logits, recomputation"),
    "pictures": msg("picture features"),
    "process": msg("the process"),
}

_STEP: dict[str, Text] = {
    "products": msg("matrix products"),
    "other": msg("everything else on the device"),
    "vision": msg("vision tower"),
    "host": msg("Python, optimizer"),
    "data": msg("waiting for data"),
    "communication": msg("waiting for other devices"),
}


def _print(forecast: Forecast) -> None:
    from medtune.cli.tables import _console, _pairs, _table

    out = _console()
    estimate, workload, adapter = forecast.estimate, forecast.workload, forecast.adapter
    memory = estimate.memory
    parts = ", ".join(f"{_PARTS[part]} {count / 1e6:,.1f} M" for part, count in forecast.size.parts.items())
    share = f"{adapter.num_trainable:,} / {adapter.num_total:,} ({adapter.num_trainable / max(1, adapter.num_total):.2%})"
    out.print(
        _pairs(
            [
                (msg("device"), f"{forecast.num_devices} x {forecast.device.name} ({forecast.device.source})"),
                (msg("parameters"), f"{forecast.size.num_parameters / 1e6:,.1f} M: {parts}"),
                (msg("trained parameters"), share),
                (msg("rows"), f"{workload.num_rows:,}"),
                (msg("tokens"), _tokens(forecast)),
                (msg("steps"), f"{workload.num_steps:,}"),
            ]
        )
    )
    out.print()
    table = _table(msg("what is trained"), msg("parameters"), msg("share"))
    for row in adapter.rows:
        table.add_row(row.module, f"{row.num_parameters:,}", f"{row.share:.3%}")
    out.print(table)
    out.print()
    table = _table(msg("memory of a device"), "GiB")
    for name, title in _MEMORY.items():
        if getattr(memory, name):
            table.add_row(str(title), f"{getattr(memory, name) / _GIB:.2f}")
    if memory.loading:
        table.add_row(str(msg("before: all weights, while they are loaded")), f"{memory.loading / _GIB:.2f}")
    table.add_row(str(msg("peak")), f"{memory.peak / _GIB:.2f}", style="bold")
    table.add_row(str(msg("available")), f"{estimate.capacity / _GIB:.2f}")
    for name, title in (("host", msg("beside it: main memory")), ("disk", msg("beside it: disk"))):
        if getattr(memory, name):
            table.add_row(str(title), f"{getattr(memory, name) / _GIB:.2f}")
    out.print(table)
    out.print()
    table = _table(msg("time of a step"), "ms")
    for name, title in _STEP.items():
        if getattr(estimate.step, name):
            table.add_row(str(title), f"{1e3 * getattr(estimate.step, name):.1f}")
    table.add_row(str(msg("sum")), f"{1e3 * estimate.step.total:.1f}", style="bold")
    out.print(table)
    out.print()
    rows = [
        (
            msg("speed"),
            msg(
                "{tokens} tokens/s, {rows} rows/s",
                tokens=f"{estimate.tokens_per_second:,.0f}",
                rows=f"{estimate.rows_per_second:,.2f}",
            ),
        ),
        (msg("time"), _duration(forecast)),
        (msg("cost"), _cost(forecast)),
    ]
    out.print(_pairs(rows))
    out.print()
    for reason in (*forecast.chosen.reasons, *forecast.notes):
        out.print(str(reason), markup=False)


def _tokens(forecast: Forecast) -> Text:
    workload = forecast.workload
    return msg(
        "{tokens} an epoch: {mean} a row, at most {longest}; {targets} supervised; {pictures} pictures, {distinct} different",
        tokens=f"{workload.num_tokens:,}",
        mean=f"{workload.mean_length:.0f}",
        longest=workload.longest,
        targets=f"{workload.num_targets:,}",
        pictures=f"{workload.num_pictures:,}",
        distinct=f"{workload.num_distinct:,}",
    )


def _duration(forecast: Forecast) -> Text:
    estimate = forecast.estimate
    return msg(
        "{duration} ({start} s before the first step, {validation} s of validation)",
        duration=forecast.duration,
        start=f"{estimate.startup_seconds:.0f}",
        validation=f"{estimate.evaluation_seconds:.0f}",
    )


def _cost(forecast: Forecast) -> Text | None:
    if forecast.cost is None:
        return None
    return msg(
        "{cost} ({hours} hours x {count} x {price})",
        cost=f"{forecast.cost:,.2f}",
        hours=f"{forecast.hours:.2f}",
        count=forecast.num_devices,
        price=f"{forecast.price:g}",
    )
