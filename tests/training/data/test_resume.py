"""A run that is taken up from a checkpoint meets the batches, and makes the weights, of one that never stopped."""

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from training.batch import Batch
from training.data.text import Text
from training.objective.masked_token import MaskedToken
from training.tokenizer.byte import Byte

pytestmark = pytest.mark.usefixtures("quiet")


class Counts(L.LightningModule):
    """Moves its weight by what it sees and by what dropout draws; remembers all it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(260))
        self.seen: list[tuple] = []
        self.validated: list[list] = []

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        torch.default_generator.manual_seed(batch.step_seed)
        self.seen.append((batch.tokens.tolist(), batch.targets.tolist(), batch.step_seed))
        return torch.nn.functional.dropout(self.weight[batch.tokens], 0.5).sum()

    def validation_step(self, batch: Batch, index: int) -> None:
        self.validated.append(batch.tokens.tolist())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def data(file: Path) -> Text:
    tokenizer = Byte()
    objective = MaskedToken(tokenizer, 8, "encoder", "text")
    text = Text(tokenizer, objective, 8, 0, path=str(file), batch_size=2, val_batches=3, val_fraction=0.4)
    text.setup()
    return text


def fit(file: Path, steps: int, *, ckpt_path: Path | None = None, **options) -> Counts:
    module = Counts()
    trainer = L.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=file.parent,
        val_check_interval=3,
        check_val_every_n_epoch=None,
        **{"callbacks": [], "enable_checkpointing": False, **options},
    )
    trainer.fit(module, datamodule=data(file), ckpt_path=ckpt_path)
    return module


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_text("".join(chr(97 + i * i % 26) for i in range(250)), encoding="utf-8")  # 8 batches an epoch
    return path


@pytest.mark.parametrize("stop", [5, 8, 9, 16])
def test_goes_on_bitwise(file: Path, stop: int):
    whole = fit(file, 20)
    keep = ModelCheckpoint(file.parent / "checkpoints", "stop", every_n_train_steps=stop)
    first = fit(file, stop, callbacks=[keep], enable_checkpointing=True)
    rest = fit(file, 20, ckpt_path=file.parent / "checkpoints" / "stop.ckpt")
    assert len(data(file).train_dataloader()) == 8
    assert first.seen + rest.seen == whole.seen
    assert torch.equal(rest.weight, whole.weight)
    assert len({step_seed for *_, step_seed in whole.seen}) == 20


def test_every_validation_reads_the_same(file: Path):
    validated = fit(file, 9).validated
    sanity, checks = validated[:2], validated[2:]
    assert len(checks) == 9
    assert checks[:3] == checks[3:6] == checks[6:]
    assert sanity == checks[:2]
