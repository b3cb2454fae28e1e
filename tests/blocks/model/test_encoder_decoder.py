"""The encoder-decoder model: one embedding for both sides, a memory read once, depths known to both stacks."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout
from blocks.layer.sequential import Sequential
from blocks.model.encoder_decoder import EncoderDecoder

V = 13
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
SOURCE = torch.tensor([[7, 7, 8], [2, 1, 0]])
LAYOUT, READ = Layout.full(2, 5), Layout.full(2, 3)


def test_reads_the_source_and_writes_the_target(encoder, reader, ends):
    model = EncoderDecoder(V, encoder=encoder, decoder=reader, **ends)
    memory = model.encode(SOURCE, READ)
    assert_close(memory.x, model.encoder(model.embedding(SOURCE, READ), READ)[0])
    x, _ = model.decoder(model.embedding(TOKENS, LAYOUT), LAYOUT, None, memory)
    assert_close(model(TOKENS, LAYOUT, None, memory)[0], x @ model.embedding.table.weight.T)


def test_every_target_token_sees_the_whole_source_and_no_later_target(encoder, reader, ends):
    model = EncoderDecoder(V, encoder=encoder, decoder=reader, **ends)
    before = model(TOKENS, LAYOUT, None, model.encode(SOURCE, READ))[0]
    source, tokens = SOURCE.clone(), TOKENS.clone()
    source[:, -1], tokens[:, -1] = 5, 5
    assert not torch.equal(model(TOKENS, LAYOUT, None, model.encode(source, READ))[0][:, 0], before[:, 0])
    after = model(tokens, LAYOUT, None, model.encode(SOURCE, READ))[0]
    assert torch.equal(after[:, :-1], before[:, :-1])


def test_steps_give_what_the_whole_gives(encoder, reader, ends):
    model = EncoderDecoder(V, encoder=encoder, decoder=reader, **ends).double()
    memory = model.encode(SOURCE, READ)
    state, steps = model.empty_state(2, 5), []
    for t in range(5):
        logits, state = model(TOKENS[:, t : t + 1], LAYOUT.slice(t, t + 1), state, memory)
        steps.append(logits)
    assert_close(torch.cat(steps, dim=1), model(TOKENS, LAYOUT, None, memory)[0])


def test_each_stack_knows_the_depth_of_both(encoder, reader, ends):
    sites = []

    def spied(stack):
        def spy(layer):
            return lambda d_model, site: (sites.append(site), layer(d_model, site))[1]

        return partial(stack, layers=[spy(layer) for layer in stack.keywords["layers"]])

    EncoderDecoder(V, encoder=partial(spied(encoder), passes=2), decoder=spied(reader), **ends)
    assert {(site.encoder_layers, site.decoder_layers) for site in sites} == {(6, 2)}
    assert [(site.causal, site.reads_memory) for site in sites] == [(False, False)] * 3 + [(True, True)] * 2
    assert sites[0].shared is not sites[-1].shared


def test_refuses_a_decoder_that_ignores_the_source(encoder, decoder, ends):
    message = r"^cross_attention must read the encoder's memory, but got none\. Choose one, like mha\.$"
    with pytest.raises(ValueError, match=message):
        EncoderDecoder(V, encoder=encoder, decoder=decoder, **ends)


def test_a_source_has_at_most_max_length_tokens(encoder, reader, ends):
    model = EncoderDecoder(V, encoder=encoder, decoder=reader, **ends)
    with pytest.raises(ValueError, match=r"^a row must have at most max_length = 8 tokens, but got 9\.$"):
        model.encode(torch.zeros(1, 9, dtype=torch.long), Layout.full(1, 9))


def test_costs_a_source_and_a_target(encoder, reader, ends):
    model, length = EncoderDecoder(V, encoder=encoder, decoder=reader, **ends), 6
    cost = model.cost(length)
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost == model.cost(length, length)
    parts = [model.encoder.cost(9), model.decoder.cost(length, 9), model.head.cost(length)]
    assert model.cost(length, 9).flops == sum(part.flops for part in parts)
    assert model.cost(length, 9).state_bytes == model.decoder.cost(length, 9).state_bytes
    assert isinstance(model.decoder.layers[0], Sequential)
