"""What is there, what it can do, and a start for what is not there yet.

python -m registry list [family ...]                every name, by family; with --abilities also what each mixer can do
python -m registry show attention/gqa | ./file.py   choices, sources, cost, how to use it
python -m registry new attention my_attention [like gqa]       print a file that works as it stands
python -m registry check gqa | ./my_block.py ...    run the laws, a line a law; --with 50: in 50 random compositions too
python -m registry matrix [mixer | ./file.py ...] [--all]      what combines with what; --all: a line each
python -m registry profile [block | mixer+mask | ./file.py ...] [tokens ...]    cost, declared and measured
python -m registry --version
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

import blockwright

if __name__ == "__main__":
    blockwright.start()  # before what takes a while to import

from registry import plugins
from registry.compose import report
from registry.compose.launch import versions
from registry.core import MIXERS, REGISTRY
from registry.errors import BlockwrightError, ConfigError
from registry.named import is_file, named
from registry.new import template
from registry.program import as_started, run
from registry.scan import builtin
from registry.show import Known, grids, overview, page, profiles
from registry.values import guess


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    commands = {"list": names, "show": show, "new": new, "check": check, "matrix": matrix, "profile": profile}
    if not words or words[0] == "help" or {"-h", "--help"} & {*words}:
        print(__doc__)
        return 0
    if words[0] == "--version":
        print(versions())
        return 0
    try:
        if words[0] not in commands:
            raise ConfigError(
                f"no command is named {words[0]!r}{guess(words[0], commands)} There are: {', '.join(commands)}."
            )
        return commands[words[0]](words[1:])
    except BlockwrightError as error:
        report(error)
        return error.status


def names(words: list[str]) -> int:
    """Every name, by family. Abilities are found by building each mixer, which takes seconds."""
    families = [w for w in words if w != "--abilities"]
    if families == words:
        plugins.load_others()
    else:
        plugins.load()
    if REGISTRY.names():  # a plugin may have replaced a block of ours
        plugins.load_builtin()
        entries: list[Known] = [REGISTRY[n] for n in REGISTRY.names()]
    else:
        entries = list(builtin())
    known = sorted({e.family for e in entries})
    for family in families:
        if family not in known:
            raise ConfigError(
                f"list: no family is named {family!r}{guess(family, known)} There are: {', '.join(known)}."
            )
    if families == words:
        print(overview(families or known, entries))
    else:
        from blocks.matrix import abilities

        print(overview(families or known, entries, abilities))
    return 0


def show(wanted: list[str]) -> int:
    """All about some names, or about every block that a file registers."""
    if not wanted:
        raise ConfigError("show: a name or a file must be given, as in show attention/gqa.")
    plugins.load()
    for name in named(wanted, "show"):
        print(as_started(page(REGISTRY[name])))
        print()
    return 0


def new(words: list[str]) -> int:
    """Print a block file to start from."""
    asked = [*words[:2], *words[3:]] if words[2:3] == ["like"] else words
    if not 2 <= len(asked) <= 3 or words[2:] == ["like"]:
        raise ConfigError(
            "new: a family and a name must be given, as in new attention my_attention, and at most a block to start "
            f"from, as in new attention my_attention like gqa, but got {' '.join(words)!r}."
        )
    plugins.load()
    print(template(*asked), end="")
    return 0


def check(words: list[str]) -> int:
    """Run the laws on names, or on every block that a file registers."""
    words, compositions = with_compositions(words)
    if not words:
        raise ConfigError("check: a name or a file must be given, as in check ./my_block.py.")
    plugins.load()
    wanted = named(words, "check")
    from blocks.laws.check import check as verdicts
    from blocks.laws.check import without_torch_logs
    from training.laws import BENCH

    broken, free = 0, []
    with without_torch_logs():
        for name in wanted:
            tried = 0
            for verdict in verdicts(name, BENCH):
                print(line(name, verdict))
                broken += verdict.ok is False
                tried += verdict.ok is not None
            if not tried:
                free.append(name)
        if compositions:
            from training.laws.compositions import compose_with

            for name in wanted:
                for verdict in compose_with(name, compositions):
                    print(line(name, verdict))
                    broken += verdict.ok is False
    for name in free:
        print(f"no laws  {name}  {why_free(name)}")
    if broken:
        print(f"{broken} broken{f', {len(free)} under no law' if free else ''}")
    else:
        print(f"no law was broken, but {len(free)} of {len(wanted)} names are under none" if free else "all laws hold")
    return 1 if broken or free else 0


def with_compositions(words: list[str]) -> tuple[list[str], int]:
    """The words without ``--with N``, and that number; 0 where it is not said."""
    if "--with" not in words:
        return words, 0
    at = words.index("--with")
    said = words[at + 1] if at + 1 < len(words) else ""
    if not said.isdigit() or not int(said):
        raise ConfigError(f"check: --with must be followed by how many compositions are drawn, but got {said!r}.")
    return [*words[:at], *words[at + 2 :]], int(said)


def line(name: str, verdict: Any) -> str:
    """A verdict as it is printed."""
    mark = {True: "ok     ", False: "BROKEN ", None: "refused"}[verdict.ok]
    says = f": {verdict.says}" if verdict.says else ""
    return f"{mark}  {name}  {verdict.case}: {verdict.law.replace('_', ' ')}{says}"


def why_free(name: str) -> str:
    """Why no law was held on a name."""
    from training.laws import BENCH

    if any(True for _ in BENCH.cases(name)):
        return "it cannot be tried on this machine."
    return f"the family {REGISTRY[name].family!r} has no laws: nothing is known of what its blocks promise."


def matrix(words: list[str]) -> int:
    """What combines with what."""
    plugins.load()
    from blocks.matrix import rows

    mixers = named([w for w in words if w != "--all"], "matrix", MIXERS)
    if "--all" in words:
        for row in rows(mixers):
            print("  ".join(row))
    else:
        print(grids(rows(mixers)))
    return 0


def profile(words: list[str]) -> int:
    """What blocks cost in rows of some lengths."""
    lengths = [int(w) for w in words if w.isdecimal()]
    blocks = [w for w in words if not w.isdecimal()]
    if not blocks or 0 in lengths:
        raise ConfigError("profile: a block or a file and lengths of at least 1 must be given, as in profile mha 256.")
    plugins.load()
    from blocks.profile import FAMILIES, lines

    wanted = [name for w in blocks for name in (named([w], "profile", FAMILIES) if is_file(w) else [w])]
    print(profiles(lines(wanted, lengths or (256, 1024))))
    return 0


if __name__ == "__main__":
    run(main)
