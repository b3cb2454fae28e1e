"""Hyper-connections against a loop over streams; at the start they are pre-norm."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from blocks.contracts import Site
from blocks.norm.layer import LayerNorm
from blocks.residual.hyper_connections import HyperConnections

B, T, N, D = 2, 3, 4, 8


def _residual(**choices):
    site = Site(causal=True, max_length=8, depth=5, n_layers=6)
    return HyperConnections(D, site, norm=LayerNorm, streams=N, **choices).double()


@pytest.mark.parametrize("weights", ["static", "dynamic"])
def test_matches_a_loop_over_streams(weights):
    residual = _residual(weights=weights)
    for p in residual.parameters():
        torch.nn.init.normal_(p)
    x, y = torch.randn(B, T, N, D, dtype=torch.float64), torch.randn(B, T, D, dtype=torch.float64)
    seen, out = residual.read(x), residual.write(x, y)
    for b in range(B):
        for t in range(T):
            reads, writes, keeps = residual.reads.clone(), residual.writes.clone(), residual.keeps.clone()
            if weights == "dynamic":
                for i in range(N):
                    said = torch.tanh(residual.dynamic @ F.layer_norm(x[b, t, i], (D,)))
                    reads[i] += residual.strength[0] * said[0]
                    keeps[i] += residual.strength[1] * said[1:-1]
                    writes[i] += residual.strength[2] * said[-1]
            assert_close(seen[b, t], residual.norm(sum(reads[i] * x[b, t, i] for i in range(N))))
            for j in range(N):
                kept = sum(keeps[i, j] * x[b, t, i] for i in range(N))
                assert_close(out[b, t, j], kept + writes[j] * y[b, t])


def test_starts_as_pre_norm_in_every_stream():
    residual, x = _residual(weights="static"), torch.randn(B, T, 1, D, dtype=torch.float64)
    y = torch.randn(B, T, D, dtype=torch.float64)
    assert_close(residual.read(x.expand(-1, -1, N, -1)), residual.norm(x[:, :, 0]))
    assert_close(residual.write(x.expand(-1, -1, N, -1), y), (x + y.unsqueeze(2)).expand(-1, -1, N, -1))


def test_each_layer_starts_reading_another_stream():
    x = torch.randn(B, T, N, D, dtype=torch.float64)
    residual = _residual(weights="static")  # the sixth layer of four streams reads the second
    assert_close(residual.read(x), residual.norm(x[:, :, 1]))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"streams": 1}, r"streams must be at least 2, but got 1\. For one stream choose pre_norm\."),
        ({"weights": "fixed"}, r"weights must be dynamic or static, but got 'fixed'\."),
    ],
)
def test_refuses(choices, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        HyperConnections(D, Site(causal=True, max_length=8), norm=LayerNorm, **choices)
