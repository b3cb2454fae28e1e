"""From the words of a command line to jobs, and from jobs to records: the story of one command.

Words are parsed, plugins imported, options made from the registry; levels are put one above the other and resolved to
a spec; the spec is compared with the words. Each job gets a spec in which everything is written out, and a folder.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from registry import plugins
from registry.compose import asked, hydra, presets
from registry.compose.folders import reserve, sweep_up
from registry.compose.levels import Levels, words_above
from registry.compose.messages import report
from registry.compose.values import interpolated, read_yaml, revealed, to_yaml
from registry.compose.words import SHOWING, Several, Word, path_of, python_objects, single, split_words, twice
from registry.core import REGISTRY, Registry
from registry.errors import STOPPED, BlockwrightError, CheckpointError, ConfigError
from registry.options import Known, options, shown_in_full
from registry.quoting import spelt
from registry.scan import builtin
from registry.slots import Resolved, trace
from registry.tables import MODEL_SLOTS, RUN_SLOTS, STACK_SLOTS

RECORD = "run.json"
"""The file in a run's folder that describes it."""

CONFIG = presets.CONF / "config.yaml"


@dataclass(frozen=True)
class Job:
    """One run to be done.

    spec: Everything written out, in plain containers; ``registry.factory`` builds from it.
    written: The same as it may be written down: values of environment variables are named, not shown.
    origins: For paths in ``spec``, where a person would change what is there; for ``registry.factory``.
    config: The config as it was composed, in plain containers, interpolations unresolved.
    overrides: The words that make this job, as a person writes them.
    plugins: What has to be imported before ``spec`` means anything; files as absolute paths.
    folder: Where its files go. It exists, is empty, and no other job has it.
    number: Which job of a multi-run this is, from 0; None: there is one.
    unused: Words that have no effect in this job, each with the reason; only a multi-run has them.
    """

    spec: dict[str, Any]
    written: dict[str, Any]
    origins: dict[str, str]
    config: dict[str, Any]
    overrides: list[str]
    plugins: list[str]
    folder: Path
    number: int | None = None
    unused: dict[str, str] = field(default_factory=dict)

    def record(self, result: Any = None, status: int = 0, error: str = "") -> Record:
        """What came of this job."""
        return Record(self.overrides, self.folder, self.number, status, result, error, unused=self.unused)


@dataclass(frozen=True)
class Record:
    """What came of one job.

    status: 0 done, else what kind of failure (see ``registry.errors``). error: what was reported.
    result: What the job returned, for the table of a multi-run.
    same: Words of other jobs with the same spec, which were not run again.
    unused: Words that have no effect in this job, each with the reason.
    """

    overrides: list[str]
    folder: Path
    number: int | None
    status: int = 0
    result: Any = None
    error: str = ""
    same: tuple[list[str], ...] = ()
    unused: dict[str, str] = field(default_factory=dict)


