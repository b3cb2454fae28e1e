"""The decoder-only model: its parts in order, its table shared or not, its lengths, gains and refusals."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout
from blocks.embedding.factorised import FactorisedEmbedding
from blocks.head.classifier import Classifier
from blocks.head.tied import TiedHead
from blocks.init.gpt2 import Gpt2
from blocks.model.decoder_only import DecoderOnly
from blocks.norm.layer import LayerNorm
from blocks.residual.deep_norm import DeepNorm
from registry import ConfigError, factory

V, D = 13, 16
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
LAYOUT = Layout.full(2, 5)


def test_embeds_stacks_and_scores(decoder, ends):
    model = DecoderOnly(V, decoder=decoder, **ends).double()
    x, _ = model.decoder(model.embedding(TOKENS, LAYOUT), LAYOUT)
    assert_close(model.features(TOKENS, LAYOUT)[0], x)
    assert_close(model(TOKENS, LAYOUT)[0], x @ model.embedding.table.weight.T)


def test_shares_its_table_or_not(decoder, ends):
    tied, loose = (DecoderOnly(V, decoder=decoder, tie=tie, **ends) for tie in (True, False))
    assert tied.head.to_logits.weight is tied.embedding.table.weight
    assert loose.head.to_logits.weight is not loose.embedding.table.weight
    count = [sum(p.numel() for p in model.parameters()) for model in (tied, loose)]
    assert count[1] - count[0] == V * D


def test_a_shared_table_stays_shared_in_a_saved_model(decoder, ends):
    model, other = DecoderOnly(V, decoder=decoder, **ends), DecoderOnly(V, decoder=decoder, **ends)
    other.load_state_dict(model.state_dict())
    assert other.head.to_logits.weight is other.embedding.table.weight
    assert torch.equal(other(TOKENS, LAYOUT)[0], model(TOKENS, LAYOUT)[0])


def test_hides_the_future(decoder, ends):
    model, other = DecoderOnly(V, decoder=decoder, **ends), TOKENS.clone()
    other[:, 3:] = 0
    assert torch.equal(model(other, LAYOUT)[0][:, :3], model(TOKENS, LAYOUT)[0][:, :3])


def test_steps_give_what_the_whole_gives(decoder, ends):
    model = DecoderOnly(V, decoder=decoder, **ends).double()
    state, steps = model.empty_state(2, 5), []
    for t in range(5):
        logits, state = model(TOKENS[:, t : t + 1], LAYOUT.slice(t, t + 1), state)
        steps.append(logits)
    assert_close(torch.cat(steps, dim=1), model(TOKENS, LAYOUT)[0])


def test_the_same_seed_gives_the_same_start(decoder, ends):
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(DecoderOnly(V, decoder=decoder, **ends).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


def test_a_gain_falls_on_values_outputs_and_feed_forwards_only(layer, ends):
    from blocks.mask.causal import Causal
    from blocks.stack.plain import Layers

    deep = partial(layer, mask=Causal, residual=partial(DeepNorm, norm=LayerNorm))
    models = []
    for residual_layer in (partial(layer, mask=Causal), deep):
        torch.manual_seed(5)
        decoder = partial(Layers, layers=[residual_layer] * 4, norm=LayerNorm)
        models.append(DecoderOnly(V, decoder=decoder, **ends))
    gain = (8 * 4) ** -0.25
    for plain, deep in zip(models[0].decoder.layers, models[1].decoder.layers, strict=True):
        for name in ("mixer.to_v", "mixer.to_out", "ffn.to_hidden", "ffn.to_out"):
            assert_close(deep.get_submodule(name).weight, gain * plain.get_submodule(name).weight)
        for name in ("mixer.to_q", "mixer.to_k"):
            assert torch.equal(deep.get_submodule(name).weight, plain.get_submodule(name).weight)


def test_a_row_has_at_most_max_length_tokens(decoder, ends):
    model = DecoderOnly(V, decoder=decoder, **ends)
    with pytest.raises(ValueError, match=r"^a row must have at most max_length = 8 tokens, but got 9\.$"):
        model(torch.zeros(1, 9, dtype=torch.long), Layout.full(1, 9))
    with pytest.raises(ValueError, match=r"^a row must have at most max_length = 8 tokens, but got room for 9\.$"):
        model.empty_state(1, 9)


def test_cost_counts_a_shared_table_once_and_its_product_always(decoder, ends):
    tied, loose = (DecoderOnly(V, decoder=decoder, tie=tie, **ends).cost(6) for tie in (True, False))
    assert loose.parameters - tied.parameters == V * D
    assert tied.flops == loose.flops
    model = DecoderOnly(V, decoder=decoder, **ends)
    assert tied.flops - model.decoder.cost(6).flops == 2 * 6 * V * D
    narrow = DecoderOnly(V, decoder=decoder, **{**ends, "embedding": FactorisedEmbedding, "head": TiedHead}).cost(6)
    assert narrow.flops - model.decoder.cost(6).flops == 2 * 6 * (64 * D + 64 * D + V * 64)


def test_refuses_a_head_that_can_not_do_what_tie_says(decoder, ends):
    message = r"^Classifier must not be tied: it has no table to share\. Set model\.tie=false\.$"
    with pytest.raises(ValueError, match=message):
        DecoderOnly(V, decoder=decoder, **{**ends, "head": Classifier})
    with pytest.raises(ValueError, match=r"^head must be tied to an embedding for TiedHead, .* got model\.tie=false\."):
        DecoderOnly(V, decoder=decoder, tie=False, **{**ends, "head": TiedHead})
    DecoderOnly(V, decoder=decoder, tie=False, **{**ends, "head": Classifier})


def test_refuses_all_its_parts_at_once():
    layer = {"name": "layer/sequential", "mask": "mask/causal", "ffn": "ffn/mlp", "residual": "residual/pre_norm"}
    spec = {
        "name": "model/decoder_only",
        "embedding": {"name": "embedding/factorised", "d_embedding": 0},
        "decoder": {"name": "stack/plain", "layers": [{**layer, "mixer": {"name": "attention/mha", "n_heads": 3}}]},
        "head": {"name": "head/tagger", "n_tags": 1},
    }
    with pytest.raises(ConfigError) as refusal:
        factory(spec, path="model")(V)
    assert [line.partition(":")[0] for line in str(refusal.value).splitlines()] == [
        "model.embedding",
        "model.decoder.layers.0.mixer",
        "model.head",
    ]


def test_init_runs_on_the_whole_model_once(decoder, ends):
    seen = []

    class Spy(Gpt2):
        def __call__(self, model):
            seen.append((model, model.head.to_logits.weight is model.embedding.table.weight))

    model = DecoderOnly(V, decoder=decoder, **{**ends, "init": Spy})
    assert seen == [(model, True)]
