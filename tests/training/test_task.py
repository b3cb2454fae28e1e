"""The task and the meter: seeded dropout, weighted means, losses read in one go, a clock that counts training alone."""

import math

import lightning as L
import pytest
import torch
from torch import nn

from blocks.contracts import IGNORE, Layout
from training import meter as meters
from training.batch import Batch
from training.contracts import Objective, Schedule
from training.data.loader import Loader
from training.loop import StepLoop
from training.meter import DivergedError, Meter
from training.optimizer.sgd import SGD
from training.task import SequenceTask, count_tokens

pytestmark = pytest.mark.usefixtures("quiet")


class Asks(Objective):
    """Says the model's number; the tokens are how many targets there are."""

    def __init__(self, extra=None):
        self.extra = extra or {}

    def batch(self, examples, rng):
        raise NotImplementedError

    def prompt(self, text):
        raise NotImplementedError

    def room(self, tokens, source):
        raise NotImplementedError

    def loss(self, model, batch):
        nats = model.number * batch.tokens.float().mean()
        return nats + sum(self.extra.values()), {"nats": nats.detach(), **self.extra}


class Number(nn.Module):
    def __init__(self, value=1.0):
        super().__init__()
        self.number = nn.Parameter(torch.tensor(value))


class Halves(Schedule):
    def __call__(self, step):
        return 0.5**step


def batch(value, n_targets=2, length=2, seed=0):
    targets = torch.full((1, length), IGNORE)
    targets[:, :n_targets] = 1
    return Batch(torch.full((1, length), value), targets, Layout.full(1, length), step_seed=seed)


def task(extra=None, value=1.0, lr=0.0):
    return SequenceTask(Number(value), Asks(extra), SGD(lr=lr, momentum=0.0), Halves(10))


def fit(made, train, val, meter=None, **choices):
    """Lightning on a list of batches, with the loop that a run has."""
    interval = choices.pop("val_check_interval", 1000)
    trainer = L.Trainer(
        accelerator="cpu",
        logger=choices.pop("logger", False),
        callbacks=[meter or Meter(), *choices.pop("callbacks", [])],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"max_epochs": -1, "max_steps": len(train), "check_val_every_n_epoch": None, "val_check_interval": 1}
        | choices,
    )
    trainer.fit_loop.epoch_loop = StepLoop(trainer, interval)
    trainer.fit(made, train_dataloaders=each(train), val_dataloaders=each(val))
    return trainer


def each(batches):
    """A loader of batches that are there already."""
    return Loader(lambda epoch, index: batches[index], len(batches))


