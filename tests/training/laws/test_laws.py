"""Every name that trains a model keeps the laws of its family; each of the broken blocks here is named by its law."""

import dataclasses
import json
import math

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import Logger

from blocks.contracts import IGNORE, Layout
from blocks.laws.check import held
from blocks.laws.effects import silent
from registry import REGISTRY, factory
from registry.errors import MachineError
from registry.plugins import load_builtin
from training.batch import Batch
from training.contracts import Objective, Optimizer, Schedule, Tokenizer
from training.data.loader import Fixed, Loader
from training.laws import BENCH, Source, Writer, laws_of
from training.laws.cases import SURROUNDINGS
from training.laws.effects import observe
from training.laws.trying import own_cache, trained
from training.optimizer.groups import decay_groups

load_builtin()
NAMES = REGISTRY.names(*SURROUNDINGS)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_keeps_the_laws_of_its_family(name):
    tried, refusals = 0, []
    for case in BENCH.cases(name):
        try:
            block = case.make()
        except ValueError as refusal:
            if isinstance(refusal.__cause__ or refusal, MachineError):
                pytest.skip(str(refusal))
            refusals.append(str(refusal))
            continue
        laws = laws_of(block)
        assert laws
        broken = [v for law in laws if not (v := held(law, block)).ok]
        assert not broken
        tried += 1
    assert tried
    assert all(refusal.endswith(".") for refusal in refusals)


@pytest.mark.parametrize("name", [name for name in NAMES if REGISTRY[name].choices])
def test_every_choice_has_an_effect(name):
    assert list(silent(name, BENCH.cases, observe)) == []


def test_every_family_has_laws():
    without = {name for name in REGISTRY.names() if not any(True for _ in BENCH.cases(name))}
    assert not without


def broken_by(block):
    """The names of the laws that a block breaks."""
    return {law.__name__ for law in laws_of(block) if not held(law, block).ok}


# Tokenizers ----------------------------------------------------------------------------------------------------------


class Bytes(Tokenizer):
    """Bytes, with one thing to break."""

    text_ids = range(4, 260)

    def encode(self, text):
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) + 4

    def decode(self, ids):
        return bytes(int(i) - 4 for i in ids if int(i) in self.text_ids).decode(errors="replace")

    def n_bytes(self, ids):
        return int(((ids >= 4) & (ids < 260)).sum())


class Lower(Bytes):
    """Loses what is written large."""

    def encode(self, text):
        return super().encode(text.lower())


class CountsCharacters(Bytes):
    """Counts characters for bytes."""

    def n_bytes(self, ids):
        return len(self.decode(ids))


class Shifted(Bytes):
    """Uses special ids for text."""

    def encode(self, text):
        return super().encode(text) - 3


class Forgets(Bytes):
    """Learns an offset, and leaves it out of its state."""

    offset = 0

    def train(self, texts):
        self.offset = 7

    def encode(self, text):
        return (super().encode(text) - 4 + self.offset) % 256 + 4

    def decode(self, ids):
        return super().decode((int(i) - 4 - self.offset) % 256 + 4 for i in ids if int(i) in self.text_ids)


class Numpy(Bytes):
    """Keeps what JSON can not."""

    def state(self):
        return {"table": np.arange(3)}


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (Lower, "says_text_back"),
        (CountsCharacters, "counts_bytes"),
        (Shifted, "keeps_ids_in_range"),
        (Forgets, "survives_its_state"),
        (Numpy, "survives_its_state"),
    ],
)
def test_a_broken_tokenizer_is_named(kind, law):
    assert not broken_by(Bytes())
    assert law in broken_by(kind())


# Objectives ----------------------------------------------------------------------------------------------------------


class Next(Objective):
    """The next token, with one thing to break."""

    def window(self, length):
        return length + 1

    def batch(self, examples, rng):
        tokens = np.stack([e.tokens for e in examples])
        document = None if examples[0].document is None else np.stack([e.document for e in examples])
        return self.made(tokens, document, rng)

    def made(self, tokens, document, rng):
        inputs, targets = tokens[:, :-1], tokens[:, 1:].copy()
        if document is not None:
            targets[document[:, 1:] != document[:, :-1]] = IGNORE
        return self.laid_out(inputs, targets, None if document is None else document[:, :-1])

    def laid_out(self, tokens, targets, document):
        tokens, targets = torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(targets.astype(np.int64))
        layout = Layout.full(*tokens.shape) if document is None else Layout.packed(torch.from_numpy(document).long())
        return Batch(tokens, targets, layout)

    def prompt(self, text):
        raise ValueError("a prompt must be made by another.")


class Unshifted(Next):
    """Asks for the token that is read."""

    def made(self, tokens, document, rng):
        return self.laid_out(tokens[:, :-1], tokens[:, :-1], None if document is None else document[:, :-1])


