"""Our training loop, one step at a time: Lightning runs in a thread of its own and waits to be asked for each step."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator

import lightning as L
import torch
from torch import Tensor, nn

from blocks.contracts import Layout
from training.batch import Batch
from training.meter import Meter
from training.objective.next_token import NextToken
from training.optimizer.adamw import AdamW
from training.run import quiet_lightning
from training.schedule.constant import Constant
from training.task import SequenceTask
from training.tokenizer.byte import Byte


class Turns:
    """A loader that hands out a batch when it is told to, and tells when the step that used it is over."""

    def __init__(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        self.batches = batches
        self.go, self.over = threading.Semaphore(0), threading.Semaphore(0)
        self.started = False

    def __len__(self) -> int:
        return 10**9

    def __iter__(self) -> Iterator[Batch]:
        for tokens, targets in self.batches:
            if self.started:
                self.over.release()
            self.go.acquire()
            self.started = True
            yield Batch(tokens, targets, Layout.full(*tokens.shape))


def lightning_contender(
    model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], dtype: torch.dtype, device: str, max_length: int = 256
) -> Callable[[], None]:
    """One training step of a run as ``train.py`` starts it, with its meter, under Lightning's Trainer."""
    turns = Turns(batches)
    objective = NextToken(Byte(), max_length, "decoder", "text")
    task = SequenceTask(model, objective, AdamW(lr=3e-4), Constant(-1))  # type: ignore[arg-type]

    def fit() -> None:
        with quiet_lightning(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*no `val_dataloader`.*")
            L.Trainer(
                accelerator="gpu" if device == "cuda" else device,
                devices=1,
                precision="bf16-true" if dtype == torch.bfloat16 else "32-true",
                max_epochs=-1,
                log_every_n_steps=10,
                limit_val_batches=0,
                num_sanity_val_steps=0,
                logger=False,
                callbacks=[Meter()],
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            ).fit(task, train_dataloaders=turns)

    threading.Thread(target=fit, daemon=True).start()

    def step() -> None:
        turns.go.release()
        turns.over.acquire()
        if device == "cuda":
            torch.cuda.synchronize()

    return step
