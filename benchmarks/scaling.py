"""What every mixer costs as the row grows: time and memory of forward + backward, beside what it declares.

    python benchmarks/scaling.py                       # every mixer, and attention under every sparse mask
    python benchmarks/scaling.py mha+window lstm       # some of them
    python benchmarks/scaling.py --plot scaling.png    # needs pip install -e '.[plot]'

One row of T tokens of width 64, T from 1,024 to 16,384. `growth` is the time at the longest over the time at the
shortest; linear in T would be 16, quadratic 256. Lengths are interleaved and the least of the repeats is kept.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

import blocks  # noqa: F401  (registers every block)
from blocks.contracts import Attention, Layout, Mask, Mixer
from registry import REGISTRY, factory
from training.machine import keep_freed_memory

LENGTHS = (1024, 2048, 4096, 8192, 16384)
D_MODEL = 64
GROWTH, MEGABYTES = 4, 12_000
"""A length is left out if four times the memory of the one before would be more than this."""

SPARSE = ("window", "chunked", "longformer", "bigbird", "dilated", "strided")


class Row(NamedTuple):
    """One mixer: seconds by length, the declared cost at the longest, and the most memory that it took."""

    name: str
    seconds: dict[int, float]
    declared: Any
    flops_growth: float
    megabytes: float


def build(name: str, device: str) -> Mixer[Any]:
    """``mha+window``: a mixer under a mask; without a mask causal, or full where it must be."""
    short, _, policy = name.partition("+")
    entry = REGISTRY.find(short, Mixer.families)
    longest = {"length": LENGTHS[-1]} if "length" in entry.choices else {}  # where a row has a greatest length
    make = factory({"name": entry.name, **longest})
    refusals = []
    for causal in (True, False):
        try:
            mask = factory(policy, ("mask",))(causal) if policy else Mask(causal)
            kind = make.func  # type: ignore[attr-defined]
            if not issubclass(kind, Attention):
                return make(D_MODEL, mask).to(device)
            prefers = kind.prefers["position"]
            position = None if prefers == "none" else factory(prefers, ("position",))
            return make(D_MODEL, mask, position).to(device)
        except ValueError as refusal:
            refusals.append(str(refusal))
    raise SystemExit(f"{name} can not be built: {' '.join(refusals)}")


def step(mixer: Mixer[Any], length: int, device: str) -> Callable[[], None]:
    x = torch.randn(1, length, D_MODEL, device=device, requires_grad=True)
    layout = Layout.full(1, length, device)

    def run() -> None:
        mixer(x, layout.fresh())[0].sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def measure(name: str, device: str, repeats: int) -> Row:
    """Seconds by length, as far as memory reaches: a table of all pairs and channels soon takes all there is."""
    start = peak_megabytes()
    mixer = build(name, device)
    seconds: dict[int, float] = {}
    runs: dict[int, Callable[[], None]] = {}
    for length in LENGTHS:
        before = peak_megabytes()
        run = step(mixer, length, device)
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
    return Row(name, seconds, longest, longest.flops / max(shortest.flops, 1), peak_megabytes() - start)


def show(rows: list[Row]) -> None:
    lengths = "".join(f"{f'{n:,}':>9}" for n in LENGTHS)
    print(f"{'milliseconds at T =':22}{lengths}   growth   memory  declared     FLOPs    state  steps   path")
    for row in rows:
        times = "".join(f"{1e3 * row.seconds[n]:9.1f}" if n in row.seconds else f"{'-':>9}" for n in LENGTHS)
        whole = LENGTHS[-1] in row.seconds
        growth = f"x{row.seconds[LENGTHS[-1]] / row.seconds[LENGTHS[0]]:6.1f}" if whole else f"{'-':>7}"
        cost = row.declared
        print(
            f"{row.name:22}{times}  {growth} {row.megabytes:6.0f} M  x{row.flops_growth:7.1f}"
            f"  {cost.flops / 1e6:6.0f} M {cost.state_bytes / 1024:6.0f} K {cost.steps:6,} {cost.path:6,}"
        )
    print(f"\nThe declared columns are for T = {LENGTHS[-1]:,}, forward only; memory is the most of all lengths.")


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
    parser.add_argument("names", nargs="*", help="mixers, with +mask where one is meant")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", metavar="FILE.png")
    args = parser.parse_args()
    keep_freed_memory()  # as train.py does
    every = ["mha", *(f"mha+{mask}" for mask in SPARSE if f"mask/{mask}" in REGISTRY)]
    every += [REGISTRY[name].short for name in REGISTRY.names(*Mixer.families) if REGISTRY[name].short != "mha"]
    rows = []
    context = multiprocessing.get_context("fork")
    for name in args.names or every:
        with context.Pool(1) as alone:  # a process each, so that its memory can be told
            rows.append(alone.apply(measure, (name, args.device, args.repeats)))
        print(f"  {name}", file=sys.stderr)
    show(rows)
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
