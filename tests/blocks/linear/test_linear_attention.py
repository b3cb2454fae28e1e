"""Linear attention is held to the mean that its kernel weighs, over the past or over the whole document."""

import pytest
import torch
from torch import Tensor

from blocks.contracts import Layout, Mask
from blocks.linear._normalised import exponential_mean
from blocks.linear.linear_attention import LinearAttention

PHI = {
    "elu": lambda x: torch.where(x > 0, x + 1, x.exp()),
    "relu": lambda x: x.clamp(min=0),
    "relu2": lambda x: x.clamp(min=0) ** 2,
    "softmax": lambda x: x.exp() / x.exp().sum(-1, keepdim=True),
    "exp": torch.exp,
}


def by_pairs(mixer: LinearAttention, x: Tensor) -> Tensor:
    """For each head and query the weights of all keys, and the mean of their values."""
    q, k, v = (to(x).chunk(mixer.n_heads, -1) for to in (mixer.to_q, mixer.to_k, mixer.to_v))
    phi, heads = PHI[mixer.feature], []
    for h in range(mixer.n_heads):
        weight = phi(q[h]) @ phi(k[h]).T
        weight = weight.tril() if mixer.mask.causal else weight
        heads.append(weight @ v[h] / (weight.sum(-1, keepdim=True) + 1e-300))
    return mixer.to_out(torch.cat(heads, -1))


@pytest.fixture(params=PHI)
def feature(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    return request.param


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_the_mean_weighted_by_its_kernel(feature, causal, follows):
    mixer = LinearAttention(16, Mask(causal), n_heads=2, feature=feature).double()
    follows(mixer, lambda x: by_pairs(mixer, x))


def test_any_cut_of_a_row_gives_the_whole(feature, goes_on):
    goes_on(LinearAttention(16, Mask(True), n_heads=2, feature=feature).double())


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_finite_for_inputs_of_any_size(feature, causal, survives, monkeypatch):
    monkeypatch.undo()
    survives(LinearAttention(16, Mask(causal), n_heads=2, feature=feature))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("slope", [0.0, 3.0, -3.0, 400.0, -400.0])
def test_exponentials_beyond_all_numbers_weigh_what_a_softmax_makes_of_them(causal, slope):
    q, k, v = torch.randn(3, 1, 50, 2, 4, dtype=torch.float64)
    q, k = q - 5000, k + 1000 + slope * torch.arange(50)[:, None, None]
    scores = (q[:, :, None] + k[:, None]).logsumexp(-1)  # (1, T, S, H)
    if causal:
        scores = scores.masked_fill(torch.ones(50, 50).triu(1).bool()[..., None], -torch.inf)
    mean = torch.einsum("btsh,bshv->bthv", scores.softmax(2), v)
    read, _ = exponential_mean(q, k, v, Layout.full(1, 50), None, causal=causal)
    torch.testing.assert_close(read, mean, rtol=1e-9, atol=1e-9)


def test_the_greatest_exponent_of_one_document_is_nothing_to_the_next():
    q, k, v = torch.randn(3, 1, 50, 2, 4, dtype=torch.float64)
    k[:, 20:] -= 5000
    layout = Layout.packed(torch.tensor([[0] * 20 + [1] * 30]))
    packed, _ = exponential_mean(q, k, v, layout, None, causal=True)
    second, _ = exponential_mean(q[:, 20:], k[:, 20:], v[:, 20:], Layout.full(1, 30), None, causal=True)
    torch.testing.assert_close(packed[:, 20:], second, rtol=1e-9, atol=1e-9)


def test_it_compiles_forward_and_backward():
    torch._dynamo.reset()
    mixer, x = LinearAttention(16, Mask(True), n_heads=2), torch.randn(2, 20, 16, requires_grad=True)
    compiled = torch.compile(mixer, backend="aot_eager", fullgraph=True)
    grads = [torch.autograd.grad(m(x, Layout.full(2, 20))[0].square().sum(), x)[0] for m in (compiled, mixer)]
    torch.testing.assert_close(*grads)


def test_a_query_that_weighs_nothing_reads_zero():
    mixer = LinearAttention(4, Mask(True), n_heads=1, feature="relu")
    torch.nn.init.constant_(mixer.to_q.weight, -1.0)
    x = torch.rand(1, 5, 4, requires_grad=True)
    y, _ = mixer(x, Layout.full(1, 5))
    y.sum().backward()
    assert not y.any()
    assert x.grad.isfinite().all()


def test_all_its_past_is_one_matrix_and_a_count_whatever_the_length():
    mixer = LinearAttention(16, Mask(True), n_heads=2)
    assert mixer.empty_state(3, 10).s.shape == (3, 2, 8, 9)
    assert mixer.cost(10).state_bytes == mixer.cost(10_000).state_bytes == 4 * 2 * 8 * 9


@pytest.mark.parametrize("causal", [True, False])
def test_it_costs_what_it_says(feature, causal, costs_what_it_says):
    costs_what_it_says(LinearAttention(16, Mask(causal), n_heads=2, feature=feature))


class Every(Mask):
    def sees(self, q, k):
        return (q.position - k.position) % 2 == 0


def test_what_it_can_not_do_is_refused(refused):
    with refused("d_model must be a multiple of n_heads, but got 16 and 3."):
        LinearAttention(16, Mask(True), n_heads=3)
    with refused("feature must be one of elu, relu, relu2, softmax, exp, but got 'cube'."):
        LinearAttention(16, Mask(True), feature="cube")
    with refused(
        "mask must be causal or full for LinearAttention, whose sum can not leave single tokens out, but got Every."
    ):
        LinearAttention(16, Every(True))
    with refused("mask must be causal for LinearAttention to go on from a past, but it reads both ways."):
        LinearAttention(16, Mask(False)).empty_state(1, 1)
