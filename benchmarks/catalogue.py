"""Every block in a small model, 200 steps on the same text, and the page that tells what came of it.

    python benchmarks/catalogue.py run      # the sweeps (half an hour on two cores); writes docs/catalogue.json
    python benchmarks/catalogue.py page     # docs/catalogue.md, from the registry and docs/catalogue.json

A sweep is a plain command line, such as

    python train.py -m experiment=catalogue position=alibi,rope,t5

Blocks that can not hide the future are compared among themselves, in an encoder that fills in masked tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from registry import REGISTRY, plugins
from registry.core import MIXERS
from registry.show import sources

ROOT = Path(__file__).parents[1]
FIGURES, PAGE = ROOT / "docs" / "catalogue.json", ROOT / "docs" / "catalogue.md"

COMPARED = {"mixer": MIXERS, "position": ("position",), "mask": ("mask",), "norm": ("norm",), "ffn": ("ffn",)}
COMPARED |= {"residual": ("residual",)}
"""Slots in which every name is trained, and the families that fill them."""

PARTS = {
    "position/sum": "position=[sinusoidal,rope]",
    "mask/and": "mask={name: and, policies: [{name: window, size: 32}, dilated]}",
    "mask/or": "mask={name: or, policies: [{name: window, size: 32}, strided]}",
}
"""Names that mean nothing without parts, as they are compared."""

NOT_TRAINED = {"position/dependency": "follows a tree (`data.trees=nesting`) both ways, which no decoder can"}


class Sweep(NamedTuple):
    """One command line, and for each of its jobs the name that it is about."""

    slot: str
    model: str
    words: list[str]
    names: list[str]


def sweeps() -> Iterator[Sweep]:
    """Each slot in a decoder; what a decoder refuses, in an encoder."""
    from blocks.matrix import judge

    for slot, families in COMPARED.items():
        names = [n for n in REGISTRY.names(*families) if n not in NOT_TRAINED]
        both_ways = []
        if slot == "mixer":
            both_ways = [n for n in names if judge("decoder", n, "mask/causal", "position/none")[0] == "refused"]
        elif slot == "mask":
            both_ways = [
                n
                for n in names
                if n not in PARTS and judge("decoder", "attention/mha", n, "position/none")[0] == "refused"
            ]
        causal = [n for n in names if n not in both_ways and n not in PARTS]
        reference = ["attention/mha"] if slot == "mixer" else []
        for model, chosen in (
            ("decoder_only", causal),
            ("encoder_only", [*reference, *both_ways] if both_ways else []),
        ):
            if chosen:
                short = ",".join(REGISTRY[n].short for n in chosen)
                yield Sweep(slot, model, [f"model={model}", f"{slot}={short}"], chosen)
        for name in names:
            if name in PARTS:
                yield Sweep(slot, "decoder_only", ["model=decoder_only", PARTS[name]], [name])


def run(at_once: int) -> None:
    """Train them all, ``at_once`` sweeps side by side on a thread each, and keep the figures."""
    every = list(enumerate(sweeps()))
    with ThreadPoolExecutor(at_once) as pool:
        folders = list(pool.map(lambda numbered: train(*numbered), every))
    figures: dict[str, Any] = {}
    for (_, sweep), folder in zip(every, folders, strict=True):
        for job, name in enumerate(sweep.names):
            record = json.loads((folder / (str(job) if len(sweep.names) > 1 else "") / "run.json").read_text())
            assert record["status"] == "done", f"{name}: {record['status']}: {record['reason']}"
            figures.setdefault(sweep.slot, {}).setdefault(sweep.model, {})[name] = {
                "loss": round(record["metrics"]["best"]["val/loss"], 4),
                "parameters": record["model"]["parameters"],
                "tokens_per_second": round(record["metrics"]["tokens_per_second"]),
                "flops_per_token": round(record["model"]["flops_per_token"]),
                "state_bytes_per_token": record["model"]["state_bytes_per_token"],
            }
            about = {k: record["data"][k] for k in ("source", "fingerprint", "unigram_entropy")}
            figures["about"] = {**about, **record["machine"], "versions": record["versions"]}
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")


def train(number: int, sweep: Sweep) -> Path:
    """Run one sweep; its folder."""
    name = f"catalogue-{number:02}"
    stack = "encoder" if sweep.model == "encoder_only" else "decoder"
    several = ["-m"] if len(sweep.names) > 1 else []
    words = [*several, "experiment=catalogue", *sweep.words, f"{stack}.n_layers=2", f"name={name}"]
    print("python train.py " + " ".join(words), flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, env=environment, stdout=said, stderr=said)
        said.seek(0)
        if done.returncode:
            print(said.read()[-4000:], flush=True)
    return max((ROOT / "runs").glob(f"{name}*"), key=lambda folder: folder.stat().st_mtime)


def page() -> str:
    """The catalogue: what is registered, and what was measured."""
    plugins.load()
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    return "\n".join([*_opening(figures), *_comparisons(figures), *_families()]) + "\n"


def _opening(figures: dict[str, Any]) -> list[str]:
    about = figures.get("about", {})
    told = f"""