def launch(
    job: Callable[[Job], Record],
    finish: Callable[[list[Record]], int],
    argv: Sequence[str] | None = None,
    *,
    registry: Registry = REGISTRY,
    load: Callable[[Iterable[str]], list[str]] = plugins.load,
    check: Callable[[Mapping[str, Any]], Iterable[str]] = lambda config: (),
) -> int:
    """Compose what the command line asks for and do it: one job, or with ``-m`` one after another.

    Args:
        job: Does one run. What it raises as a ``BlockwrightError`` is reported as a sentence; anything
            else is a bug and keeps its traceback.
        finish: Called with the records of a multi-run, in order; what it returns is the status.
        argv: The words behind the program's name. None: this process's.
        registry: Where names are looked up.
        load: Imports blocks and plugins into ``registry``; returns how to import the plugins again.
        check: Finds what else is wrong with a config that is refused, so that one report has all of it.

    Returns:
        The exit status: 0 done, 2 config, 3 data, 4 checkpoint, 5 environment, 75 stopped, 76 diverged, 1 a bug.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _Launch(job, finish, registry, load, check).run(words)
    except BlockwrightError as error:
        report(error)
        return error.status


class _Launch:
    """One command line on its way to records."""

    def __init__(
        self,
        job: Callable[[Job], Record],
        finish: Callable[[list[Record]], int],
        registry: Registry,
        load: Callable[[Iterable[str]], list[str]],
        check: Callable[[Mapping[str, Any]], Iterable[str]],
    ) -> None:
        self.job, self.finish, self.registry, self.load, self.check = job, finish, registry, load, check
        self.plugins: list[str] = []
        self.records: list[Record] = []
        self.specs: list[str] = []
        self.base: dict[str, Any] = {}
        self.words: list[Word] = []
        self.many = False

    def run(self, typed: list[str]) -> int:
        flags, choices = split_words(typed)
        if any(f.partition("=")[0] in SHOWING for f in flags):  # nothing runs
            return self._show(flags, choices)
        words, problems = read(choices)
        self.many = bool({"-m", "--multirun"} & {*flags}) or any(
            w.path == "sweep" or (w.path, str(w.value).upper()) == ("hydra.mode", "MULTIRUN") for w in words
        )
        words = expand_sweep(self._expand_rerun(words))
        self.plugins = self.load(plugins_in(words))
        entries = [self.registry[n] for n in self.registry.names()]
        with hydra.stored(options(entries)) as groups:
            self.base = hydra.defaults()
            self.words = [globbed(w, groups) for w in words]
            self._refuse([*problems, *self._misspelt(groups)])
            return self._jobs(flags)

    def _jobs(self, flags: Sequence[str]) -> int:
        sent = hydra.Transport(w for w in self.words if w.ours)
        folder = reserve(Path(os.environ.get("BLOCKWRIGHT_RUNS", "runs")), _name_in(self.words))
        theirs = [w.typed for w in self.words if not w.ours]
        own = {path_of(w) for w in theirs}
        where = [f"hydra.{kind}.dir={spelt(str(folder))}" for kind in ("run", "sweep")]
        more = [w for w in where if path_of(w) not in own]
        multirun = ["-m"] if self.many and not {"-m", "--multirun"} & {*flags} else []

        def task(words: list[str], folder: Path, number: int | None) -> None:
            chosen = sent.received(words)
            self._task([chosen.get(w.path, w) for w in self.words if w.ours], folder, number)

        try:
            status = hydra.run(task, [*flags, *multirun], [*sent.sent(), *theirs, *more])
        finally:
            sweep_up([*(r.folder for r in self.records), folder])
        if status is not None:
            return status
        return self.finish(self.records) if self.many else self.records[0].status

    def _task(self, words: list[Word], folder: Path, number: int | None) -> None:
        """One job. Never raises, so that a multi-run goes on."""
        typed = [w.typed for w in words]
        if self.records and self.records[-1].status == STOPPED:  # whoever stopped a job stopped the multi-run
            self.records.append(Record(typed, folder, number, STOPPED, error="it did not begin"))
            return
        try:
            job = self._made(words, folder, number)
            if not self._is_known(job):
                self.records.append(self.job(job))
        except BlockwrightError as error:
            report(error)
            self.records.append(Record(typed, folder, number, error.status, error=str(error)))
        except KeyboardInterrupt:
            self.records.append(Record(typed, folder, number, STOPPED, error="stopped from the keyboard"))
        except Exception as error:
            traceback.print_exc()
            self.records.append(Record(typed, folder, number, 1, error=f"{type(error).__name__}: {error}"))
        while len(self.specs) < len(self.records):
            self.specs.append("")  # a job that ended before it had a spec

    def _is_known(self, job: Job) -> bool:
        """Another job of this multi-run had the same spec: its record takes the words of both, and nothing runs."""
        spec = json.dumps({k: v for k, v in job.spec.items() if k != "name"}, sort_keys=True, default=repr)
        if spec in self.specs:
            first = self.specs.index(spec)
            self.records[first] = replace(self.records[first], same=(*self.records[first].same, job.overrides))
            sweep_up([job.folder])
            return True
        self.specs.append(spec)
        return False

    # From words to a spec -----------------------------------------------------------------------------------------

    def _refuse(self, problems: list[str]) -> None:
        """Report everything that is wrong with the words at once, and with what they compose in a single run."""
        problems = [*problems, *twice(self.words), *single(self.words, self.many), *python_objects(self.words)]
        if not problems:
            return
        known = {path_of(p.partition(":")[0]) for p in problems}
        if not self.many and not known & {*presets.groups(), "model"}:
            sound = [w for w in self.words if w.ours and not isinstance(w.value, Several) and w.path not in known]
            try:
                config, _ = self._resolved(sound)
                problems += self.check(interpolated(config))
            except ConfigError as error:
                problems += [line for line in str(error).splitlines() if line.partition(":")[0] not in known]
        raise ConfigError("\n".join(dict.fromkeys(problems)))

    def _misspelt(self, groups: Mapping[str, Sequence[str]]) -> list[str]:
        """Names in a multi-run that no group has, so that no job starts before a typing mistake is found."""
        wrong = []
        for word in self.words if self.many else []:
            known = groups.get(word.path.replace(".", "/"))
            for value in word.value.values if known and isinstance(word.value, Several) else ():
                try:
                    self._name(word.path, value)
                except ConfigError as error:
                    wrong.append(str(error))
        return wrong

    def _name(self, path: str, value: Any) -> None:
        slot = path.rpartition(".")[2]
        families = {**STACK_SLOTS, **MODEL_SLOTS, **RUN_SLOTS, "model": ("model",)}.get(slot)
        if not isinstance(value, str) or presets.is_file(value):
            return
        if families is None:
            presets.find(slot, value)
        elif value not in ("auto", "none", "attention"):
            self.registry.find(value, families, path)

    def _composed(self, words: Iterable[Word]) -> dict[str, Any]:
        """All levels in one: the defaults, presets in the order of ``conf/config.yaml``, then the words."""
        words, levels = list(words), Levels(self.base, self.registry)
        chosen = {w.path: w.value for w in words if names_preset(w)}
        below = [w.path for w in words if w.path.partition(".")[0] in preset_groups() and not names_preset(w)]
        if below:
            raise ConfigError("\n".join(map(presets.has_no_values, below)))
        for group in ("model", *preset_groups()):
            for level in presets.read(group, chosen.get(group)):
                levels.add(level)
        problems = words_above(levels, [w for w in words if not names_preset(w)])
        if problems:
            raise ConfigError("\n".join(problems))
        levels.sections()
        return levels.config

    def _resolved(self, words: Iterable[Word]) -> tuple[dict[str, Any], Resolved]:
        config = self._composed(words)
        values = interpolated(config)
        try:
            return config, trace(values, self.registry, list(self.base))
        except ConfigError as error:
            raise ConfigError("\n".join([str(error), *self.check(values)])) from error

    def _made(self, words: list[Word], folder: Path, number: int | None) -> Job:
        config, resolved = self._resolved(words)
        compared = [w for w in words if not names_preset(w)]
        wrong = asked.differences(compared, config, resolved)
        unused = asked.without_effect(compared, resolved)
        if wrong or (unused and not self.many):
            raise ConfigError("\n".join([*wrong, *(unused.values() if not self.many else [])]))
        spec, written = revealed(resolved.spec), revealed(resolved.spec, secrets=False)
        typed = [recorded(w) for w in words]
        return Job(spec, written, resolved.origins, config, typed, self.plugins, folder, number, unused)

    def _expand_rerun(self, words: list[Word]) -> list[Word]:
        """Put the words of a recorded run where ``rerun=<folder>`` asks for them; the other words come after.

        Raises:
            CheckpointError: There is no such run, or its record can not be read.
            ConfigError: What it recorded names Python objects.
        """
        again = [w for w in words if w.path == "rerun"]
        if not again or again[-1].value is None:
            return words
        if again[-1].value == "":
            raise ConfigError("rerun: must be the folder of a run, but got ''.")
        if isinstance(again[-1].value, Several):
            raise ConfigError(f"{again[-1].typed}: must name one run in every job.")
        folder = Path(str(again[-1].value)).expanduser()
        before = recorded_words(folder)
        words = [w for w in words if w.path != "rerun"]
        return [*(w for w in before if not _replaced(w, before, words)), *words]

    # What shows something ----------------------------------------------------------------------------------------

    def _show(self, flags: list[str], typed: list[str]) -> int:
        """Help, completion, the config: from the files of our blocks, without importing them."""
        if "--version" in flags:
            print(versions())
            return 0
        completing = any(f in ("-sc", "--shell-completion") for f in flags)
        line = os.environ.get("COMP_LINE", "").split() if completing else typed
        known: dict[str, Known] = {e.name: e for e in builtin()} if self.registry is REGISTRY else {}
        named = plugins_in(read([w for w in line if path_of(w) == "plugins"])[0])
        if named:
            self.load(named)
        known |= {n: self.registry[n] for n in self.registry.names()}
        if any(f in ("-h", "--help") for f in flags):
            with hydra.stored(options(known.values())) as groups:
                print(hydra.help_text(groups), end="")
            return 0
        if completing:
            return self._complete(flags, typed, known)
        if flags[:2] in (["--cfg", "job"], ["-c", "job"], ["--cfg=job"]) and len(flags) <= 2:
            return self._show_config(typed)
        with hydra.stored(options(known.values(), in_full=True)):
            return hydra.show(flags, [w.typed for w in read(typed)[0] if not w.ours])

    def _complete(self, flags: list[str], typed: list[str], known: Mapping[str, Known]) -> int:
        shells = ("bash", "fish", "zsh")
        if not typed:
            raise ConfigError(
                f"-sc: must be followed by install, uninstall or query of one of {', '.join(shells)}, as in "
                "-sc install=bash, but nothing follows."
            )
        for word in typed:
            if word.partition("=")[2] not in shells:
                raise ConfigError(
                    f"-sc {word}: must be install, uninstall or query of one of {', '.join(shells)}, as in "
                    f"-sc install=bash, but got {word.partition('=')[2]!r}."
                )
        with hydra.stored(options(known.values(), in_full=True)):
            return hydra.complete(flags, typed)

    def _show_config(self, typed: list[str]) -> int:
        """The whole config as a job would get it, with every choice of every block in it."""
        words, problems = read(typed)
        words = expand_sweep(self._expand_rerun(words))
        self.plugins = self.load(plugins_in(words))
        entries = [self.registry[n] for n in self.registry.names()]
        with hydra.stored(options(entries)):
            self.base, self.words = hydra.defaults(), words
            self._refuse(problems)
            ours = [w for w in words if w.ours]
            print(to_yaml(shown_in_full(self._composed(ours), entries)), end="")
            if not any(isinstance(w.value, Several) for w in ours):
                self._resolved(ours)  # what is wrong is reported below the config
        return 0


# Words ------------------------------------------------------------------------------------------------------------


def read(typed: Iterable[str]) -> tuple[list[Word], list[str]]:
    """Each word parsed, and a line for each that can not be read."""
    words, problems = [], []
    for one in typed:
        try:
            words.append(hydra.parse(one))
        except ConfigError as error:
            problems.append(str(error))
    return words, problems


@functools.cache
def preset_groups() -> tuple[str, ...]:
    """The groups of presets of one run, in the order in which they stand above each other."""
    entries = read_yaml(CONFIG)["defaults"]
    listed = [key for entry in entries if isinstance(entry, Mapping) for key in entry]
    return tuple(key for key in listed if key in presets.groups())


def names_preset(word: Word) -> bool:
    """It chooses presets, not a value: a group of presets, or a model by a file."""
    return word.path in preset_groups() or (word.path == "model" and presets.is_file(word.value))


def recorded(word: Word) -> str:
    """A word as it is recorded: a preset of one's own by its whole path, so that it is found from any folder."""
    if not names_preset(word) or not presets.is_file(word.value):
        return word.typed
    return f"{word.path}={spelt(str(Path(word.value).expanduser().absolute()))}"