class Ahead(Next):
    """Puts the answers behind a mask that is not there: half of the inputs are the next token."""

    def made(self, tokens, document, rng):
        batch = super().made(tokens, document, rng)
        inputs = batch.tokens.clone()
        inputs[:, ::2] = torch.from_numpy(tokens[:, 1:][:, ::2].astype(np.int64))
        return batch._replace(tokens=inputs)


class Across(Next):
    """Asks for the first token of the next document."""

    def made(self, tokens, document, rng):
        return self.laid_out(tokens[:, :-1], tokens[:, 1:], None if document is None else document[:, :-1])


class Restless(Next):
    """Draws from the global generator."""

    def made(self, tokens, document, rng):
        batch = super().made(tokens, document, rng)
        batch.targets[np.random.random(batch.targets.shape) < 0.5] = IGNORE
        return batch


class AsksNothing(Next):
    """Ignores every target."""

    def made(self, tokens, document, rng):
        batch = super().made(tokens, document, rng)
        return batch._replace(targets=torch.full_like(batch.targets, IGNORE))


class CountsIgnored(Next):
    """Divides by all targets, also by those that are ignored."""

    def loss(self, model, batch):
        loss, log = super().loss(model, batch)
        return loss * batch.n_targets / batch.targets.numel(), log


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (Unshifted, "hides_its_answers"),
        (Ahead, "hides_its_answers"),
        (Across, "keeps_documents_apart"),
        (Restless, "draws_from_its_generator"),
        (AsksNothing, "makes_batches"),
        (CountsIgnored, "averages_over_its_targets"),
    ],
)
def test_a_broken_objective_is_named(kind, law):
    facts = trained(factory("tokenizer/byte")()), 32, "decoder", "text"
    assert not broken_by(Next(*facts))
    assert law in broken_by(kind(*facts))


def test_more_shown_than_declared_is_named():
    facts = trained(factory("tokenizer/byte")()), 32, "encoder", "text"
    objective = factory("objective/masked_token")(*facts)
    assert "hides_its_answers" not in broken_by(objective)
    objective.shown = 0.0
    assert "hides_its_answers" in broken_by(objective)


# Optimizers ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Sgd(Optimizer):
    """Plain descent with decay, over groups that a test makes."""

    groups: object

    def __call__(self, model):
        return torch.optim.SGD(self.groups(model), lr=0.1, momentum=0.5)


def right(model):
    return decay_groups(model, 0.1)


def everything_decays(model):
    return [{"params": [p for p in model.parameters() if p.requires_grad], "weight_decay": 0.1}]


def one_is_left_out(model):
    return [{**group, "params": group["params"][1:]} for group in decay_groups(model, 0.1)]


def frozen_too(model):
    return [{"params": list(model.parameters()), "weight_decay": 0.0}]


class Stubborn(torch.optim.SGD):
    """Steps at a rate of its own."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.1
        return super().step(closure)


class Uphill(torch.optim.SGD):
    """Climbs."""

    def __init__(self, params):
        super().__init__(params, lr=0.1, maximize=True)


class Amnesiac(torch.optim.SGD):
    """Forgets its momentum when it is loaded."""

    def load_state_dict(self, state_dict):
        super().load_state_dict({**state_dict, "state": {}})


@dataclasses.dataclass
class With(Optimizer):
    """Another class of torch's."""

    kind: type

    def __call__(self, model):
        made = self.kind(right(model), **({} if self.kind is Uphill else {"lr": 0.1, "momentum": 0.5}))
        return made


@pytest.mark.parametrize(
    ("optimizer", "law"),
    [
        (Sgd(everything_decays), "decays_only_what_it_may"),
        (Sgd(one_is_left_out), "takes_every_parameter_once"),
        (Sgd(one_is_left_out), "moves_every_parameter"),
        (Sgd(frozen_too), "takes_every_parameter_once"),
        (With(Stubborn), "follows_its_learning_rate"),
        (With(Uphill), "moves_every_parameter"),
        (With(Amnesiac), "resumes_from_its_state"),
    ],
)
def test_a_broken_optimizer_is_named(optimizer, law):
    assert not broken_by(Sgd(right))
    assert law in broken_by(optimizer)


# Schedules -----------------------------------------------------------------------------------------------------------


class Falls(Schedule):
    """A straight line down."""

    def __call__(self, step):
        return max(0.01, 1 - step / self.max_steps)


class Steps(Falls):
    """A tenth from the middle on."""

    def __call__(self, step):
        return 1.0 if step < self.max_steps / 2 else 0.1


class DeclaredSteps(Steps):
    """The same, and says so."""

    jumps = True


class Above(Falls):
    """Begins above 1."""

    def __call__(self, step):
        return 2 * super().__call__(step)


class Below(Falls):
    """Goes on below 0 beyond the end."""

    def __call__(self, step):
        return 1 - step / self.max_steps


class Half(Falls):
    """Never reaches the learning rate."""

    def __call__(self, step):
        return super().__call__(step) / 2


class Waits(Falls):
    """Wastes the first step."""

    def __call__(self, step):
        return min(1.0, step / 100)


