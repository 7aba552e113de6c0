"""Options that the benchmarks of training have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["read_options", "training_parser"]


def training_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark of training takes: model, place, size of the work, limits, and how medtune trains."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder with config.json of the model")
    parser.add_argument("--tokenizer", type=Path, help="folder with its tokenizer")
    parser.add_argument("--work", type=Path, help="folder with room for the weights, such as /dev/shm; used again if it is there")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of results")
    parser.add_argument("--layers", type=int, help="decoder layers, for every program that is measured")
    parser.add_argument("--experts", action="store_true", help="medtune also adapts the experts")
    parser.add_argument("--rows", type=int, default=560)
    parser.add_argument("--compile", choices=("auto", "true", "false"), default="true")
    parser.add_argument("--train", default="", help="further settings of medtune, such as `micro_batch_tokens: 7040`")
    parser.add_argument("--limit", type=float, default=600, help="seconds for a stage")
    parser.add_argument("--budget", type=float, default=86_400, help="seconds for all of it; no stage runs longer")
    parser.add_argument("--tiny", action="store_true", help="two narrow layers: a rehearsal on the CPU")
    parser.add_argument("--table", action="store_true", help="only print the table of --out")
    return parser


def read_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options as given, ``--train`` ready to be put into the section of a recipe."""
    options = parser.parse_args()
    options.train = f", {options.train}" if options.train else ""
    if not options.table and not (options.model and options.tokenizer and options.work):
        parser.error("--model, --tokenizer and --work are needed, or --table")
    return options
