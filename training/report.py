"""What a run says: what was composed, what it costs, how it ended; and how many runs compare."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from registry import REGISTRY
from registry.errors import STOPPED
from registry.program import program, python
from registry.quoting import advice
from registry.tables import SEEDS
from training.console import Console, console, count, crop, duration, size
from training.results import Record, read_records
from training.summary import Part, Summary

GAP = "  "


def show_composition(spec: Mapping[str, Any], record: Record, out: Console = console) -> None:
    """Every block of the spec by name, with the choices that are not its defaults."""
    out.print(out.style("blockwright", "bold") + GAP + crop(headline(spec, record), max(8, out.width - 13)))
    out.print()
    rows = list(composition(spec))
    slot = max(len(row[0]) for row in rows) + 2
    name = max(len(row[1]) for row in rows) + 2
    if slot + name + 24 > out.width:  # a narrow terminal: the choices go below the name
        slot, name = slot - 1, 0
    for where, what, choices in rows:
        left = f"{where:<{slot}}"
        text = f"{what:<{name}}" + (GAP if choices and not name else "") + choices
        first, *more = out.wrap(left.replace(" ", "\0") + text.rstrip(), indent=slot + name)
        out.print(out.style(left, "dim") + first.replace("\0", " ")[slot:])
        for line in more:
            out.print(line)
    out.print()


def headline(spec: Mapping[str, Any], record: Record) -> str:
    """The run in a line: its model, its size, where it runs."""
    return " · ".join(
        filter(
            None,
            [
                short(spec["model"]["name"]),
                f"{count(record.model['parameters'])} parameters" if "parameters" in record.model else "",
                record.machine.get("device", ""),
                record.machine.get("precision", ""),
                f"seed {spec.get('seed', 0)}",
            ],
        )
    )


def composition(spec: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(slot, name, choices that differ from the defaults), block by block."""
    model = spec["model"]
    yield "model", short(model["name"]), said({k: model[k] for k in ("d_model", "max_length", "tie") if k in model})
    for key in ("init", "embedding", "head"):
        if model.get(key):
            yield f"  {key}", *block(model[key])
    for stack in ("encoder", "decoder"):
        if model.get(stack):
            yield from composition_of_stack(stack, model[stack])
    for key in ("tokenizer", "objective", "data", "optimizer", "schedule"):
        if spec.get(key):
            yield key, *block(spec[key])
    plain = {"accelerator": "auto", "devices": 1, "precision": "auto", "accumulate_grad_batches": 1}
    trainer = {k: v for k, v in (spec.get("trainer") or {}).items() if v is not None and v != plain.get(k)}
    yield "trainer", "lightning", said(trainer)


