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
import textwrap
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

BESIDE = {"mixer": ["attention/mha"], "position": ["position/none", "position/rope"]}
"""What blocks that can not hide the future are compared with, in an encoder."""

SPELLED = {
    "position/sum": [["position=[sinusoidal,rope]"]],
    "position/dependency": [["position=dependency", "data.trees=nesting"]],
    "position/sinusoidal": [
        ["position=sinusoidal"],
        ["position=sinusoidal", "position.scale=1", "embedding.scale=root"],
    ],
    "mask/and": [["mask={name: and, policies: [{name: window, size: 32}, dilated]}"]],
    "mask/or": [["mask={name: or, policies: [{name: window, size: 32}, strided]}"]],
    "norm/dynamic_tanh": [["norm=dynamic_tanh"], ["norm=dynamic_tanh", "embedding.scale=root"]],
    "residual/rezero": [["residual=rezero"], ["residual=rezero", "embedding.scale=root"]],
}
"""Names that mean nothing without other words, or mean something else with what their authors had beside them."""


class Sweep(NamedTuple):
    """One command line, and of each of its jobs the name that it is about and how the table calls it."""

    slot: str
    model: str
    words: list[str]
    jobs: list[tuple[str, str]]


def sweeps(slots: list[str]) -> Iterator[Sweep]:
    """Each slot in a decoder; what a decoder refuses, in an encoder."""
    for slot in slots:
        names = REGISTRY.names(*COMPARED[slot])
        ahead = [name for name in names if looks_ahead(slot, name)]
        behind = [name for name in names if name not in ahead]
        beside = BESIDE.get(slot, []) if ahead else []
        for model, chosen in (("decoder_only", behind), ("encoder_only", [*beside, *ahead])):
            plain = [(name, REGISTRY[name].short) for name in chosen if name not in SPELLED]
            if plain:
                yield Sweep(slot, model, [f"{slot}={','.join(short for _, short in plain)}"], plain)
            for name in chosen:
                for words in SPELLED.get(name, []):
                    yield Sweep(slot, model, words, [(name, " ".join(words))])


def looks_ahead(slot: str, name: str) -> bool:
    """Whether a decoder refuses a name that means something by itself."""
    from blocks.contracts import EmbeddingPosition
    from blocks.matrix import judge

    filled = {"mixer": "attention/mha", "mask": "mask/causal", "position": "position/none"}
    if slot not in filled or name in ("position/sum", "mask/and", "mask/or"):
        return False
    kind = REGISTRY[name].constructor
    if isinstance(kind, type) and issubclass(kind, EmbeddingPosition):
        return False  # acts before any mask
    filled[slot] = name
    return judge("decoder", filled["mixer"], filled["mask"], filled["position"])[0] == "refused"


def run(at_once: int, slots: list[str]) -> None:
    """Train them all, ``at_once`` sweeps side by side on a thread each, and keep the figures."""
    every = list(enumerate(sweeps(slots)))
    with ThreadPoolExecutor(at_once) as pool:
        folders = list(pool.map(lambda numbered: train(*numbered), every))
    figures: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    for slot in slots:
        figures.pop(slot, None)
    for (_, sweep), folder in zip(every, folders, strict=True):
        for job, (name, label) in enumerate(sweep.jobs):
            record = json.loads(
                (folder / (str(job) if len(sweep.jobs) > 1 else "") / "run.json").read_text(encoding="utf-8")
            )
            assert record["status"] == "done", f"{name}: {record['status']}: {record['reason']}"
            figures.setdefault(sweep.slot, {}).setdefault(sweep.model, {})[label] = {
                "name": name,
                "loss": round(record["metrics"]["best"]["val/loss"], 4),
                "parameters": record["model"]["parameters"],
                "tokens_per_second": round(record["metrics"]["tokens_per_second"]),
                "flops_per_token": round(record["model"]["flops_per_token"]),
                "state_bytes_per_token": record["model"]["state_bytes_per_token"],
            }
            about = {k: record["data"][k] for k in ("source", "fingerprint", "unigram_entropy")}
            figures["about"] = {**about, **record["machine"], "versions": record["versions"]}
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def train(number: int, sweep: Sweep) -> Path:
    """Run one sweep; its folder."""
    name = f"catalogue-{number:02}"
    stack = "encoder" if sweep.model == "encoder_only" else "decoder"
    several = ["-m"] if len(sweep.jobs) > 1 else []
    model = f"model={sweep.model}"
    words = [*several, "experiment=catalogue", model, *sweep.words, f"{stack}.n_layers=2", f"name={name}"]
    print("python train.py " + " ".join(words), flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        done = subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, env=environment, stdout=said, stderr=said)
        said.seek(0)
        if done.returncode:
            print(said.read()[-4000:], flush=True)
    return max((ROOT / "runs").glob(f"{name}*"), key=lambda folder: folder.stat().st_mtime)


def page() -> str:
    """The catalogue: what is registered, and what was measured."""
    plugins.load()
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
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
    note = textwrap.wrap(about["note"], 118, initial_indent="\n") if "note" in about else []
    return [*told.strip().splitlines(), *note, ""]


def _comparisons(figures: dict[str, Any]) -> Iterator[str]:
    asked = {"decoder_only": "next token", "encoder_only": "masked tokens, seen from both sides"}
    for slot in COMPARED:
        for model, measured in figures.get(slot, {}).items():
            yield from (f"### {slot}, in `{model}` ({asked[model]})", "")
            yield "| name | loss | parameters | tokens/s | FLOPs/token | state/token |"
            yield "| --- | ---: | ---: | ---: | ---: | ---: |"
            for label, row in sorted(measured.items(), key=lambda item: item[1]["loss"]):
                state = row["state_bytes_per_token"]
                cells = [f"`{label}`", f"{row['loss']:.3f}"]
                cells += [f"{row[key]:,}" for key in ("parameters", "tokens_per_second", "flops_per_token")]
                cells.append("-" if state is None else f"{state:,.0f}")
                yield f"| {' | '.join(cells)} |"
            yield ""


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
    parser.add_argument("--slots", nargs="+", choices=COMPARED, default=list(COMPARED), help="only these anew")
    args = parser.parse_args()
    if args.command == "run":
        plugins.load()
        run(args.at_once, args.slots)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