def recorded_words(folder: Path) -> list[Word]:
    """The words of a recorded run, its plugins among them.

    Raises:
        CheckpointError: There is no such run, or its record can not be read.
        ConfigError: What it recorded names Python objects.
    """
    if folder.is_file():
        raise CheckpointError(f"rerun: must be the folder of a run, but {folder} is a file.")
    file = folder / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise CheckpointError(f"rerun: must be the folder of a run, but {file} can not be read ({reason}).") from error
    if not isinstance(record, Mapping) or not isinstance(record.get("overrides"), list):
        raise CheckpointError(f"rerun: {file} must be the record of a run, but it holds no list 'overrides'.")
    typed = [str(o) for o in record["overrides"]]
    words, problems = read(typed)
    for word in words:
        if python_objects([word]) or not word.ours:
            what = f"{word.typed!r}, which can run any program"
            raise ConfigError(f"rerun: {file} must hold choices, but it holds {what}.")
    if problems:
        raise CheckpointError(f"rerun: {file} must hold choices, but it holds {problems[0]}")
    if record.get("plugins"):
        named = [str(p) for p in record["plugins"]]
        words = [*(w for w in words if w.path != "plugins"), Word(f"plugins={spelt(named)}", "plugins", named)]
    sources = record.get("plugin_sources") or {}
    for line in plugins.changed(sources, plugins.on_disk(sources)):
        print(line, file=sys.stderr)
    return words


