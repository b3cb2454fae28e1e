"""From the command line to jobs: the only file beside train.py that knows Hydra and OmegaConf.

Words are read, plugins imported, options made from the registry, and Hydra composes; here Hydra ends. Each job
gets a plain spec in which everything is written out, and a folder of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString, Sweep
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from registry import plugins
from registry.core import REGISTRY, Registry
from registry.errors import STOPPED, BlockwrightError, CheckpointError, ConfigError, MachineError
from registry.options import Known, Option, options
from registry.program import as_started
from registry.scan import builtin
from registry.slots import refuse_targets, trace
from registry.tables import MODEL_SLOTS, RUN_LISTS, RUN_SLOTS, STACK_SLOTS
from registry.values import guess

CONF = Path(__file__).resolve().parents[1] / "conf"
RECORD = "run.json"
"""The file in a run's folder that tells what it was."""

SHOWING = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")
"""Flags that show something instead of running anything."""

WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd")
"""Flags that are followed by a word."""


HELP = """\
Blockwright composes a sequence model from named blocks, trains it and says what it was worth.

    python train.py                                             a small decoder on real text
    python train.py attention=gqa position=alibi ffn=geglu      other blocks, by name
    python train.py model=encoder_decoder mixer=lstm decoder/cross_attention=mha
    python train.py decoder.pattern=[local,local,global] decoder.variants.local.mask=window
    python train.py plugins=[./my_block.py] attention=my_block
    python train.py -m attention=mha,gqa position=rope,alibi seed=1,2,3

    python -m registry list                     every name, by family
    python -m registry show attention/gqa       its choices, sources and cost
    python -m registry new attention my_block   a file to start from

What can be chosen (slot=name), each also for one stack (decoder/attention=gqa):

{groups}

Everything else is set by its path (decoder.n_layers=2 optimizer.lr=3e-4); --cfg job shows the whole config.
-m runs every combination of values that are separated by commas.
Tab completion: eval "$(python train.py -sc install=bash)"
"""


@dataclass(frozen=True)
class Job:
    """One run to be done.

    spec: Everything written out, in plain containers; ``registry.factory`` builds from it.
    written: The same as it may be written down: values of environment variables are named, not told.
    origins: For paths in ``spec``, where a person would change what is there; for ``registry.factory``.
    config: The config as Hydra composed it, in plain containers, interpolations unresolved.
    overrides: The words that make this job, as a person writes them.
    plugins: What has to be imported before ``spec`` means anything; files as absolute paths.
    folder: Where its files go. It exists, is empty, and is nobody else's.
    number: Which job of a sweep this is, from 0; None: there is one.
    """

    spec: dict[str, Any]
    written: dict[str, Any]
    origins: dict[str, str]
    config: dict[str, Any]
    overrides: list[str]
    plugins: list[str]
    folder: Path
    number: int | None = None

    def record(self, result: Any = None, status: int = 0, error: str = "") -> Record:
        """What came of this job."""
        return Record(self.overrides, self.folder, self.number, status, result, error)


@dataclass(frozen=True)
class Record:
    """What came of one job.

    status: 0 done, else what kind of failure (see ``registry.errors``). error: what was reported.
    result: What the job returned, for whoever compares jobs.
    """

    overrides: list[str]
    folder: Path
    number: int | None
    status: int = 0
    result: Any = None
    error: str = ""