# The catalogue

Made by `python benchmarks/catalogue.py page`; a test keeps it in step with the registry.
`python -m registry show <name>` tells more of each: choices, defaults, cost, an example.

## A first comparison

Every name in the same small model (2 layers, 128 wide, byte tokens), one seed, 200 steps of 2,048 tokens on
{about.get("source", "text")}. One short run tells what learns quickly, not what is best:
differences of a few hundredths are noise, and no choice was tuned.

- loss: nats a token on validation text; the unigram entropy is {about.get("unigram_entropy", 0):.3f}
- tokens/s: in training, on a shared machine ({about.get("device", "cpu")}); a rough figure
- FLOPs: of a forward, a token
- state: what decoding keeps, bytes a token of a row of 128
"""
    return [*told.strip().splitlines(), ""]


def _comparisons(figures: dict[str, Any]) -> Iterator[str]:
    asked = {"decoder_only": "next token", "encoder_only": "masked tokens, seen from both sides"}
    for slot in COMPARED:
        for model, measured in figures.get(slot, {}).items():
            yield from (f"### {slot}, in `{model}` ({asked[model]})", "")
            yield "| name | loss | parameters | tokens/s | FLOPs/token | state/token |"
            yield "| --- | ---: | ---: | ---: | ---: | ---: |"
            for name, row in sorted(measured.items(), key=lambda item: item[1]["loss"]):
                state = row["state_bytes_per_token"]
                cells = [f"`{REGISTRY[name].short}`", f"{row['loss']:.3f}"]
                cells += [f"{row[key]:,}" for key in ("parameters", "tokens_per_second", "flops_per_token")]
                cells.append("-" if state is None else f"{state:,.0f}")
                yield f"| {' | '.join(cells)} |"
            yield ""
        for name, why in NOT_TRAINED.items():
            if REGISTRY[name].family == slot:
                yield from (f"`{REGISTRY[name].short}` is not in the table: it {why}.", "")


def _families() -> Iterator[str]:
    from blocks.matrix import abilities

    for family in REGISTRY.families():
        yield from (f"## {family}", "")
        mixer = family in MIXERS
        yield (
            "| name | what it does | choices | source |"
            if not mixer
            else "| name | what it does | can | choices | source |"
        )
        yield "| --- | --- | --- | --- |" if not mixer else "| --- | --- | --- | --- | --- |"
        for name in REGISTRY.names(family):
            entry = REGISTRY[name]
            papers = "<br>".join(_link(line) for line in sources(entry)) or "-"
            choices = ", ".join(f"`{c}`" for c in entry.choices) or "-"
            can = f" {', '.join(abilities(name))} |" if mixer else ""
            yield f"| `{entry.short}` | {entry.doc.replace('|', chr(92) + '|')} |{can} {choices} | {papers} |"
        yield ""


def _link(line: str) -> str:
    """``Su et al. 2021, https://...`` as a link."""
    who, _, rest = line.partition("http")
    address, _, more = f"http{rest}".partition(" ")
    return f"[{who.strip().rstrip(',') or address}]({address}){f' {more}' if more else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "page"])
    parser.add_argument("--at-once", type=int, default=2, help="sweeps side by side, one thread each")
    args = parser.parse_args()
    if args.command == "run":
        plugins.load()
        run(args.at_once)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