def _replaced(word: Word, recorded: Sequence[Word], words: Sequence[Word]) -> bool:
    """A recorded word that new words replace: they choose the same, or another block than the one it is about."""
    for new in words:
        if new.path == word.path:
            return True
        if word.path.startswith(f"{new.path}.") and isinstance(new.value, str):
            named = next((w.value for w in recorded if w.path == new.path), None)
            if named is not None and named != new.value:
                return True
    return False


def expand_sweep(words: list[Word]) -> list[Word]:
    """Put what ``sweep=<name>`` varies, a file in ``conf/sweep`` or of one's own, before the other words.

    Raises:
        ConfigError: There is no such file, or it is not a mapping from paths to values.
    """
    chosen = {w.path for w in words}
    varied: list[Word] = []
    for word in (w for w in words if w.path == "sweep"):
        if isinstance(word.value, Several):
            raise ConfigError(f"{word.typed}: must name one sweep, or a list of several: sweep=[one,./two.yaml].")
        for level in presets.read("sweep", word.value):
            for path, values in level.items():
                if path_of(path) not in chosen:
                    several = values if isinstance(values, list) else [values]
                    value = Several(tuple(several)) if isinstance(values, list) else values
                    varied.append(Word(f"{path}={','.join(map(spelt, several))}", path_of(path), value))
    return [*varied, *(w for w in words if w.path != "sweep")]


