"""Everything that knows Hydra: its grammar of values, its store of options, its multi-runs, help and completion."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString, RangeSweep, Sweep
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from registry.compose import presets
from registry.compose.messages import in_our_words
from registry.compose.words import Several, Word, path_of, replaced
from registry.errors import ConfigError
from registry.options import Option
from registry.program import as_started
from registry.quoting import advice, spelt
from registry.values import guess

VERSION = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}
"""``version_base``, which Hydra 1.3 needs and Hydra 1.4 deprecates."""

# Values -----------------------------------------------------------------------------------------------------------


def parse(typed: str) -> Word:
    """One word, its value read by Hydra's grammar.

    Raises:
        ConfigError: It can not be read.
    """
    key, equals, text = typed.partition("=")
    path = path_of(typed)
    if not path or not all(path.split(".")):
        raise ConfigError(f"{typed}: must be written as path=value, as in attention=gqa, but it names no path.")
    if key.startswith("~"):
        if equals:
            raise ConfigError(
                f"{typed}: must be written without a value, as {key}, because it takes out whatever is there."
            )
        return Word(typed, path, deletes=True)
    try:
        override = OverridesParser.create().parse_override(f"value={text}")
        value = _values(override, text)
    except (HydraException, ValueError) as error:
        raise ConfigError(f"{typed}: must be written as path=value, but {_unreadable(path, text, error)}") from error
    if value == Several():
        raise ConfigError(f"{typed}: must stand for some value, but it stands for none.")
    return Word(typed, path, value)


def _unreadable(path: str, text: str, error: Exception) -> str:
    """Why a value can not be read, and what to do, in other words than those of Hydra's parser."""
    reason = str(error).splitlines()[0].partition(" expecting ")[0]
    if unknown := re.search(r"Unknown function '(\w+)'", reason):
        functions = create_functions().definitions
        return f"no function is named {unknown[1]!r}{guess(unknown[1], functions)} There are: {', '.join(functions)}."
    if failed := re.fullmatch(r"\w+ while evaluating '(.*)': (.*)", reason):
        return f"{failed[1]} can not be evaluated: {failed[2]}."
    quoted = f"Put quotes around a value with spaces or special signs: {advice(path, text)}."
    for left, right in ("[]", "{}", "()"):
        if text.count(left) != text.count(right):
            return f"{(left if text.count(left) > text.count(right) else right)!r} stands alone. {quoted}"
    if alone := next((quote for quote in ("'", '"') if text.count(quote) % 2), None):
        return f"the quote {alone} stands alone. {quoted}"
    if re.search(r",\s*(,|$)|^\s*,", text):
        return f"a value is missing beside a comma. {quoted}"
    return f"it can not be read ({reason}). {quoted}"


def _values(override: Override, text: str) -> Any:
    value = override._value
    if not override.is_sweep_override():
        return _plain(value)
    if isinstance(value, Glob):
        return Several(glob=(tuple(value.include), tuple(value.exclude)))
    if isinstance(value, ChoiceSweep | RangeSweep) or not isinstance(value, Sweep):
        return Several(tuple(_plain(v) for v in override.sweep_iterator()))
    return Several(open=text)


def _plain(value: Any) -> Any:
    """A parsed value without Hydra's marks for quotes."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(_plain(k)): _plain(v) for k, v in value.items()}
    return value


# Options ----------------------------------------------------------------------------------------------------------


class _Store(dict[str, Any]):
    """Options that are only read. Hydra would copy all of them for each composition, which takes most of its time."""

    def __deepcopy__(self, memo: Any) -> _Store:
        return self


@contextlib.contextmanager
def stored(made: Iterable[Option]) -> Iterator[dict[str, list[str]]]:
    """Options in Hydra's store while this lasts; gives every group with what it can be set to, presets included."""
    store = ConfigStore.instance()
    before = store.repo
    store.repo = _Store({k: v for k, v in before.items() if k in ("hydra", "_dummy_empty_config_.yaml")})
    groups = presets.groups()
    try:
        for option in made:
            package = "_global_" if option.everywhere else None
            node = {k: _open(v) for k, v in option.node.items()} if option.everywhere else _open(option.node)
            store.store(option.name, node, option.group, package, provider="registry")
            groups.setdefault(option.group, []).append(option.name)
        yield groups
    finally:
        store.repo = before


def _open(node: dict[str, Any]) -> DictConfig:
    """A section that takes any key: ``registry.slots`` reports what is unknown in it."""
    return DictConfig(node, flags={"struct": False})


