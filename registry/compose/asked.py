"""Compares the words of the command line with the composed spec: each word takes effect, or is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from registry.compose.words import Word
from registry.quoting import spelt
from registry.slots import Resolved
from registry.tables import RUN_LISTS, SLOTS, STACK_SLOTS

NO_BLOCK = ("auto", "none", "attention")
"""Names that a slot takes and that no block of the spec has: resolving replaces them."""

ABSENT = object()


def differences(words: Iterable[Word], config: Mapping[str, Any], resolved: Resolved) -> list[str]:
    """A line for each word of which the config or the spec holds something else. There should never be one.

    Args:
        words: The choices on the command line.
        config: All levels in one, as it was resolved.
        resolved: The spec, and where each choice in it was made.
    """
    wrong = []
    for word in words:
        for path, value in leaves(word):
            if word.deletes:
                found = []
            elif path in RUN_LISTS and value != {}:
                held = _walk(config, path) or {}
                kept = [name for name in held if held[name] is not None]
                found = [kept, [_short(b["name"]) for b in resolved.spec.get(path) or []]]
                value = [_short(name) for name in _names(value)]
            else:
                found = [_walk(config, path), *_made(path, resolved)]
                if value is None and path in resolved.spec["model"]:
                    value = {}  # a stack of which nothing is chosen
            wrong += [
                f"{path}: {spelt(value)} must be what is composed, but {spelt(other)} is: a bug of Blockwright."
                for other in found
                if not _equal(value, other)
            ][:1]
    return wrong


def without_effect(words: Iterable[Word], resolved: Resolved) -> dict[str, str]:
    """Words that choose a block, or a choice of one, that nothing in the spec uses; for each, a line."""
    unused: dict[str, str] = {}
    for word in words:
        for path, value in [] if word.deletes else leaves(word):
            if not _is_used(path, value, resolved):
                unused.setdefault(word.typed, _sentence(path, value, resolved))
    return unused


def leaves(word: Word) -> Iterator[tuple[str, Any]]:
    """Each single choice of a word, with its path: the name of a block stands at the path of its slot."""
    yield from _leaves(word.path, word.value)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inside in value.items():
            yield from _leaves(path if key == "name" else f"{path}.{key}", inside)
    elif path.rpartition(".")[2] == "position" and isinstance(value, list):
        for number, part in enumerate(value):
            yield from _leaves(f"{path}.parts.{number}", part)
    else:
        yield path, value


def _is_used(path: str, value: Any, resolved: Resolved) -> bool:
    if isinstance(value, Mapping) and not value and (path in SLOTS or path in RUN_LISTS):
        return False
    if path == "backend":
        return value in ("auto", None) or value in _values_of("backend", resolved.spec)
    if path.startswith("params."):
        _, name, key, *_ = [*path.split("."), ""]
        return any(_short(b["name"]) == _short(name) and key in b for b in _blocks(resolved.spec))
    slot = _slot_of(path)
    if slot is None or _made(path, resolved):
        return True
    return path.endswith(slot) and (value is None or str(value) in NO_BLOCK) and path in resolved.effective


def _sentence(path: str, value: Any, resolved: Resolved) -> str:
    slot = _slot_of(path) or path
    others = sorted(at for at in resolved.effective if at != path and at.rpartition(".")[2] == slot)
    if isinstance(value, Mapping) and not value:
        reason = "it chooses nothing"
    elif path.endswith(slot) and path not in resolved.effective and others:
        reason = f"every layer takes its {slot} from {' or '.join(others[:3])}"
    elif slot == "attention" and path not in resolved.effective:
        reason = f"no layer has {path.rpartition(slot)[0]}mixer=attention, which takes it"
    elif path.startswith("params."):
        reason = f"no block that is built is called {path.split('.')[1]}"
    else:
        reason = "no block that is built takes it"
    return f"{path}: {spelt(value)} must have an effect, but {reason}. Leave it out, or choose it where it is used."


# What stands at a path --------------------------------------------------------------------------------------------


def _slot_of(path: str) -> str | None:
    """The slot that a path is about, the whole config's or a stack's; None where it is about a setting."""
    parts = path.split(".")
    if parts[0] in SLOTS - {"model"}:
        return parts[0]
    if len(parts) > 1 and parts[1] in STACK_SLOTS and parts[0] not in (*RUN_LISTS, "model", "trainer", "params"):
        return parts[1]
    if len(parts) > 3 and parts[1] in ("variants", "layers") and parts[3] in STACK_SLOTS:
        return parts[3]
    return None


def _made(path: str, resolved: Resolved) -> list[Any]:
    """What the spec holds of a choice made at ``path``: one value for each block that took it."""
    if path in resolved.spec and _slot_of(path) is None and path not in ("model", *RUN_LISTS):
        return [resolved.spec[path]]
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        taken = resolved.taken.get(".".join(parts[:n]))
        if taken is not None:
            inside = [_walk(value, ".".join(parts[n:])) for value in taken]
            return [value for value in inside if value is not ABSENT]
    return []


def _walk(holder: Any, path: str) -> Any:
    for key in path.split(".") if path else []:
        if isinstance(holder, Mapping) and key in holder:
            holder = holder[key]
        elif isinstance(holder, list | tuple) and key.isdigit() and int(key) < len(holder):
            holder = holder[int(key)]
        else:
            return ABSENT
    return holder


def _blocks(spec: Any) -> Iterator[Mapping[str, Any]]:
    """Every block of a spec, from the outside in."""
    if isinstance(spec, Mapping):
        if "name" in spec:
            yield spec
        for value in spec.values():
            yield from _blocks(value)
    elif isinstance(spec, list | tuple):
        for value in spec:
            yield from _blocks(value)


def _values_of(choice: str, spec: Any) -> list[Any]:
    return [block[choice] for block in _blocks(spec) if choice in block]


def _names(value: Any) -> list[Any]:
    several = value if isinstance(value, list) else [] if value is None else [value]
    return [v["name"] if isinstance(v, Mapping) else v for v in several]


def _short(value: Any) -> Any:
    return value.rpartition("/")[2] if isinstance(value, str) else value


def _equal(asked: Any, made: Any) -> bool:
    """Equal up to what resolving changes: a name in full, null for none, the type of a number or a list."""
    if isinstance(asked, Mapping) and not asked:
        return made is not ABSENT
    if isinstance(asked, str) and "${" in asked:
        return True  # an interpolation: its value is known only after it was resolved
    if isinstance(made, Mapping) and "name" in made and not isinstance(asked, Mapping):
        made = made["name"]
    if isinstance(asked, list | tuple) and isinstance(made, list | tuple):
        return len(asked) == len(made) and all(_equal(a, m) for a, m in zip(asked, made, strict=True))
    if isinstance(asked, Mapping) and isinstance(made, Mapping):
        return all(key in made and _equal(value, made[key]) for key, value in asked.items())
    if asked is None:
        return made is None or _short(made) == "none"
    if isinstance(asked, str) and isinstance(made, str):
        return str(_short(asked)).lower() == str(_short(made)).lower()
    both_nan = bool(asked != asked and made != made)
    return both_nan or bool(asked == made)
