"""What the registry knows, as tables for a terminal."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from registry.core import MISSING, MIXERS, REGISTRY, Choice, Entry
from registry.tables import LAYER_SLOTS, MODEL_SLOTS, RUN_LISTS, RUN_SLOTS, STACK_SLOTS
from registry.values import MisfitError, spoken

WIDTHS = 40, 120
"""Columns of the narrowest and of the widest text."""

BESIDE = 24
"""Columns that a text must have beside what it is about; where there are fewer, it stands below."""

D_MODEL, HEADS, LENGTH = 256, 8, 1024
"""Where costs are shown."""


class Known(Protocol):
    """What a row of the overview is made from: an entry of the registry, or one read from a file."""

    @property
    def name(self) -> str: ...

    @property
    def family(self) -> str: ...

    @property
    def short(self) -> str: ...

    @property
    def doc(self) -> str: ...


def overview(families: Iterable[str], entries: Iterable[Known], able: Callable[[str], list[str]] | None = None) -> str:
    """All names by family, a line each; with ``able`` also what a mixer of that name can do."""
    families = list(families)
    shown = [e for e in entries if e.family in families]
    width = max((len(e.short) for e in shown), default=0)
    lines = []
    for family in families:
        lines += beside(f"{family}  ", f"({_how(family)})")
        for entry in sorted((e for e in shown if e.family == family), key=lambda e: e.name):
            can = f" [{', '.join(able(entry.name))}]" if able and family in MIXERS else ""
            lines += beside(f"  {entry.short:{width}}  ", f"{entry.doc}{can}")
        lines.append("")
    return "\n".join(lines)


def columns() -> int:
    """How wide text is printed: as wide as the terminal, within bounds; where there is none, 118."""
    return max(WIDTHS[0], min(WIDTHS[1], shutil.get_terminal_size((118, 24)).columns))


def beside(head: str, text: str) -> list[str]:
    """``text`` beside what it is about, wrapped under itself, or below it where little room is left.

    Args:
        head: What it is about, with the space up to the text.
        text: What is wrapped.
    """
    if not text or columns() - len(head) >= BESIDE:
        return wrapped(text, head, " " * len(head))
    start = len(head) - len(head.lstrip())
    return [head.rstrip(), *wrapped(text, " " * (start + 4))]


def wrapped(text: str, first: str = "", later: str | None = None) -> list[str]:
    """``text`` in lines that fit, the first after ``first``, the others after ``later`` (the same, if not given)."""
    lines = textwrap.wrap(
        text,
        columns(),
        initial_indent=first,
        subsequent_indent=first if later is None else later,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines or [first.rstrip()]


def _how(family: str) -> str:
    """How a block of a family is chosen."""
    if family in MIXERS and family != "attention":
        return "mixer=..."
    if family == "attention":
        return "attention=... cross_attention=... or mixer=..."
    slots = {**STACK_SLOTS, **MODEL_SLOTS, **RUN_SLOTS, "model": ("model",)}
    chosen = [slot for slot, families in slots.items() if family in families]
    if chosen:
        return " ".join(f"{slot}=..." for slot in chosen)
    several = [key for key, families in RUN_LISTS.items() if family in families]
    return f"{several[0]}=[...]" if several else "a choice of other blocks"


def page(entry: Entry) -> str:
    """All about one name: choices, sources, cost, and how to use it."""
    doc = inspect.getdoc(entry.constructor) or ""
    head = [*wrapped(f"{entry.name}: {entry.doc}", "", "  "), f"{_near(entry.where)}"]
    told = _prose(doc)
    papers = sources(entry)
    rows = [_choice(c) for c in entry.choices.values()]
    parts = [*head, "", *told]
    if rows:
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        parts.append("Choices")
        for name, default, kind, says in rows:
            parts += beside(f"  {name:{widths[0]}}  {default:{widths[1]}}  ", f"{says} ({kind})")
        parts.append("")
    if papers:
        parts += ["Sources", *(line for s in papers for line in wrapped(s, "  ", "    ")), ""]
    parts += [*_cost(entry), "Use", *(f"  {line}" for line in _examples(entry))]
    return "\n".join(parts)


def _prose(doc: str) -> list[str]:
    """The paragraphs of a docstring between its first line and its sections."""
    rest = doc.partition("\n")[2].strip("\n")
    rest = re.split(r"^(?:Args|Raises|Returns):$", rest, maxsplit=1, flags=re.MULTILINE)[0].strip("\n")
    lines: list[str] = []
    for paragraph in re.split(r"\n(?:[ \t]*\n)+", rest) if rest else ():
        plain = not re.search(r"^\s|^[-*\d]+[.)]? ", paragraph, re.MULTILINE)  # neither a formula nor a list
        too_wide = max(map(len, paragraph.splitlines())) + 2 > columns()
        kept = [f"  {line}".rstrip() for line in paragraph.splitlines()]
        lines += [*(wrapped(paragraph, "  ") if plain and too_wide else kept), ""]
    return lines


def sources(entry: Entry) -> list[str]:
    module = sys.modules.get(entry.constructor.__module__)
    lines = (inspect.getdoc(module) or "").splitlines() if module else []
    return [line for line in lines[1:] if "http" in line]


def _choice(choice: Choice) -> tuple[str, str, str, str]:
    if choice.default is MISSING:
        default = "no default"
    else:
        try:
            default = f"= {'null' if choice.plain is None else choice.plain}"
        except MisfitError:
            default = f"= {choice.default!r}, which no config can hold"
    return choice.name, default, spoken(choice.type), choice.doc or "-"


def _near(where: str) -> str:
    return where.replace(f"{sys.path[0]}/", "") if sys.path[0] else where


def _cost(entry: Entry) -> list[str]:
    """What a mixer or a feed-forward costs, from its own declaration."""
    if entry.family not in (*MIXERS, "ffn"):
        return []
    from blocks.contracts import Mask  # only where something is built

    for causal in (True, False):
        facts: tuple[Any, ...] = (D_MODEL,) if entry.family == "ffn" else (D_MODEL, Mask(causal))
        try:
            block = REGISTRY.factory(entry.name)(*facts, *([None] if entry.family == "attention" else []))
            if block is None:  # nothing is there, and costs nothing
                return []
            cost = block.cost(LENGTH)
        except ValueError:
            continue
        costs = [
            f"Cost of {LENGTH} tokens at d_model={D_MODEL}" + ("" if causal else ", both ways"),
            *wrapped(
                f"parameters {cost.parameters:,}, FLOPs {cost.flops:,}, state {cost.state_bytes:,} bytes, "
                f"sequential steps {cost.steps:,}",
                "  ",
            ),
        ]
        if entry.family != "ffn":
            costs += wrapped(f"to a token {LENGTH // 2} before: {_way(block.path(LENGTH // 2, LENGTH))}", "  ")
        return [*costs, ""]
    return []


def _way(path: Any) -> str:
    """A path in words."""
    if path.layers is None:
        return "never, however many layers"
    return f"{_so_many(path.layers, 'layer')}, {_so_many(path.operations, 'operation')} one after another"


def _so_many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _examples(entry: Entry) -> list[str]:
    slots = {**LAYER_SLOTS, "stack": ("stack",), **MODEL_SLOTS, **RUN_SLOTS, "model": ("model",)}
    slot = "attention" if entry.family == "attention" else "mixer" if entry.family in MIXERS else ""
    slot = slot or next((s for s, families in slots.items() if entry.family in families), "")
    if not slot:
        several = [key for key, families in RUN_LISTS.items() if entry.family in families]
        return (
            [f"python train.py {several[0]}=[{entry.short}]"] if several else [f"{entry.short}, as a choice of others"]
        )
    model, data = _surroundings(entry)
    plain = [
        c for c in entry.choices.values() if isinstance(c.default, int | float) and not isinstance(c.default, bool)
    ]
    more = f" {slot}.{plain[0].name}={plain[0].default}" if plain else ""
    must = "".join(f" {slot}.{c.name}=..." for c in entry.choices.values() if c.default is MISSING and not c.families)
    return [f"python train.py {model}{slot}={entry.short}{must}{more}{data}"]


def _surroundings(entry: Entry) -> tuple[str, str]:
    """The words for the model and for the data that a block needs, where the usual ones will not do."""
    model = "model=encoder_only "
    if entry.family in MIXERS:
        from blocks.matrix import abilities

        return ("" if "causal" in abilities(entry.name) else model), ""
    if entry.family == "position":
        return _around_position(entry, model)
    return "", ""


def _around_position(entry: Entry, both_ways: str) -> tuple[str, str]:
    from blocks.cases import is_attention_position
    from blocks.contracts import Mask

    if not is_attention_position(entry.name) or any(c.default is MISSING for c in entry.choices.values()):
        return "", ""
    position = REGISTRY.factory(entry.name)(HEADS, D_MODEL // HEADS)
    data = " data.trees=nesting" if position.needs_trees else ""
    try:
        position.admit(Mask(True))
    except ValueError:
        return both_ways, data
    return "", data


def profiles(lines: Iterable[Any]) -> str:
    """Blocks and lengths, a row each: what is declared, and what is measured where that can differ."""
    heads = ["", "T", "parameters", "FLOPs", "steps", "chain", "layers", "operations", "state", "ms", "peak"]
    rows = [heads]
    for line in lines:
        cost, path = line.declared, line.path
        layers, operations = (None, None) if path is None else path
        state = "-" if line.state_bytes is None else _both(cost.state_bytes, line.state_bytes)
        rows.append(
            [
                line.name,
                f"{line.length:,}",
                f"{cost.parameters:,}",
                _both(cost.flops, line.flops),
                f"{cost.steps:,}",
                f"{line.chain:,}",
                "-" if path is None else "never" if layers is None else f"{layers:,}",
                "-" if operations is None else f"{operations:,}",
                state,
                f"{1e3 * line.seconds:.1f}",
                f"{line.peak_bytes / 1e6:.1f}",
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    table = [
        "  ".join([f"{row[0]:{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    notes = wrapped(
        "One row of T tokens. parameters, FLOPs (a forward), steps and state (bytes after T tokens) as declared, with "
        "what was counted in brackets where it differs; chain: operations of torch's that follow one another in a "
        "forward; layers, and operations one after another, to every token from the one T / 2 before it; ms: least of "
        "three forwards and backwards; peak: megabytes of the tensors that these make."
    )
    return "\n".join([*(line.rstrip() for line in table), "", *notes])


def _both(declared: int, measured: int) -> str:
    return f"{declared:,}" if declared == measured else f"{declared:,} ({measured:,})"


def grids(rows: Iterable[Any]) -> str:
    """The matrix of what combines with what, a grid a slot, and the reasons of refusals."""
    rows = list(rows)
    marks = {"native": "native", "dense": "dense", "unknown": "?", "refused": "-"}
    lines = [
        *wrapped(
            "native: as cheap as its rule; dense: every pair is computed; ?: not declared, and the count of its work "
            "does not tell; -: refused, with the reason below"
        ),
        "",
    ]
    for slot in dict.fromkeys(r.slot for r in rows):
        here = [r for r in rows if r.slot == slot]
        plain = "mask/full" if slot != "decoder" else "mask/causal"
        preferred = {r.mixer: r.position for r in reversed(here)}
        preferred |= {r.mixer: r.position for r in here if r.position == "position/none"}
        by_mask = [r for r in here if r.position == preferred[r.mixer]]
        lines += _grid(f"{slot}: mixer and mask", by_mask, lambda r: r.mask, marks)
        by_position = [r for r in here if r.mask == plain and r.mixer.startswith("attention/")]
        if slot != "cross_attention" and by_position:
            lines += _grid(f"{slot}: attention and position, {plain}", by_position, lambda r: r.position, marks)
    reasons: dict[str, list[Any]] = {}
    for row in rows:
        if row.verdict == "refused":
            reasons.setdefault(row.says, []).append(row)
    lines.append("Refused because")
    for reason, of in sorted(reasons.items()):
        who = ", ".join(dict.fromkeys(f"{r.mixer.partition('/')[2]}" for r in of))
        lines += [*wrapped(reason, "  "), *wrapped(who, "      ")]
    return "\n".join(lines)


def _grid(title: str, rows: list[Any], column: Callable[[Any], str], marks: dict[str, str]) -> list[str]:
    columns = list(dict.fromkeys(column(r) for r in rows))
    heads = [c.partition("/")[2] for c in columns]
    width = max(len(r.mixer.partition("/")[2]) for r in rows)
    cells = {(r.mixer, column(r)): marks[r.verdict] for r in rows}
    lines = [title, f"  {'':{width}}  " + "  ".join(f"{h:>{max(6, len(h))}}" for h in heads)]
    for mixer in dict.fromkeys(r.mixer for r in rows):
        row = "  ".join(f"{cells.get((mixer, c), ''):>{max(6, len(h))}}" for c, h in zip(columns, heads, strict=True))
        lines.append(f"  {mixer.partition('/')[2]:{width}}  {row}".rstrip())
    return [*lines, ""]