def defaults() -> dict[str, Any]:
    """The config before any choice, in plain containers: ``conf/config.yaml`` with its blocks."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(presets.CONF), **VERSION):
        composed = hydra.compose("config")
    return OmegaConf.to_container(composed)  # type: ignore[return-value]


# Jobs -------------------------------------------------------------------------------------------------------------


Task = Callable[[list[str], Path, int | None], None]


def run(task: Task, flags: Sequence[str], words: Sequence[str], config: str = "jobs") -> int | None:
    """Let Hydra call ``task`` for each job, with the job's words, its folder, and its number in a multi-run.

    ``config`` is what Hydra composes for each job: ``jobs.yaml`` holds nothing but what Hydra needs of one.

    Returns:
        The status, if Hydra ended by itself; else None.

    Raises:
        ConfigError: Hydra refuses a word.
    """

    def each(_: DictConfig) -> None:
        ours = HydraConfig.get()
        number = int(ours.job.num) if ours.mode == RunMode.MULTIRUN else None
        task([str(w) for w in ours.overrides.task], Path(ours.runtime.output_dir), number)

    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    main = hydra.main(config_path=str(presets.CONF), config_name=config, **VERSION)(each)
    sys.argv = [before[0], *flags, *words]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    GlobalHydra.instance().clear()
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(in_our_words(error)) from error
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        sys.argv = before
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full
    return None


class Transport:
    """Words with several values on their way through Hydra's sweeper, which makes the words of each job.

    A value comes back as the one that went in, whatever text it holds: what Hydra might read in another way is sent
    by its number.
    """

    def __init__(self, words: Iterable[Word]) -> None:
        several = [w for w in words if isinstance(w.value, Several)]
        self.words = {_key(w.path, n): w for n, w in enumerate(several)}

    def sent(self) -> list[str]:
        """The words as Hydra takes them."""
        return [f"++{key}={_carried(word.value)}" for key, word in self.words.items()]

    def received(self, words: Iterable[str]) -> dict[str, Word]:
        """What the words of one job choose, by path."""
        chosen = [self._word(*word.lstrip("+").split("=", 1)) for word in words if word.lstrip("+").startswith(SWEPT)]
        return {word.path: word for word in chosen}

    def _word(self, key: str, text: str) -> Word:
        word, value = self.words[key], parse(f"value={text}").value
        by_number = re.fullmatch(r"value-(\d+)", value) if isinstance(value, str) else None
        return replaced(word, word.value.values[int(by_number[1])] if by_number else value)


SWEPT = "swept."
"""The section in which Hydra keeps the values of a multi-run; nothing else reads it."""


def _carried(several: Several) -> str:
    """The values as Hydra takes them: numbers and plain names as they are, so that a sweeper can show them."""
    if several.open is not None:
        return several.open
    return ",".join(
        str(v).lower() if isinstance(v, bool) else str(v) if _safe(v) else f"value-{n}"
        for n, v in enumerate(several.values)
    )


def _safe(value: Any) -> bool:
    if isinstance(value, str):
        return spelt(value) == value and value.isidentifier()
    return isinstance(value, int | float)


def _key(path: str, number: int) -> str:
    """The path as a key that Hydra can read: one key for each word, whatever signs the path holds."""
    flat = path.replace(".", "-")
    return f"{SWEPT}{flat}" if re.fullmatch(r"[A-Za-z_][\w-]*", flat, re.ASCII) else f"{SWEPT}word-{number}"


# Help, completion, the config -------------------------------------------------------------------------------------


def show(flags: Sequence[str], words: Sequence[str]) -> int:
    """What Hydra shows by itself: completion, ``--info``, its own help."""
    try:
        return run(lambda *_: None, flags, words, "config") or 0
    except ConfigError:
        raise
    except (ValueError, KeyError, AssertionError, NotImplementedError, ImportError) as error:
        raise ConfigError(f"{' '.join([*flags, *words])}: must be something that can be shown, but {error}.") from error


def complete(flags: Sequence[str], words: Sequence[str]) -> int:
    """Complete the word that is being typed; behind a comma, its last value."""
    line = os.environ.get("COMP_LINE", "")
    typed = line.rpartition(" ")[2]
    done, comma, last = typed.rpartition(",")
    if not comma or "=" not in done or done.count("[") > done.count("]"):
        return show(flags, words)
    path = done.partition("=")[0]
    os.environ["COMP_LINE"] = f"{line[: len(line) - len(typed)]}{path}={last}"
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            status = show(flags, words)
    finally:
        os.environ["COMP_LINE"] = line
    chosen = done.partition("=")[2].split(",")
    for found in said.getvalue().split():
        name = found.partition("=")[2]
        if name and name not in chosen:
            print(f"{done},{name}")
    return status


HELP = """\
Blockwright composes a sequence model from named blocks, trains it and reports what it was worth.

    python train.py                                             a small decoder on real text
    python train.py attention=gqa position=alibi ffn=geglu      other blocks, by name
    python train.py model=encoder_decoder mixer=lstm decoder/cross_attention=mha
    python train.py decoder.pattern=[local,local,global] decoder.variants.local.mask=window
    python train.py plugins=[./my_block.py] attention=my_block
    python train.py experiment=./mine.yaml attention=mha        a preset of your own, and what it does not decide
    python train.py -m attention=mha,gqa position=rope,alibi seed=1,2,3
    python train.py -m 'norm=glob(*,exclude=none)'              every norm but one

    python -m registry list                     every name, by family
    python -m registry show attention/gqa       its choices, sources and cost
    python -m registry new attention my_block   a file to start from

What can be chosen (slot=name), each also for one stack (decoder/attention=gqa):

{groups}

Everything else is set by its path (decoder.n_layers=2 optimizer.lr=3e-4); --cfg job shows the whole config.
-m runs every combination of values that are separated by commas.
Tab completion: eval "$(python train.py -sc install=bash)"
"""


def help_text(groups: dict[str, list[str]]) -> str:
    """What ``--help`` prints."""
    rows = {group: ", ".join(sorted(names)) for group, names in groups.items() if "/" not in group}
    width = max(map(len, rows))
    lines = [textwrap.wrap(names, 110 - width) for _, names in sorted(rows.items())]
    blocks = [f"\n{' ' * (width + 4)}".join(wrapped) for wrapped in lines]
    shown = [f"  {group:{width}}  {block}" for group, block in zip(sorted(rows), blocks, strict=True)]
    return as_started(HELP).replace("{groups}", "\n".join(shown))