def launch(
    job: Callable[[Job], Record],
    finish: Callable[[list[Record]], int],
    argv: Sequence[str] | None = None,
    *,
    registry: Registry = REGISTRY,
    load: Callable[[Iterable[str]], list[str]] = plugins.load,
) -> int:
    """Compose what the command line asks for and do it: one job, or with ``-m`` one after another.

    Args:
        job: Does one run. What it raises as a ``BlockwrightError`` is reported as a sentence; anything
            else is a bug and keeps its traceback.
        finish: Called with the records of a multi-run, in order; what it returns is the status.
        argv: The words behind the program's name. None: this process's.
        registry: Where names are looked up.
        load: Imports blocks and plugins into ``registry``; returns how to import the plugins again.

    Returns:
        The exit status: 0 done, 2 config, 3 data, 4 checkpoint, 5 environment, 75 stopped, 76 diverged, 1 a bug.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _Launch(job, finish, registry, load).run(words)
    except BlockwrightError as error:
        report(error)
        return error.status


def report(error: BaseException) -> None:
    """Say on stderr what has to change, a line for each thing."""
    for line in together(str(error).splitlines()):
        print(f"error: {line}", file=sys.stderr)


def together(lines: Iterable[str]) -> list[str]:
    """Lines that differ only in the layer they speak of, as one that names the layers."""
    place = re.compile(r" \((\w+)\.layers\.(\d+)(?:\.[\w.]+)?\): ")
    spoken: dict[tuple[str, str, str], list[str]] = {}
    for line in lines:
        found = place.search(line)
        key = (line[: found.start()], found[1], line[found.end() :]) if found else (line, "", "")
        spoken.setdefault(key, []).append(found[2] if found else "")
    told = []
    for (what, stack, says), layers in spoken.items():
        many = list(dict.fromkeys(layers))
        named = f"layer {many[0]}" if len(many) == 1 else f"layers {', '.join(many[:-1])} and {many[-1]}"
        told.append(f"{what} (in {named} of {stack}): {says}" if stack else what)
    return told


class _Launch:
    """One command line on its way to records."""

    def __init__(
        self,
        job: Callable[[Job], Record],
        finish: Callable[[list[Record]], int],
        registry: Registry,
        load: Callable[[Iterable[str]], list[str]],
    ) -> None:
        self.job, self.finish, self.registry, self.load = job, finish, registry, load
        self.plugins: list[str] = []
        self.records: list[Record] = []
        self.many = False

    def run(self, words: list[str]) -> int:
        flags, overrides = split_words(words)
        if any(f.partition("=")[0] in SHOWING for f in flags):  # nothing runs
            return self._show(flags, overrides)
        overrides = expand_rerun(overrides)
        if any(_key(o) == "sweep" for o in overrides):
            overrides, flags = (
                expand_sweep(overrides),
                [*flags, *(["-m"] if not {"-m", "--multirun"} & {*flags} else [])],
            )
        self.plugins = self.load(plugins_in(overrides))
        entries = [self.registry[n] for n in self.registry.names()]
        with stored(options(entries)) as groups:
            ready = prepare(overrides, groups)
            folder = reserve(Path(os.environ.get("BLOCKWRIGHT_RUNS", "runs")), _name_in(overrides))
            try:
                where = [f"hydra.run.dir={_quoted(folder)}", f"hydra.sweep.dir={_quoted(folder)}"]
                own = {o.partition("=")[0] for o in overrides}
                status = self._compose(flags, [*ready, *(w for w in where if w.partition("=")[0] not in own)])
            finally:
                sweep_up([*(r.folder for r in self.records), folder])
        if status is not None:
            return status
        return self.finish(self.records) if self.many else self.records[0].status

    def _show(self, flags: list[str], words: list[str]) -> int:
        """Help, completion, the config: from the files of our blocks, without importing them."""
        completing = any(f in ("-sc", "--shell-completion") for f in flags)
        typed = os.environ.get("COMP_LINE", "").split() if completing else words
        known: dict[str, Known] = {e.name: e for e in builtin()} if self.registry is REGISTRY else {}
        named = plugins_in([w for w in typed if w.lstrip("+").startswith("plugins=")], strict=False)
        if named:
            self.load(named)
        known |= {n: self.registry[n] for n in self.registry.names()}
        if any(f in ("-h", "--help") for f in flags):
            with stored(options(known.values())) as groups:
                print(help_text(groups), end="")
            return 0
        with stored(options(known.values(), in_full=True)) as groups:
            return self._compose(flags, words if completing else prepare(words, groups, strict=False)) or 0

    def _compose(self, flags: list[str], overrides: list[str]) -> int | None:
        """Let Hydra compose and call ``_task``. The status, if Hydra ended by itself."""
        before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
        version = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}  # deprecated from 1.4 on
        main = hydra.main(config_path=str(CONF), config_name="config", **version)(self._task)
        sys.argv = [before[0], *flags, *overrides]
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

    def _task(self, config: DictConfig) -> None:
        """One job. Never raises, so that a sweep goes on."""
        ours = HydraConfig.get()
        self.many = ours.mode == RunMode.MULTIRUN
        if self.records and self.records[-1].status == STOPPED:
            return  # whoever stopped a job meant the sweep
        number = int(ours.job.num) if self.many else None
        words = [as_written(o) for o in ours.overrides.task]
        folder = Path(ours.runtime.output_dir)
        try:
            self.records.append(self.job(self._made(config, words, folder, number)))
        except BlockwrightError as error:
            report(error)
            self.records.append(Record(words, folder, number, error.status, error=str(error)))
        except KeyboardInterrupt:
            self.records.append(Record(words, folder, number, STOPPED, error="stopped from the keyboard"))
        except Exception as error:
            traceback.print_exc()
            self.records.append(Record(words, folder, number, 1, error=f"{type(error).__name__}: {error}"))

    def _made(self, config: DictConfig, words: list[str], folder: Path, number: int | None) -> Job:
        known = [str(k) for k in OmegaConf.load(CONF / "config.yaml")]
        resolved = trace(plain(config), self.registry, known)
        as_composed: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
        spec, written = told(resolved.spec), told(resolved.spec, secrets=False)
        return Job(spec, written, resolved.origins, as_composed, words, self.plugins, folder, number)


# Words ------------------------------------------------------------------------------------------------------------


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags (with the words that belong to them) and overrides.

    Raises:
        ConfigError: A word is neither.
    """
    flags: list[str] = []
    overrides: list[str] = []
    wrong: list[str] = []
    following = iter(words)
    for word in following:
        if word.startswith("-"):
            flags.append(word)
            if word in WITH_VALUE:
                flags += [w for w in [next(following, None)] if w is not None]
        elif "=" in word or word.startswith("~") or flags[-1:] in (["--info"], ["-i"]):
            (flags if "=" not in word and not word.startswith("~") else overrides).append(word)
        else:
            wrong.append(word)
    if "--experimental-rerun" in [f.partition("=")[0] for f in flags]:
        wrong.append("--experimental-rerun")  # it unpickles a file
    if wrong:
        raise ConfigError(
            "\n".join(
                f"{w}: must be written as path=value, as in attention=gqa (with spaces in it: in quotes)."
                for w in wrong
            )
        )
    return flags, overrides


