"""The gradient of an optimizer step: that of one large batch, however its targets are divided."""

import os
import socket

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.nn import functional as F

from blocks.contracts import IGNORE, PAD, Layout, Memory
from blocks.head.linear import LinearHead
from registry import REGISTRY, plugins
from training.accumulation import StepMean
from training.batch import Batch
from training.contracts import Example
from training.data.loader import Loader
from training.loop import StepLoop
from training.meter import Meter
from training.objective.next_token import NextToken
from training.optimizer.adamw import AdamW
from training.optimizer.sgd import SGD
from training.run import quiet_lightning
from training.schedule.constant import Constant
from training.task import SequenceTask
from training.tokenizer.byte import Byte

LENGTHS = (3, 12, 4, 12, 7, 5, 12, 3)
"""Tokens in the rows of the micro-batches of an epoch."""

plugins.load_builtin()


class Toy(nn.Module):
    """Embeds, adds the mean of what an encoder read, and scores; reports the mean of its squares."""

    def __init__(self, vocab_size, reports=0.0):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 6)
        self.head = LinearHead(vocab_size, 6)
        self.reports = reports

    def features(self, tokens, layout, state=None, memory=None):
        x = self.embedding(tokens)
        if memory is not None:
            real = memory.layout.real[..., None]
            x = x + (memory.x * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)
        if self.reports:
            layout.report("balance", self.reports * x[layout.real].square().mean())
        return x, state

    def encode(self, source, layout):
        return Memory(self.embedding(source), layout)


def asked():
    """Every registered objective, about every model and data that it can be asked about."""
    for name in REGISTRY.names("objective"):
        for shape in ("encoder", "decoder", "encoder_decoder"):
            for gives in ("text", "pairs"):
                try:
                    yield name, shape, gives, REGISTRY[name].constructor(Byte(), 64, shape, gives)
                except ValueError:
                    continue  # it refuses this combination


CASES = [pytest.param(objective, id=f"{name}-{shape}-{gives}") for name, shape, gives, objective in asked()]


def micro_batches(objective, lengths=LENGTHS):
    rng = np.random.default_rng(0)

    def text(length):
        return rng.integers(10, 200, length)

    made = []
    for n in lengths:
        if objective.gives == "pairs":
            examples = [Example(text(n), text(length)) for length in (2, 5)]
        else:
            examples = [Example(text(objective.window(n + 4))) for _ in range(2)]
        made.append(objective.batch(examples, rng))
    return made


def merged(batches):
    """All rows in one batch."""

    def rows(tensors, filler):
        longest = max(t.shape[1] for t in tensors)
        return torch.cat([F.pad(t, (0, longest - t.shape[1]), value=filler) for t in tensors])

    def layout(layouts):
        return Layout(rows([v.position for v in layouts], PAD), rows([v.document for v in layouts], PAD))

    whole = Batch(
        rows([b.tokens for b in batches], 0),
        rows([b.targets for b in batches], IGNORE),
        layout([b.layout for b in batches]),
    )
    if batches[0].source is not None:
        source = rows([b.source for b in batches], 0)
        whole = whole._replace(source=source, source_layout=layout([b.source_layout for b in batches]))
    return whole


