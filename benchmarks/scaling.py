"""What every mixer costs as the row grows: time and memory of forward + backward, beside what it declares.

    python benchmarks/scaling.py                       # every mixer, and attention under every sparse mask
    python benchmarks/scaling.py mha+window lstm       # some of them
    python benchmarks/scaling.py ./my_block.py         # all that a file registers; plugins as for train.py
    python benchmarks/scaling.py --plot scaling.png    # needs pip install -e '.[plot]'

One row of T tokens of width 64, T from 1,024 to 16,384. `growth` is the time at the longest over the time at the
shortest; linear in T would be 16, quadratic 256. Lengths are interleaved and the least of the repeats is kept.
`layers` and `ops` (operations one after another) are those of the path to every token from the one 512 before it, in
a row of 1,024.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from blocks.contracts import Mixer
from blocks.profile import build, step
from registry import REGISTRY, plugins
from registry.errors import ConfigError
from registry.named import is_file, named
from training.machine import keep_freed_memory

LENGTHS = (1024, 2048, 4096, 8192, 16384)
D_MODEL = 64
DISTANCE = 512
GROWTH, MEGABYTES = 4, 12_000
"""A length is left out if four times the memory of the one before would be more than this."""

SPARSE = ("window", "chunked", "longformer", "bigbird", "dilated", "strided")


class Row(NamedTuple):
    """One mixer: seconds by length, the declared cost at the longest, its path, and the most memory that it took."""

    name: str
    seconds: dict[int, float]
    declared: Any
    path: Any
    flops_growth: float
    megabytes: float


def measure(name: str, device: str, repeats: int) -> Row:
    """Seconds by length, as far as memory reaches: a table of all pairs and channels soon takes all there is."""
    start = peak_megabytes()
    mixer = build(name, D_MODEL, LENGTHS[-1], device, Mixer.families, "scaling")
    seconds: dict[int, float] = {}
    runs: dict[int, Callable[[], None]] = {}
    for length in LENGTHS:
        before = peak_megabytes()
        run = step(mixer, length)
        run()
        runs[length] = run
        if GROWTH * (peak_megabytes() - before) > MEGABYTES:
            break  # twice the length would take four times as much
    for _ in range(repeats):
        for length, run in runs.items():
            before = time.perf_counter()
            run()
            seconds[length] = min(seconds.get(length, float("inf")), time.perf_counter() - before)
    longest, shortest = mixer.cost(LENGTHS[-1]), mixer.cost(LENGTHS[0])
    growth = longest.flops / max(shortest.flops, 1)
    return Row(name, seconds, longest, mixer.path(DISTANCE, 2 * DISTANCE), growth, peak_megabytes() - start)


def show(rows: list[Row]) -> None:
    lengths = "".join(f"{f'{n:,}':>9}" for n in LENGTHS)
    print(f"{'milliseconds at T =':22}{lengths}   growth   memory  declared     FLOPs    state  steps  layers     ops")
    for row in rows:
        times = "".join(f"{1e3 * row.seconds[n]:9.1f}" if n in row.seconds else f"{'-':>9}" for n in LENGTHS)
        whole = LENGTHS[-1] in row.seconds
        growth = f"x{row.seconds[LENGTHS[-1]] / row.seconds[LENGTHS[0]]:6.1f}" if whole else f"{'-':>7}"
        cost, layers = row.declared, "never" if row.path.layers is None else f"{row.path.layers:,}"
        operations = "-" if row.path.operations is None else f"{row.path.operations:,}"
        print(
            f"{row.name:22}{times}  {growth} {row.megabytes:6.0f} M  x{row.flops_growth:7.1f}"
            f"  {cost.flops / 1e6:6.0f} M {cost.state_bytes / 1024:6.0f} K {cost.steps:6,}  {layers:>6} {operations:>7}"
        )
    print(
        f"\nThe declared columns are for T = {LENGTHS[-1]:,}, forward only; memory is the most of all lengths.\n"
        f"layers, and operations (ops) one after another: to every token from the one {DISTANCE:,} before it, "
        f"in a row of {2 * DISTANCE:,}."
    )


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plot(rows: list[Row], file: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    for row in rows:
        full = row.name == "mha"
        axes.plot(
            list(row.seconds),
            [1e3 * s for s in row.seconds.values()],
            marker="o",
            markersize=3,
            linewidth=2.5 if full else 1,
            color="black" if full else None,
            label=row.name,
        )
    axes.set(xscale="log", yscale="log", xlabel="tokens in a row", ylabel="forward + backward, milliseconds")
    axes.set_xticks(LENGTHS, [f"{n:,}" for n in LENGTHS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize=7)
    figure.savefig(file, dpi=150)
    print(f"wrote {file}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="mixers, with +mask where one is meant, and files")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", metavar="FILE.png")
    args = parser.parse_args()
    keep_freed_memory()  # as train.py does
    plugins.load()
    every = ["mha", *(f"mha+{mask}" for mask in SPARSE if f"mask/{mask}" in REGISTRY)]
    every += [REGISTRY[name].short for name in REGISTRY.names(*Mixer.families) if REGISTRY[name].short != "mha"]
    rows = []
    wanted = [n for w in args.names for n in (named([w], "scaling", Mixer.families) if is_file(w) else [w])]
    context = multiprocessing.get_context("fork")
    for name in wanted or every:
        with context.Pool(1) as alone:  # a process each, so that its memory can be told
            rows.append(alone.apply(measure, (name, args.device, args.repeats)))
        print(f"  {name}", file=sys.stderr)
    show(rows)
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(f"error: {error}")