class Writes(L.pytorch.loggers.logger.DummyLogger):
    """Keeps what was logged."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, metrics))


def test_a_validation_weighs_batches_by_their_targets():
    made = task()
    fit(made, [batch(1)], [batch(1, n_targets=3, length=4), batch(5, n_targets=1, length=4)])
    assert made.val_metrics == {"val/loss": pytest.approx((3 * 1 + 1 * 5) / 4)}


def test_a_batch_without_targets_is_weightless_even_where_its_mean_is_no_number():
    made = task()
    nothing = batch(0, n_targets=0)
    made.objective.loss = lambda model, b: (
        (torch.tensor(math.nan), {}) if b.n_targets == 0 else (model.number * b.tokens.float().mean(), {})
    )
    made.loss = made.objective.loss
    fit(made, [batch(1)], [batch(2), nothing])
    assert made.val_metrics == {"val/loss": pytest.approx(2.0)}


def test_what_blocks_add_stands_beside_the_cross_entropy():
    made, meter = task({"balance": torch.tensor(0.25)}), Meter()
    fit(made, [batch(2)], [batch(2)], meter)
    assert made.val_metrics == {"val/loss": 2.0, "val/balance": 0.25, "val/total": 2.25}
    assert meter.latest["train/loss"] == 2.0
    assert meter.latest["train/total"] == 2.25


def test_each_micro_batch_seeds_the_dropout():
    made = task()
    drawn = []
    made.loss = lambda model, b: (drawn.append(torch.rand(1).item()), (model.number * 1.0, {}))[1]
    fit(made, [batch(1, seed=7), batch(1, seed=8), batch(1, seed=7)], [batch(1)])
    torch.manual_seed(7)
    assert drawn[0] == drawn[2] == torch.rand(1).item()
    assert drawn[0] != drawn[1]


def test_the_schedule_is_a_factor_on_the_rate_from_step_zero():
    logger = Writes()
    fit(task(lr=0.8), [batch(1)] * 3, [batch(1)], logger=logger, log_every_n_steps=1)
    rates = [row["lr"] for _, row in logger.rows if "lr" in row]
    assert rates == pytest.approx([0.8, 0.4, 0.2])  # each is what its step used


def test_tokens_are_the_real_ones_of_both_sequences():
    padded = Layout.padded(torch.tensor([2, 3]), 4)
    tokens = torch.zeros(2, 4, dtype=torch.long)
    assert count_tokens(Batch(tokens, tokens, Layout.full(2, 4))) == 8
    assert count_tokens(Batch(tokens, tokens, padded)) == 5
    assert count_tokens(Batch(tokens, tokens, padded, tokens, Layout.full(2, 4))) == 13


def test_losses_between_two_looks_are_averaged():
    logger = Writes()
    fit(task(), [batch(v) for v in (1, 2, 3, 6, 8)], [batch(1)], logger=logger, log_every_n_steps=2)
    told = [(step, row["train/loss"]) for step, row in logger.rows if "train/loss" in row]
    assert told == [(2, 1.5), (4, 4.5), (5, 8.0)]


def test_the_first_loss_that_is_no_number_is_named_though_it_is_read_later():
    made = task()
    losses = iter([1.0, 2.0, math.inf, math.nan, 1.0, 1.0])
    made.loss = lambda model, b: (model.number * next(losses), {})
    with pytest.raises(DivergedError, match=r"^the loss became inf at step 3\."):
        fit(made, [batch(1)] * 6, [batch(1)], log_every_n_steps=6)


def test_a_validation_that_is_no_number_ends_the_run_too():
    made = task()
    made.loss = lambda model, b: (model.number * (1.0 if model.training else math.nan), {})
    with pytest.raises(DivergedError, match=r"^val/loss became nan at step 1\."):
        fit(made, [batch(1)], [batch(1)])


def test_the_best_validation_is_kept():
    made, meter = task(lr=0.1), Meter()
    fit(made, [batch(-1)] * 2 + [batch(2)] * 2, [batch(-1)], meter, val_check_interval=1)
    values = [v["val/loss"] for v in meter.history]
    assert [v["step"] for v in meter.history] == [1, 2, 3, 4]
    assert meter.best["val/loss"] == min(values)
    assert meter.best["step"] == 1 + values.index(min(values))


def test_bits_a_byte_are_nats_a_token_over_its_bytes():
    meter = Meter(train_bytes=2.0, val_bytes=4.0)
    fit(task(), [batch(3)], [batch(3)], meter)
    assert meter.latest["train/bits_per_byte"] == pytest.approx(3 / math.log(2) / 2)
    assert meter.latest["val/bits_per_byte"] == pytest.approx(3 / math.log(2) / 4)


def test_where_there_is_no_text_there_are_no_bits():
    meter = Meter()
    fit(task(), [batch(3)], [batch(3)], meter)
    assert "val/bits_per_byte" not in meter.latest


def test_speed_is_that_of_training_without_the_first_step_and_the_validations(monkeypatch):
    """A clock that the test moves: 1 s a training step, 100 s a validation."""
    clock = [0.0]
    monkeypatch.setattr(meters.time, "perf_counter", lambda: clock[0])
    made, meter = task(), Meter()

    def loss(model, b):
        clock[0] += 1.0 if model.training else 100.0
        return model.number * 1.0, {}

    made.loss = loss
    fit(made, [batch(1, length=10)] * 6, [batch(1)], meter, val_check_interval=2, log_every_n_steps=1)
    assert meter.seconds == pytest.approx(5.0)
    assert meter.tokens == 60
    assert meter.tokens_per_second == pytest.approx(10.0)


def test_the_device_is_not_asked_between_two_looks(monkeypatch):
    """A step that waited for its loss would cost a GPU its head start."""
    asked = []
    original = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda self: asked.append(1) or original(self))
    counts = {}
    for n in (4, 24):
        asked.clear()
        fit(task(), [batch(1)] * n, [batch(1)], log_every_n_steps=100)
        counts[n] = len(asked)
    assert counts[4] == counts[24]


def test_a_compiled_loss_is_the_eager_one(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda f: compiled.append(f) or f)
    made = SequenceTask(Number(), Asks(), SGD(), Halves(1), compiled=True)
    assert compiled == [made.objective.loss]
