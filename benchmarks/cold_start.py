"""How long `medtune --help` takes, as a new process each time: the best of several, which is the machine's own speed.

    python benchmarks/cold_start.py            # prints the times; exit code 1 when the best is over the limit
    python benchmarks/cold_start.py --runs 10 --limit 0.3

The first run fills the disk cache and the byte-code cache and is not counted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

COMMANDS = (["--help"], ["train", "--help"], ["recipe", "show", "--help"])


def measure(arguments: list[str], num_runs: int) -> list[float]:
    """Seconds of each run of ``medtune`` with these arguments."""
    seconds = []
    for _ in range(num_runs + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "medtune", *arguments], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=float, default=0.3, help="seconds, for `medtune --help`")
    options = parser.parse_args()
    python = min(
        _timed([sys.executable, "-c", "pass"]) for _ in range(options.runs)
    )  # what no program in Python can be faster than
    print(f"{'python -c pass':<32} {python:.3f} s")
    best = {}
    for arguments in COMMANDS:
        seconds = measure(arguments, options.runs)
        name = " ".join(["medtune", *arguments])
        best[name] = min(seconds)
        print(f"{name:<32} {min(seconds):.3f} s   (of {', '.join(f'{value:.3f}' for value in seconds)})")
    return 0 if best["medtune --help"] <= options.limit else 1


def _timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