class Gradients(L.Callback):
    """Keeps the gradient of each step as the optimizer finds it."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, task, optimizer):
        self.steps.append([p.grad.clone() for p in task.model.parameters()])


def toy(reports=0.0):
    torch.manual_seed(0)
    return Toy(300, reports).double()


def step(model, objective, batches, optimizer=None, meter=None, plugin=None, val=(), interval=1000, **choices):
    """Trains for an epoch of these micro-batches; gives the gradients of its steps."""
    task = SequenceTask(model, objective, optimizer or SGD(lr=0.0, momentum=0.0), Constant(10))
    gradients = Gradients()
    with quiet_lightning():
        trainer = L.Trainer(
            accelerator="cpu",
            logger=False,
            callbacks=[meter or Meter(), gradients],
            plugins=plugin,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **{"max_epochs": 1, "check_val_every_n_epoch": None, "val_check_interval": 1} | choices,
        )
        trainer.fit_loop.epoch_loop = StepLoop(trainer, interval)
        trainer.fit(task, loader(batches), loader(val or micro_batches(objective)[:1]))
    return gradients.steps


def loader(batches):
    return Loader(lambda epoch, index: batches[index], len(batches))


def gradient(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()))


def close(got, expected, tolerance=1e-12):
    for one, other in zip(got, expected, strict=True):
        assert (one - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("objective", CASES)
@pytest.mark.parametrize("accumulated", [1, 3, 4, 100])
def test_a_step_has_the_gradient_of_one_large_batch(objective, accumulated):
    """With 3 the last step of the epoch has 2 micro-batches, and with 100 the only one has 8."""
    model, batches = toy(), micro_batches(objective)
    steps = step(model, objective, batches, accumulate_grad_batches=accumulated)
    groups = [batches[i : i + accumulated] for i in range(0, len(batches), accumulated)]
    assert len(steps) == len(groups)
    for got, group in zip(steps, groups, strict=True):
        close(got, gradient(model, objective.loss(model, merged(group))[0]))


def test_a_micro_batch_without_a_target_weighs_nothing_even_as_the_first():
    objective, model = CASES[0].values[0], toy()
    batches = micro_batches(objective)[:3]
    nothing = batches[0]._replace(targets=torch.full_like(batches[0].targets, IGNORE))
    (got,) = step(model, objective, [nothing, batches[1], nothing, batches[2]], accumulate_grad_batches=4)
    close(got, gradient(model, objective.loss(model, merged(batches[1:]))[0]))


def test_a_step_without_a_target_has_no_gradient():
    objective = CASES[0].values[0]
    nothing = [b._replace(targets=torch.full_like(b.targets, IGNORE)) for b in micro_batches(objective)[:2]]
    (got,) = step(toy(), objective, nothing, accumulate_grad_batches=2)
    assert not any(g.any() for g in got)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_what_is_clipped_is_the_gradient_of_the_whole_step(algorithm):
    objective, model, large = NextToken(Byte(), 64, "decoder", "text"), toy(), toy()
    batches = micro_batches(objective)[:3]
    most = 0.05 if algorithm == "norm" else 0.002
    sgd = SGD(lr=0.5, momentum=0.0)
    choices = {"gradient_clip_val": most, "gradient_clip_algorithm": algorithm, "accumulate_grad_batches": 4}
    step(model, objective, batches, sgd, **choices)

    before = [p.detach().clone() for p in large.parameters()]
    objective.loss(large, merged(batches))[0].backward()
    clip = {"norm": nn.utils.clip_grad_norm_, "value": nn.utils.clip_grad_value_}[algorithm]
    unclipped = [p.grad.clone() for p in large.parameters()]
    clip(large.parameters(), most)
    assert not all(torch.equal(p.grad, g) for p, g in zip(large.parameters(), unclipped, strict=True))
    expected = [p - 0.5 * q.grad for p, q in zip(before, large.parameters(), strict=True)]
    close([p.detach() for p in model.parameters()], expected)


class Emphasis(NextToken):
    """The second half of a row counts three times as much."""

    def _weights(self, batch):
        half = batch.layout.position >= batch.tokens.shape[1] // 2
        return torch.where(half, 3.0, 1.0).double() * (batch.targets != IGNORE)

    def weight(self, batch):
        return self._weights(batch).sum()

    def loss(self, model, batch):
        x, _ = model.features(batch.tokens, batch.layout.fresh())
        nats = F.cross_entropy(model.head(x, batch.layout).flatten(0, 1), batch.targets.flatten(), reduction="none")
        loss = (nats * self._weights(batch).flatten()).sum() / self._weights(batch).sum()
        return loss, {"nats": loss.detach()}


def test_an_objective_may_weigh_its_targets():
    objective, model = Emphasis(Byte(), 64, "decoder", "text"), toy()
    batches = micro_batches(objective)[:4]
    (got,) = step(model, objective, batches, accumulate_grad_batches=4)
    weights = [objective.weight(b) for b in batches]
    whole = sum(w * objective.loss(model, b)[0] for w, b in zip(weights, batches, strict=True)) / sum(weights)
    close(got, gradient(model, whole))


def test_what_blocks_report_weighs_as_its_micro_batch_does():
    objective, model = NextToken(Byte(), 64, "decoder", "text"), toy(reports=0.5)
    batches = micro_batches(objective)[:4]
    (got,) = step(model, objective, batches, accumulate_grad_batches=4)
    targets = [b.n_targets for b in batches]
    assert len(set(map(int, targets))) > 2
    whole = sum(n * objective.loss(model, b)[0] for n, b in zip(targets, batches, strict=True)) / sum(targets)
    close(got, gradient(model, whole))


def test_the_logged_loss_is_the_mean_over_all_targets():
    objective, model, meter = NextToken(Byte(), 64, "decoder", "text"), toy(reports=0.5), Meter()
    batches = micro_batches(objective)
    step(model, objective, batches, meter=meter, accumulate_grad_batches=8)
    expected = objective.loss(model, merged(batches))[1]["nats"]
    assert meter.latest["train/loss"] == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", ["16-mixed", "bf16-mixed"])
def test_mixed_precision_steps_as_float32_does(dtype, fused):
    """With a scaled loss the gradients are weighed, unscaled and clipped, in the order that each optimizer takes."""
    objective, (low, high) = NextToken(Byte(), 64, "decoder", "text"), (toy().float(), toy().float())
    batches = micro_batches(objective)[:3]
    choices = {"gradient_clip_val": 0.05, "accumulate_grad_batches": 4}
    optimizer = AdamW(lr=0.01, beta1=0.0, eps=1e-3, weight_decay=0.0) if fused else SGD(lr=0.5, momentum=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if dtype == "16-mixed" else None
    before = [p.detach().clone() for p in high.parameters()]
    step(low, objective, batches, optimizer, plugin=MixedPrecision(dtype, "cpu", scaler), **choices)
    step(high, objective, batches, optimizer, **choices)
    moved = [p.detach() - b for p, b in zip(low.parameters(), before, strict=True)]
    close(moved, [p.detach() - b for p, b in zip(high.parameters(), before, strict=True)], tolerance=0.02)
    assert all(m.any() for m in moved)


# Several processes ----------------------------------------------------------------------------------------------------


def test_two_processes_that_share_a_step_by_hand():
    """With 1 and 4 targets in one process, 3 and 0 in the other: the weights give each target an eighth."""
    counts, world = [[1.0, 4.0], [3.0, 0.0]], 2
    total = [0.0]
    for mine in counts:
        sums = iter(torch.tensor(counts).sum(0))
        mean, parameter = StepMean(lambda _, sums=sums: next(sums), world), nn.Parameter(torch.zeros(()))
        for n in mine:
            mean.weigh(parameter * 1.0, torch.tensor(n)).backward()  # each target has the gradient 1
        mean.finish([parameter])
        total.append(float(parameter.grad) / world)  # as the strategy averages them
    assert total == [0.0, pytest.approx(5 / 8), pytest.approx(3 / 8)]


def worker(rank, port, folder):
    """One of two processes: every second micro-batch is its own."""
    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": str(rank)}
    os.environ.update(where, WORLD_SIZE="2")
    objective, model, meter = NextToken(Byte(), 64, "decoder", "pairs"), toy(), Meter()
    mine = micro_batches(objective)[rank::2]
    choices = {"strategy": "ddp", "devices": 2, "accumulate_grad_batches": 3, "meter": meter}
    steps = step(model, objective, mine, val=mine, **choices)
    torch.save((steps, meter.latest), folder / f"{rank}.pt")
    torch.distributed.barrier()  # a process that ends while the other one's threads still talk to it is aborted
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradient_and_the_losses_of_one_large_batch(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(worker, (port, tmp_path), nprocs=2)
    objective, model = NextToken(Byte(), 64, "decoder", "pairs"), toy()
    batches = micro_batches(objective)
    whole = objective.loss(model, merged(batches))[1]["nats"].item()
    for rank in range(2):
        steps, latest = torch.load(tmp_path / f"{rank}.pt")
        assert len(steps) == 2
        for got, group in zip(steps, (batches[:6], batches[6:]), strict=True):
            expected = gradient(model, objective.loss(model, merged(group))[0])
            close(got, expected)
        assert latest["train/loss"] == pytest.approx(whole, rel=1e-6)
        assert latest["val/loss"] == pytest.approx(whole, rel=1e-6)