def expand_rerun(overrides: list[str]) -> list[str]:
    """Put the words of a recorded run where ``rerun=<folder>`` asks for them; what else is said here comes after.

    Raises:
        CheckpointError: There is no such run, or its record can not be read.
        ConfigError: What it recorded names Python objects.
    """
    again = [o for o in overrides if _key(o) == "rerun"]
    if not again or again[-1].partition("=")[2] in ("", "null"):
        return overrides
    folder = Path(str(parse(again[-1]).value())).expanduser()
    file = folder / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        recorded = [str(o) for o in record["overrides"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"rerun: must be the folder of a run, but {file} can not be read ({error}).") from error
    for word in recorded:
        if "_target_" in word or _key(word).startswith("hydra"):
            raise ConfigError(f"rerun: {file} must hold choices, but it holds {word!r}, which can run any program.")
    if record.get("plugins"):
        recorded = [o for o in recorded if _key(o) != "plugins"]
        recorded.append(f"plugins=[{','.join(_quoted(p) for p in record['plugins'])}]")
    said = {_key(o) for o in overrides}
    return [*(o for o in recorded if _key(o) not in said), *(o for o in overrides if _key(o) != "rerun")]


def expand_sweep(overrides: list[str]) -> list[str]:
    """Put what ``sweep=<name>`` varies, a file in ``conf/sweep`` or of one's own, before what else is said here.

    Raises:
        ConfigError: There is no such file, or it is not a mapping from paths to values.
    """
    said = {_key(o) for o in overrides}
    varied: list[str] = []
    for word in (o for o in overrides if _key(o) == "sweep"):
        name = str(parse(word).value())
        file = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else CONF / "sweep" / f"{name}.yaml"
        if not file.is_file():
            known = sorted(f.stem for f in (CONF / "sweep").glob("*.yaml"))
            raise ConfigError(f"sweep: no sweep is named {name!r}{guess(name, known)} There are: {', '.join(known)}.")
        held = OmegaConf.to_container(OmegaConf.load(file))
        if not isinstance(held, dict):
            raise ConfigError(f"sweep: {file} must be a mapping from paths to values, but holds {held!r}.")
        for path, values in held.items():
            if path not in said:
                several = values if isinstance(values, list) else [values]
                varied.append(f"{path!s}={_said(several)}")
    return [*varied, *(o for o in overrides if _key(o) != "sweep")]


def _key(override: str) -> str:
    """What an override is about, however it is written: ``+decoder/mixer=lstm`` is about ``decoder.mixer``."""
    return override.partition("=")[0].lstrip("+~").replace("/", ".")


def parse(word: str) -> Override:
    """One override as Hydra reads it.

    Raises:
        ConfigError: It can not be read.
    """
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        last = str(error).splitlines()[0]
        raise ConfigError(
            f"{word}: must be written as path=value, but it can not be read ({last}). "
            "Put quotes around a value with spaces or special signs: path='\"...\"'."
        ) from error


def plugins_in(overrides: Iterable[str], strict: bool = True) -> list[str]:
    """What ``plugins=`` names, before anything is composed."""
    found: list[str] = []
    for word in overrides:
        if _key(word) != "plugins":
            continue
        try:
            value = parse(word).value()
        except ConfigError:
            if strict:
                raise
            continue
        if isinstance(value, Sweep):
            raise ConfigError(f"{word}: must be the same in every job: plugins=[one,two], in brackets.")
        found += [str(v) for v in (value if isinstance(value, list) else [value] if value is not None else [])]
    return found


def _name_in(overrides: Iterable[str]) -> str:
    named = [o.partition("=")[2] for o in overrides if _key(o) == "name"]
    return re.sub(r"[^\w.-]+", "_", named[-1].strip("'\"")) if named and named[-1] != "null" else ""


def prepare(overrides: Iterable[str], groups: dict[str, list[str]], strict: bool = True) -> list[str]:
    """Overrides as Hydra takes them in our sense: nothing needs a plus, a name in a stack's slot is a value.

    Raises:
        ConfigError: With a line for every word that can not be read or names an option that does not exist.
    """
    parsed, problems = [], []
    for word in overrides:
        try:
            parsed.append(parse(word))
        except ConfigError as error:
            problems.append(str(error))
    said = [_key(str(o.input_line)) for o in parsed if not o.is_delete()]
    twice = dict.fromkeys(k for k in said if said.count(k) > 1)
    problems += [f"{k}: must be chosen once, but is chosen {said.count(k)} times." for k in twice]
    targets = [o.input_line for o in parsed if "_target_" in str(o.input_line)]
    problems += [f"{t}: a config must name registered blocks, but this names a Python object." for t in targets]
    keys = [_key(str(o.input_line)) for o in parsed]
    ready = []
    for override, key in zip(parsed, keys, strict=True):
        deeper = any(k.startswith(f"{key}.") for k in keys)
        try:
            ready.append(_ready(override, key, groups, deeper))
        except ConfigError as error:
            problems.append(str(error))
    if problems and strict:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return ready


def _ready(override: Override, key: str, groups: dict[str, list[str]], deeper: bool) -> str:
    word = str(override.input_line)
    if override.is_delete() or key.startswith("hydra"):
        return word
    value = override.value() if not override.is_sweep_override() else override._value
    if isinstance(value, Sweep) and not isinstance(value, ChoiceSweep):  # a range, a glob
        return word if key in groups else f"++{key}={word.partition('=')[2]}"
    values = list(value.list) if isinstance(value, ChoiceSweep) else [value]
    values = [v.text if isinstance(v, QuotedString) else v for v in values]
    group = key.replace(".", "/")
    if group not in groups and any(g.startswith(f"{group}/") for g in groups):
        raise ConfigError(f"{key}: must be set by its parts, as in {key}.n_layers=2, but got {value}.")
    if group in groups:
        values = [_option(group, v, groups[group]) for v in values]
    if key in RUN_LISTS:
        values = [_as_mapping(v) for v in values]
    if key.rpartition(".")[2] == "position":
        values = [{"name": "sum", "parts": v} if isinstance(v, list) else v for v in values]
    if key in groups and not any(isinstance(v, dict) for v in values):
        return f"{key}={_said(values)}"  # Hydra's own choice of an option
    if group in groups or deeper:
        values = [{"name": v} if isinstance(v, str) else v for v in values]
    return f"++{key}={_said(values)}"


def _said(values: list[Any]) -> str:
    return ",".join(Override._get_value_element_as_str(v) for v in values)


def _option(group: str, value: Any, known: list[str]) -> Any:
    """One choice among the options of a group.

    Raises:
        ConfigError: There is no such option.
    """
    slot, path = group.rpartition("/")[2], group.replace("/", ".")
    blocks = {**STACK_SLOTS, **MODEL_SLOTS, **RUN_SLOTS, "model": ()}
    if isinstance(value, dict) or (isinstance(value, list) and slot == "position"):
        return value
    if value is None and "none" in known:
        return "none"
    if value is None or value in known or f"{value}" in known:
        return value
    if isinstance(value, list):
        if slot not in blocks and all(v in known for v in value):
            return value  # several presets
        hint = " A pattern says which layer has which." if slot in STACK_SLOTS else ""
        raise ConfigError(f"{path}: must be one block, but got a list: {value}.{hint}")
    if slot not in blocks:
        raise ConfigError(f"{path}: no preset is named {value!r}{guess(value, known)} There are: {', '.join(known)}.")
    raise ConfigError(
        f"{path}: no block is named {value!r}{guess(value, known)} There are: {', '.join(known)}. "
        "A block of your own must be listed in plugins=[...]."
    )


def _as_mapping(value: Any) -> Any:
    """A list of names or specs as a mapping from names to choices, which can be refined by path."""
    several = value if isinstance(value, list) else [value]
    if isinstance(value, dict) or value is None:
        return value
    named = [{"name": v} if isinstance(v, str) else v for v in several]
    if not all(isinstance(v, dict) and isinstance(v.get("name"), str) for v in named):
        return value
    return {v["name"]: {k: c for k, c in v.items() if k != "name"} for v in named}


def as_written(word: str) -> str:
    """A prepared override as a person writes it."""
    override = parse(word)
    key = word.partition("=")[0].lstrip("+")
    value = override.value()
    if isinstance(value, dict) and set(value) == {"name", "parts"} and value["name"] == "sum":
        value = value["parts"]
    elif isinstance(value, dict) and set(value) == {"name"}:
        value = value["name"]
    elif isinstance(value, dict) and key in RUN_LISTS and not any(value.values()):
        value = list(value)
    elif not isinstance(value, dict):
        return f"{key}={word.partition('=')[2]}"
    return f"{key}={Override._get_value_element_as_str(value)}"


def _quoted(text: Any) -> str:
    escaped = str(text).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


# Options, folders, errors ---------------------------------------------------------------------------------------------


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
    groups: dict[str, list[str]] = {}
    for file in sorted(CONF.rglob("*.yaml")):
        if file.parent != CONF:
            groups.setdefault(str(file.parent.relative_to(CONF)), []).append(file.stem)
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
    """A section that takes any key: what is unknown in it is our business, and said in our words."""
    return DictConfig(node, flags={"struct": False})


def help_text(groups: dict[str, list[str]]) -> str:
    """What ``--help`` says."""
    rows = {group: ", ".join(sorted(names)) for group, names in groups.items() if "/" not in group}
    width = max(map(len, rows))
    lines = [textwrap.wrap(names, 110 - width) for _, names in sorted(rows.items())]
    blocks = [f"\n{' ' * (width + 4)}".join(wrapped) for wrapped in lines]
    shown = [f"  {group:{width}}  {block}" for group, block in zip(sorted(rows), blocks, strict=True)]
    return as_started(HELP).replace("{groups}", "\n".join(shown))


def reserve(runs: Path, name: str) -> Path:
    """Make a new folder for a run, named after ``name`` or the time. It is nobody else's.

    Raises:
        MachineError: Nothing can be written here.
    """
    name = name or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    count = 1
    while True:
        folder = runs.absolute() / (name if count == 1 else f"{name}-{count}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            count += 1
        except OSError as error:
            raise MachineError(
                f"a run must be able to write its folder, but {folder} can not be made: {error}."
            ) from error


def sweep_up(folders: Iterable[Path]) -> None:
    """Take away folders in which nothing was left but Hydra's note of a sweep."""
    for folder in folders:
        if not folder.is_dir() or any(f.name != "multirun.yaml" for f in folder.iterdir()):
            continue
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def in_our_words(error: BaseException) -> str:
    """Hydra's sentence without its advice, which is wrong here."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error) or type(error).__name__)
    missing = re.search(r"Could not (?:find|load) '([^']+)'", text)
    if missing:
        group, _, name = missing[1].rpartition("/")
        options_ = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        return f"{group or 'config'}: no option is named {name!r}{guess(name, options_)}"
    if several := re.search(r"Multiple values for ([\w/@.]+)", text):
        return f"{several[1]}: must be chosen once, but is chosen several times."
    lines = [ln.strip() for ln in text.splitlines() if ln.strip() and "+" not in ln and "HYDRA_FULL_ERROR" not in ln]
    return " ".join(lines) or text


# Plain containers -------------------------------------------------------------------------------------------------


class Secret(str):
    """The value of an environment variable. ``source``: how the config names it, which may be written down."""

    source: str

    def __new__(cls, value: str, source: str) -> Secret:
        made = super().__new__(cls, value)
        made.source = source
        return made

    def __repr__(self) -> str:
        return repr(self.source)

    __str__ = str.__str__


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed config in plain containers, interpolations resolved, and values of the environment marked.

    Raises:
        ConfigError: An interpolation names nothing; ``_target_`` stands somewhere.
    """
    problems: list[str] = []
    refuse_targets(OmegaConf.to_container(config), problems.append)
    made = _plain(config, "", problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return _marked(made)  # type: ignore[no-any-return]


def _plain(node: Any, path: str, problems: list[str]) -> Any:
    if isinstance(node, DictConfig):
        keys = [] if node._is_none() or node._is_missing() else list(node)
        return None if node._is_none() else {str(k): _leaf(node, k, f"{path}.{k}".lstrip("."), problems) for k in keys}
    return [_leaf(node, i, f"{path}.{i}", problems) for i in range(len(node))]


def _leaf(parent: Any, key: Any, path: str, problems: list[str]) -> Any:
    raw = parent._get_node(key)
    try:
        value = "???" if OmegaConf.is_missing(parent, key) else parent[key]
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0].partition("resolving interpolation: ")
        problems.append(f"{path}: must be a value, but {(reason[2] or reason[0]).strip(chr(34))}.")
        return None
    if isinstance(value, DictConfig | ListConfig):
        value = _plain(value, path, problems)
    if isinstance(value, str) and raw._is_interpolation():
        return Secret(value, str(raw._value()))
    return value


def _marked(made: Any) -> Any:
    """Keep the mark on what holds a value of the environment, however it got there; drop it from the rest."""
    secrets: list[str] = []

    def gather(value: Any) -> None:
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
            gather(one)
        if isinstance(value, Secret) and "oc.env" in value.source:
            secrets.append(str(value))

    def keep(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: keep(v) for k, v in value.items()}
        if isinstance(value, list):
            return [keep(v) for v in value]
        if isinstance(value, Secret) and not any(s and s in value for s in secrets):
            return str(value)
        return value

    gather(made)
    return keep(made)


def told(spec: Any, secrets: bool = True) -> Any:
    """A copy of ``spec`` in plain containers, with values of the environment or only their names."""
    if isinstance(spec, dict):
        return {k: told(v, secrets) for k, v in spec.items()}
    if isinstance(spec, list | tuple):
        return [told(v, secrets) for v in spec]
    if isinstance(spec, Secret):
        return str(spec) if secrets else spec.source
    return spec