class Counts(Falls):
    """Counts its calls."""

    calls = 0

    def __call__(self, step):
        self.calls += 1
        return max(0.01, 1 - self.calls / 10_000)


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (Steps, "changes_little_by_little"),
        (Above, "stays_within_bounds"),
        (Below, "stays_within_bounds"),
        (Half, "stays_within_bounds"),
        (Waits, "takes_a_first_and_a_last_step"),
        (Counts, "depends_on_the_step_alone"),
    ],
)
def test_a_broken_schedule_is_named(kind, law):
    assert not broken_by(Falls(1000)) | broken_by(DeclaredSteps(1000))
    assert law in broken_by(kind(1000))


# Data ----------------------------------------------------------------------------------------------------------------


def source(change=lambda data: None, **choices):
    """Generated pairs, changed after they are set up."""

    def make(seed):
        with own_cache():
            tokenizer = factory("tokenizer/byte")()
            objective = factory("objective/next_token")(tokenizer, 64, "decoder", "pairs")
            spec = {"name": "data/copy", "pairs": 160, "batch_size": 8, "val_batches": 4, **choices}
            data = factory(spec)(tokenizer, objective, 64, seed)
            data.setup()
        change(data)
        return data

    return Source(make)


def ignores_its_seed(data):
    data.seed = 3


def restless(data):
    make = data._train_batch
    data._train_batch = lambda epoch, index: make(epoch, int(torch.randint(0, 1000, ())))


def trains_on_validation(data):
    fixed = list(data.val_dataloader())
    data.train_dataloader = lambda: Loader(lambda epoch, index: fixed[(index + epoch + data.seed) % 4], 4)


def the_same_each_epoch(data):
    make = data._train_batch
    data._train_batch = lambda epoch, index: make(0, index)


def begins_anew(data):
    class Anew(Loader):
        def load_state_dict(self, state):
            pass

    data.train_dataloader = lambda: Anew(data._train_batch, 20)


def validates_by_seed(data):
    make = data._train_batch
    data.val_dataloader = lambda: Fixed(lambda index: make(7, index), 4)


def claims_trees(data):
    data.trees = "made"


def wrong_ratio(data):
    data._facts["bytes_per_token"] = 2.0


def fingerprint_by_seed(data):
    data._facts["fingerprint"] = f"{data.seed:x}"


@pytest.mark.parametrize(
    ("change", "law"),
    [
        (ignores_its_seed, "depends_on_its_seed_alone"),
        (restless, "depends_on_its_seed_alone"),
        (trains_on_validation, "keeps_validation_apart"),
        (the_same_each_epoch, "draws_every_epoch_anew"),
        (begins_anew, "resumes_anywhere"),
        (validates_by_seed, "depends_on_its_seed_alone"),
        (claims_trees, "gives_what_a_model_takes"),
        (wrong_ratio, "states_its_facts"),
        (fingerprint_by_seed, "states_its_facts"),
    ],
)
def test_broken_data_is_named(change, law):
    assert law in broken_by(source(change))


def test_whole_data_is_not_named():
    assert not broken_by(source())


# Callbacks and loggers -----------------------------------------------------------------------------------------------


class Counter(L.Callback):
    """Counts steps."""

    steps = 0

    def on_train_batch_end(self, *_):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state_dict):
        self.steps = state_dict["steps"]


class Forgetful(Counter):
    """Does not take its state up."""

    def load_state_dict(self, state_dict):
        pass


class Odd(Counter):
    """Has a state that no safe checkpoint holds."""

    def state_dict(self):
        return {"when": math.sqrt}


class Fails(Counter):
    """Fails at the first validation."""

    def on_validation_end(self, *_):
        raise RuntimeError("no metric")


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (Forgetful, "remembers_by_its_state"),
        (Odd, "remembers_by_its_state"),
        (Fails, "takes_part_in_a_run"),
    ],
)
def test_a_broken_callback_is_named(kind, law):
    assert not broken_by(Counter())
    assert law in broken_by(kind())


class Lines(Logger):
    """A line of JSON for each call."""

    name, version = "lines", ""

    def __init__(self, folder):
        super().__init__()
        self.path = folder / "lines.txt"

    def log_metrics(self, metrics, step=None):
        with self.path.open("a") as file:
            file.write(f"{json.dumps({'step': step, **metrics})}\n")

    def log_hyperparams(self, *args, **kwargs):
        pass


class Drops(Lines):
    """Writes only what it was given first."""

    def log_metrics(self, metrics, step=None):
        super().log_metrics({k: v for k, v in metrics.items() if k == "a"}, step)


class Takes(Lines):
    """Changes what it was given."""

    def log_metrics(self, metrics, step=None):
        metrics["step"] = step
        super().log_metrics(metrics, step)


@pytest.mark.parametrize("kind", [Drops, Takes])
def test_a_broken_logger_is_named(kind):
    assert not broken_by(Writer(Lines))
    assert broken_by(Writer(kind)) == {"writes_what_it_is_given"}
