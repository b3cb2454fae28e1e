"""Checkpoints survive kills, damage is noticed, and another architecture is refused by name."""

import hashlib
import io
import os
import re
import subprocess

import pytest
import torch
from torch import nn

from registry.errors import CheckpointError
from training import checkpoint as checkpoints
from training.checkpoint import SafeCheckpointIO, check_fits, link, load, sidecar


def saved(path, value=1.0):
    SafeCheckpointIO().save_checkpoint({"state_dict": {"model.w": torch.full((3,), value)}, "global_step": 5}, path)
    return path


def test_what_is_saved_is_loaded(tmp_path):
    path = saved(tmp_path / "new" / "last.ckpt")
    assert load(path)["state_dict"]["model.w"].tolist() == [1.0, 1.0, 1.0]
    assert sorted(p.name for p in path.parent.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]


def test_the_digest_is_what_sha256sum_reads(tmp_path):
    path = saved(tmp_path / "last.ckpt")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert sidecar(path).read_text(encoding="utf-8") == f"{digest}  last.ckpt\n"
    assert (
        subprocess.run(["sha256sum", "--check", "last.ckpt.sha256"], cwd=tmp_path, capture_output=True).returncode == 0
    )


@pytest.mark.parametrize("survived", range(3))
def test_a_kill_between_any_two_steps_leaves_a_checkpoint_that_loads(tmp_path, monkeypatch, survived):
    """The checkpoint and its digest are two files: whichever moved last, the pair fits."""
    path, moves = saved(tmp_path / "last.ckpt"), []
    replace = os.replace

    def killed(source, target):
        if len(moves) == survived:
            raise KeyboardInterrupt
        moves.append(target)
        replace(source, target)

    monkeypatch.setattr(checkpoints.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        saved(path, value=2.0)
    monkeypatch.undo()
    assert load(path)["state_dict"]["model.w"][0] in (1.0, 2.0)


def test_a_second_name_is_not_a_second_copy(tmp_path):
    path = saved(tmp_path / "last.ckpt")
    link(path, tmp_path / "best.ckpt")
    saved(path, value=2.0)
    assert load(tmp_path / "best.ckpt")["state_dict"]["model.w"][0] == 1.0
    assert load(path)["state_dict"]["model.w"][0] == 2.0


def test_a_second_name_is_a_copy_where_there_are_no_links(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("no links here")

    path = saved(tmp_path / "last.ckpt")
    monkeypatch.setattr(checkpoints.os, "link", refuse)
    link(path, tmp_path / "best.ckpt")
    assert load(tmp_path / "best.ckpt")["global_step"] == 5


def test_one_flipped_bit_is_noticed_and_the_other_checkpoint_is_named(tmp_path):
    path = saved(tmp_path / "last.ckpt")
    saved(tmp_path / "best.ckpt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    sentence = (
        f"ckpt_path: {path} must be what was written, but its SHA-256 is not the one in last.ckpt.sha256: "
        f"the file is damaged. best.ckpt beside it is whole: ckpt_path={tmp_path}/best.ckpt"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}$"):
        load(path)


def test_a_bit_that_flips_while_the_file_is_written_is_noticed(tmp_path, monkeypatch):
    """The digest is of what was meant, not of what a look at the disk finds."""
    write = checkpoints.Hashed.write

    def faulty(self, data):
        file = self.file
        if len(data) > 8:
            self.file = io.BytesIO()
            write(self, data)
            self.file = file
            file.write(bytes(data[:8]) + bytes([data[8] ^ 1]) + bytes(data[9:]))
            return len(data)
        return write(self, data)

    monkeypatch.setattr(checkpoints.Hashed, "write", faulty)
    path = saved(tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="the file is damaged"):
        load(path)


def test_a_second_name_does_not_bless_a_damaged_file(tmp_path):
    path = saved(tmp_path / "last.ckpt")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    link(path, tmp_path / "previous.ckpt")
    with pytest.raises(CheckpointError, match=r"the file is damaged\. There is no other beside it that is whole\.$"):
        load(tmp_path / "previous.ckpt")


def test_half_a_file_without_a_digest_is_noticed(tmp_path):
    path = saved(tmp_path / "last.ckpt")
    path.write_bytes(path.read_bytes()[:300])
    sidecar(path).unlink()
    with pytest.raises(CheckpointError, match="must be a checkpoint of tensors and plain containers"):
        load(path)


def test_code_in_a_file_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, ("touch hacked",))

    torch.save({"state_dict": {}, "x": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="plain containers"):
        load(tmp_path / "evil.ckpt")


def test_what_could_not_be_read_again_is_not_saved(tmp_path):
    """Else a run trains to its end, and none of its checkpoints can be opened."""
    path = saved(tmp_path / "last.ckpt")
    odd = {"state_dict": {"w": torch.ones(2)}, "callbacks": {"Mine": {"seen": [1, {"place": tmp_path}]}}}
    sentence = (
        "checkpoint: what is saved must be tensors and plain containers, but callbacks / Mine / seen / 1 / place "
        f"holds {tmp_path!r}, a {type(tmp_path).__module__}.{type(tmp_path).__name__}. Whatever keeps it"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}"):
        SafeCheckpointIO().save_checkpoint(odd, path)
    assert load(path)["global_step"] == 5


def test_a_checkpoint_is_recommended_only_if_it_can_be_opened(tmp_path):
    """Two files of an older version, each whole and neither readable, must not recommend one another."""
    for name in ("last", "best"):
        path = tmp_path / f"{name}.ckpt"
        torch.save({"state_dict": {}, "spec": {"path": tmp_path}}, path)
        sidecar(path).write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"\. There is no other beside it that is whole\.$"):
        load(tmp_path / "last.ckpt")
    saved(tmp_path / "previous.ckpt")
    with pytest.raises(CheckpointError, match=f"ckpt_path={re.escape(str(tmp_path))}/previous.ckpt$"):
        load(tmp_path / "last.ckpt")


def test_a_missing_file_is_refused_with_what_is_there(tmp_path):
    saved(tmp_path / "best.ckpt")
    sentence = (
        f"ckpt_path: there must be a checkpoint at {tmp_path}/lst.ckpt, but there is none; beside it are: best.ckpt."
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}$"):
        load(tmp_path / "lst.ckpt")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(CheckpointError, match="but it holds no weights of a task"):
        load(tmp_path / "list.ckpt")


def spec(**choices):
    layer = {
        "mixer": {"name": "attention/mha", "n_heads": 4, "backend": "auto", **choices},
        "ffn": {"name": "ffn/mlp", "dropout": 0.1},
    }
    return {"name": "model/decoder_only", "d_model": 8, "decoder": {"layers": [layer]}}


def holding(model, made):
    return {"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}, "blockwright": {"model": made}}


def test_the_same_architecture_fits():
    check_fits(holding(nn.Linear(2, 3), spec()), nn.Linear(2, 3), spec(), "a.ckpt")


def test_another_choice_is_named_where_it_stands():
    other = spec(name="attention/gqa") | {"d_model": 16}
    sentence = (
        "ckpt_path: the model must be the one that a.ckpt was saved from, but 2 things differ:\n"
        "  model.d_model is 8 in the checkpoint and 16 here\n"
        "  model.decoder.layers[0].mixer is attention/mha in the checkpoint and attention/gqa here"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}$"):
        check_fits(holding(nn.Linear(2, 3), spec()), nn.Linear(2, 3), other, "a.ckpt")


def test_other_shapes_are_named_where_the_choices_are_the_same():
    with pytest.raises(CheckpointError, match="weight is 3x2 in the checkpoint and 5x2 here"):
        check_fits(holding(nn.Linear(2, 3), spec()), nn.Linear(2, 5), spec(), "a.ckpt")


def test_missing_and_left_over_weights_are_named():
    with pytest.raises(CheckpointError) as refusal:
        check_fits(holding(nn.Linear(2, 3), {}), nn.LayerNorm(3, bias=False), spec(), "a.ckpt")
    assert "bias is only in the checkpoint" in str(refusal.value)


def test_dropout_and_the_kernel_may_differ():
    made = spec()
    made["decoder"]["layers"][0]["ffn"]["dropout"] = 0.0
    made["decoder"]["layers"][0]["mixer"]["backend"] = "eager"
    check_fits(holding(nn.Linear(2, 3), spec()), nn.Linear(2, 3), made, "a.ckpt")