def composition_of_stack(name: str, stack: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """A stack's layers; equal ones are told once."""
    layers = stack["layers"]
    what = "" if stack["name"] == "stack/plain" else f"{short(stack['name'])} of "
    yield (
        f"  {name}",
        f"{what}{len(layers)} layer{'s' * (len(layers) != 1)}",
        choices(stack, leave=("layers", "position", "norm")),
    )
    foot = stack.get("position") or []
    for position in foot if isinstance(foot, list | tuple) else [foot]:
        yield "    position", *block(position)
    groups: list[tuple[Any, list[int]]] = []
    for depth, layer in enumerate(layers):
        for other, where in groups:
            if other == layer:
                where.append(depth)
                break
        else:
            groups.append((layer, [depth]))
    first = groups[0][0]
    shared = [key for key in first if all(layer.get(key) == first[key] for layer, _ in groups)]
    yield from composition_of_layer({key: first[key] for key in shared}, "    ")
    for layer, where in groups if len(groups) > 1 else []:
        named = f"    layer{'s' * (len(where) > 1)} {ranges(where)}"
        for label, what, made in composition_of_layer({k: v for k, v in layer.items() if k not in shared}, ""):
            yield f"{named} {label}", what, made
    if stack.get("norm"):
        yield "    norm", *block(stack["norm"])


def composition_of_layer(layer: Mapping[str, Any], indent: str) -> Iterator[tuple[str, str, str]]:
    """What fills the slots of a layer; the layer itself where it is not the plain one."""
    if "name" in layer and (layer["name"] != "layer/sequential" or choices(layer)):
        yield f"{indent}layer", *block(layer)
    for slot, value in layer.items():
        if slot != "name" and value and is_block(value):
            for one in value if isinstance(value, list | tuple) else [value]:
                yield f"{indent}{slot}", *block(one)


def block(spec: Any) -> tuple[str, str]:
    """A block's short name, and its choices that are not the defaults."""
    return short(spec["name"]), choices(spec)


def choices(spec: Mapping[str, Any], leave: Sequence[str] = ()) -> str:
    """The choices of a block that differ from its defaults, blocks inside it by name."""
    known = REGISTRY[spec["name"]].choices if spec["name"] in REGISTRY else {}
    slots = spec["name"].startswith("layer/")
    made = {}
    for key, value in spec.items():
        if key == "name" or key in leave or (slots and is_block(value)):
            continue
        if key in known and (known[key].is_default(value) or is_default(value, known[key].default)):
            continue
        made[key] = value
    return said(made)


def is_default(value: Any, default: Any) -> bool:
    """Whether a block is the default one with its default choices."""
    return (
        isinstance(default, str)
        and is_block(value)
        and not isinstance(value, list | tuple)
        and (value["name"].endswith(f"/{short(default)}") and not choices(value))
    )


def is_block(value: Any) -> bool:
    """Whether a value is a block's spec, or a list of them."""
    if isinstance(value, list | tuple):
        return bool(value) and all(is_block(v) for v in value)
    return isinstance(value, Mapping) and "name" in value


def said(made: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {spoken(value)}" for key, value in made.items())


def spoken(value: Any) -> str:
    """A value as a person would write it."""
    if is_block(value):
        values = value if isinstance(value, list | tuple) else [value]
        return " + ".join(
            " ".join(filter(None, [short(v["name"]), f"({c})" if (c := choices(v)) else ""])) for v in values
        )
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(spoken, value)) + "]"
    return str(value)


def short(name: str) -> str:
    """A name without its family."""
    return name.rpartition("/")[2]


def ranges(numbers: Sequence[int]) -> str:
    """0, 1, 2, 5 -> 0-2, 5"""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


# The table of parts ------------------------------------------------------------------------------------------------


def show_summary(summary: Summary, out: Console = console) -> None:
    """A row for each kind of part: parameters, share, FLOPs and state bytes a token."""
    total = max(1, summary.parameters)

    def row(part: Part) -> list[str]:
        times = f"{part.times} x " if part.times > 1 else ""
        return [
            part.where,
            times + short(part.name),
            count(part.parameters),
            f"{100 * part.parameters / total:.1f} %",
            count(part.flops / summary.length),
            "-" if part.state_bytes is None else size(part.state_bytes / summary.length),
        ]

    rows = [row(part) for part in summary.parts]
    end = row(Part("total", "", 1, summary.parameters, summary.flops, summary.state_bytes))
    heads = ["part", "", "parameters", "share", "FLOPs/token", "state/token"]
    show_table([heads, *rows, end], out, left=2, rules=(1, len(rows) + 1), drop=(3, 5, 4))
    for line in out.wrap(f"FLOPs and state of one row of {summary.length:,} tokens, forward, spread over its tokens."):
        out.print(line, "dim")
    out.print()


def show_table(
    rows: Sequence[Sequence[str]],
    out: Console = console,
    left: int = 1,
    rules: Sequence[int] = (1,),
    drop: Sequence[int] = (),
) -> None:
    """Columns side by side, the first ``left`` of them flush left; those in ``drop`` go where there is no room."""
    keep = list(range(len(rows[0])))

    def widths() -> list[int]:
        return [max(len(row[i]) for row in rows) for i in keep]

    for column in drop:
        if sum(widths()) + 2 * (len(keep) - 1) > out.width:
            keep.remove(column)
    wide = widths()
    for number, row in enumerate(rows):
        if number in rules:
            out.print(crop("─" * (sum(wide) + 2 * (len(wide) - 1)), out.width), "dim")
        cells = [row[i].ljust(w) if i < left else row[i].rjust(w) for i, w in zip(keep, wide, strict=True)]
        out.print(crop(GAP.join(cells).rstrip(), out.width), "dim" if number == 0 and rules else "")


# Data, and the end -------------------------------------------------------------------------------------------------


TREES = {
    "made": "made from the tokens that the model is shown",
    "given": "given with the data, including masked words",
}
"""Where trees come from, in words; see ``training.contracts.Trees``."""


def show_data(facts: Mapping[str, Any], out: Console = console) -> None:
    """What is learned from, and the loss that counting tokens alone would give."""
    sizes = " and ".join(
        f"{count(facts[f'{half}_tokens'])} tokens for {purpose}"
        for half, purpose in (("train", "training"), ("val", "validation"))
        if facts.get(f"{half}_tokens")
    )
    for line in out.wrap(": ".join(filter(None, [str(facts.get("source", "")), sizes])), indent=2):
        out.print(line)
    if facts.get("unigram_entropy") is not None:
        told = f"unigram entropy {facts['unigram_entropy']:.4f} nats: the loss of a model that only counts tokens"
        for line in out.wrap(told, indent=2):
            out.print(line)
    for note in facts.get("notes") or []:
        for line in out.wrap(note, indent=2):
            out.print(line, "bad")
    if facts.get("trees") in TREES:
        for line in out.wrap(f"trees: {TREES[facts['trees']]}", indent=2):
            out.print(line)
    out.print()


def show_end(record: Record, folder: Path, out: Console = console) -> None:
    """The best of the run, what it left, and what may come next."""
    metrics, best = record.metrics, record.metrics.get("best") or {}
    out.print()
    head = record.reason if record.status == "stopped" else record.status
    pace = [f"{metrics['steps']:,} steps in {duration(metrics['seconds'])}"] if metrics.get("steps") else []
    pace += [f"{count(metrics['tokens_per_second'])} tokens/s"] if metrics.get("tokens_per_second") else []
    out.print(out.style(head, "good" if record.status == "done" else "bad") + GAP + ", ".join(pace))
    rows: list[tuple[str, str]] = []
    if best.get("val/loss") is not None:
        bits = f", {best['val/bits_per_byte']:.3f} bits/byte" if best.get("val/bits_per_byte") else ""
        rows.append(("best", f"validation loss {best['val/loss']:.4f}{bits} at step {best['step']:,}"))
        if entropy := record.data.get("unigram_entropy"):
            rows.append(("", f"unigram entropy of the data {entropy:.4f}"))
            if best["val/loss"] > entropy:
                rows.append(("", "the loss is above it: counting tokens predicts the text better than this model"))
    folder = near(folder)
    rows += [("files" if i == 0 else "", str(folder / file)) for i, file in enumerate(record.files.values())]
    rows += [("next" if i == 0 else "", command) for i, command in enumerate(next_commands(record, folder))]
    for left, text in rows:  # never broken: paths and commands are there to be copied
        out.print(out.style(f"{left:<7}", "dim") + text)


def near(folder: Path) -> Path:
    """A path as it is best typed: from here on, if it is below."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def next_commands(record: Record, folder: Path) -> list[str]:
    """How to go on from here: generate, resume, run again."""
    words = record.command[: len(record.command) - len(record.overrides)]
    train, place = shlex.join(words or program()), shlex.quote(str(folder))
    commands = []
    saved = "last" in record.files or "best" in record.files
    if saved and (record.spec.get("model") or {}).get("decoder"):
        prompt = record.data.get("prompt") or "..."
        gap = "=" if prompt.startswith("-") else " "  # argparse would take it for an option
        commands.append(f"{shlex.quote(python())} -m training.generate {place} --prompt{gap}{shlex.quote(prompt)}")
    again = f"{train} {advice('rerun', str(folder))}"
    if record.status == "diverged":
        lr = (record.spec.get("optimizer") or {}).get("lr")
        return [*commands, f"{again} optimizer.lr={lr / 3:.2g}" if lr else again]
    if "last" in record.files:
        last = advice("ckpt_path", str(folder / record.files["last"]))
        steps = (record.spec.get("trainer") or {}).get("max_steps")
        more = ""
        if isinstance(steps, int) and steps > 0 and record.status == "done":
            more = f" trainer.max_steps={2 * steps}"
        commands.append(f"{again} {last}{more}")
    if record.status == "done" and record.seed + 1 < SEEDS:
        commands.append(f"{again} seed={record.seed + 1}")
    return commands


# Many runs ---------------------------------------------------------------------------------------------------------


class Outcome(Protocol):
    """What came of a job; see ``registry.compose.Record``."""

    @property
    def overrides(self) -> list[str]: ...
    @property
    def folder(self) -> Path: ...
    @property
    def status(self) -> int: ...
    @property
    def result(self) -> Any: ...
    @property
    def error(self) -> str: ...
    @property
    def same(self) -> tuple[list[str], ...]: ...
    @property
    def unused(self) -> Mapping[str, str]: ...


def record_of(job: Outcome) -> Record:
    """The record of a job; of one that ended before it left any, what is known."""
    if isinstance(job.result, Record):
        return job.result
    left = read_records([job.folder])
    status = "stopped" if job.status == STOPPED else "failed"
    return left[0] if left else Record(job.folder.name, status, job.error, overrides=list(job.overrides))


def show_jobs(jobs: Sequence[Outcome], out: Console = console) -> None:
    """A row a job: what varied, what came of it; then what failed, and why, and what had no effect.

    Jobs with one spec have one row, with the words of all of them.
    """
    records = [record_of(job) for job in jobs]
    words = [[record.overrides, *job.same] for record, job in zip(records, jobs, strict=True)]
    names = varied([each for several in words for each in several])
    heads = [*(names or ["job"]), "val loss", "bits/byte", "parameters", "tokens/s", "status"]
    rows = []
    losses = [_best(record, "val/loss") for record in records]
    lowest = min((loss for loss in losses if loss is not None), default=None)
    for record, loss, several in zip(records, losses, words, strict=True):
        made = [dict(override.partition("=")[::2] for override in each) for each in several]
        bits = _best(record, "val/bits_per_byte")
        rows.append(
            [
                *([" = ".join(dict.fromkeys(m.get(name, "") for m in made)) for name in names] or [record.name]),
                "-" if loss is None else f"{loss:.4f}" + ("*" if loss == lowest and len(records) > 1 else " "),
                "-" if bits is None else f"{bits:.3f}",
                count(record.model["parameters"]) if record.model.get("parameters") else "-",
                count(record.metrics["tokens_per_second"]) if record.metrics.get("tokens_per_second") else "-",
                record.status,
            ]
        )
    n = len(names) or 1
    out.print()
    show_table([heads, *rows], out, left=n, drop=(n + 1, n + 3, n + 2))
    if lowest is not None and len(records) > 1:
        out.print("* lowest", "dim")
    failed = [record for record in records if record.status not in ("done", "dry run")]
    if failed:
        out.print()
        out.print(f"{len(failed)} of {len(records)} jobs did not end well:", "bad")
        for record in failed:
            what = " ".join(record.overrides) or record.name
            reason, *more = record.reason.splitlines() or [""]
            reason += f" (and {len(more)} more)" if more else ""
            for line in out.wrap(f"{what}: {record.status}. {reason}", indent=2):
                out.print(line)
    for note in _without_effect(jobs, records, names):
        for line in out.wrap(note, indent=2):
            out.print(line)


def _without_effect(jobs: Sequence[Outcome], records: Sequence[Record], names: Sequence[str]) -> Iterator[str]:
    """A sentence for jobs that had one spec, for words without effect, and for jobs with the very same losses."""
    for job in jobs:
        if job.same and not any(same != job.overrides for same in job.same):
            yield f"{' '.join(job.overrides)}: asked for {1 + len(job.same)} times, ran once."
        elif job.same:
            yield (
                f"{_label(job.overrides, names)} and {' and '.join(_label(same, names) for same in job.same)} "
                "are one composition, and ran once."
            )
    unused: dict[str, list[int]] = {}
    for number, job in enumerate(jobs):
        for word in job.unused:
            unused.setdefault(word, []).append(number)
    for word, numbers in unused.items():
        where = "any job" if len(numbers) == len(jobs) else ", ".join(_label(jobs[n].overrides, names) for n in numbers)
        yield f"{word} has no effect in {where}."
    losses: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        history = tuple((v.get("step"), v.get("val/loss")) for v in record.metrics.get("validations") or [])
        if history and record.status == "done":
            losses.setdefault((*history, record.metrics.get("train_loss")), []).append(record)
    for alike in losses.values():
        if len(alike) > 1:
            which = ", ".join(_label(record.overrides, names) for record in alike)
            yield f"{which}: the losses are exactly the same at every validation; what differs had no effect."


def _label(overrides: Sequence[str], names: Sequence[str]) -> str:
    """The words of a job that vary between jobs."""
    return " ".join(o for o in overrides if o.partition("=")[0] in names) or "the job"


def varied(overrides: Sequence[Sequence[str]]) -> list[str]:
    """The keys whose values differ between jobs, in the order they were written."""
    made = [dict(o.partition("=")[::2] for o in each) for each in overrides]
    keys = dict.fromkeys(key for each in made for key in each)
    return [key for key in keys if len({each.get(key) for each in made}) > 1]


def _best(record: Record, name: str) -> float | None:
    value = (record.metrics.get("best") or {}).get(name)
    return None if value is None else float(value)