def globbed(word: Word, groups: Mapping[str, Sequence[str]]) -> Word:
    """``norm=glob(*)`` as the names that it stands for.

    Raises:
        ConfigError: It stands for none.
    """
    if not isinstance(word.value, Several) or word.value.glob is None:
        return word
    include, exclude = word.value.glob
    known = sorted(groups.get(word.path.replace(".", "/"), []))
    if not known:
        raise ConfigError(f"{word.path}: glob must stand for names of blocks or presets, but {word.path!r} takes none.")

    def matches(name: str, patterns: Iterable[str]) -> bool:
        return any(re.fullmatch(re.escape(p).replace(r"\*", ".*").replace(r"\?", "."), name) for p in patterns)

    found = [n for n in known if matches(n, include) and not matches(n, exclude)]
    if not found:
        raise ConfigError(
            f"{word.path}: {word.typed} must stand for some name, but none is like it. There are: {', '.join(known)}."
        )
    return replace(word, value=Several(tuple(found)))


def plugins_in(words: Sequence[Word]) -> list[str]:
    """What ``plugins=`` names, before anything is composed; if no word says it, what presets name.

    Raises:
        ConfigError: It would vary within a multi-run.
    """
    found: list[str] = []
    if "plugins" not in [w.path for w in words]:
        for word in words:
            if word.path in ("model", *preset_groups()):
                found += _plugins_of_preset(word)
    for word in words:
        if word.path == "plugins":
            if isinstance(word.value, Several):
                raise ConfigError(f"{word.typed}: must be the same in every job: plugins=[one,two], in brackets.")
            found += [str(v) for v in (word.value if isinstance(word.value, list) else [word.value]) if v is not None]
    return found


def _plugins_of_preset(word: Word) -> list[str]:
    """What the last level of a preset names; of each preset, if several are tried."""
    found: list[str] = []
    for chosen in word.value.values if isinstance(word.value, Several) else [word.value]:
        named: Any = None
        with contextlib.suppress(ConfigError):  # a preset that is not there is reported with everything else
            for level in presets.read(word.path, chosen if names_preset(replace(word, value=chosen)) else None):
                named = level.get("plugins", named)
        found += [str(n) for n in (named if isinstance(named, list) else [named]) if n is not None]
    return list(dict.fromkeys(found))


def _name_in(words: Iterable[Word]) -> str:
    """The name of a run's folder; signs that not every file system takes become underscores."""
    named = [w.value for w in words if w.path == "name" and isinstance(w.value, str)]
    return re.sub(r"[^\w.-]+", "_", named[-1]) if named else ""


def versions() -> str:
    """The versions of this program and of what it stands on."""
    names = ("blockwright", "torch", "lightning", "hydra-core", "omegaconf")
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} (not installed)")
    return f"{found[0]} ({', '.join([*found[1:], 'python ' + sys.version.split()[0]])})"
