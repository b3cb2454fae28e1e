"""Which laws a block is under."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from blocks.contracts import (
    Attention,
    Embedding,
    EmbeddingPosition,
    Ffn,
    Head,
    Init,
    Layer,
    Mask,
    Mixer,
    Model,
    Norm,
    Normaliser,
    Residual,
    Score,
    Stack,
)
from blocks.laws.cost import FFN_COST_LAWS, MIXER_COST_LAWS, a_model_costs_what_it_says
from blocks.laws.memory import (
    ignores_padding_in_a_memory,
    reads_a_memory_step_by_step,
    reads_the_memory_of_its_document,
)
from blocks.laws.mixing import (
    agrees_with_the_eager_kernel,
    checkpoints,
    compiles,
    follows_its_rows,
    hides_the_future,
    hides_what_its_mask_hides,
    ignores_padding,
    keeps_documents_apart,
    keeps_rows_apart,
    keeps_shape_and_dtype,
    resumes_after_padding,
    stands_bfloat16,
    steps_as_a_whole,
    steps_through_documents,
    survives_its_state_dict,
    survives_seeing_nothing,
    uses_every_parameter,
)
from blocks.laws.models import learns_a_tiny_batch, starts_at_chance, starts_linears_and_embeddings
from blocks.laws.parts import (
    embeds_and_scores,
    hides_what_it_says,
    norms_each_token_alone,
    reports_finite_losses,
    scores_and_loses_alike,
    stays_within_its_document,
    ties_to_the_stream,
    uses_every_parameter_of_features,
)
from blocks.laws.positions import (
    embeds_each_token_by_its_place,
    knows_order_as_declared,
    stays_when_a_document_moves,
    uses_its_position,
)
from blocks.laws.reader import Reader
from blocks.laws.roles import ROLE_LAWS
from blocks.laws.weighing import (
    adds_up_as_declared,
    learns_from_scores,
    prepares_each_token_alone,
    rotates_once,
    scores_with_every_parameter,
    weighs_each_query_alone,
    weighs_only_what_is_allowed,
)

MIXER_LAWS: list[Callable[[Any], None]] = [
    keeps_shape_and_dtype,
    uses_every_parameter,
    hides_the_future,
    hides_what_its_mask_hides,
    ignores_padding,
    keeps_documents_apart,
    steps_as_a_whole,
    steps_through_documents,
    resumes_after_padding,
    follows_its_rows,
    keeps_rows_apart,
    survives_seeing_nothing,
    agrees_with_the_eager_kernel,
    survives_its_state_dict,
    compiles,
    stands_bfloat16,
    checkpoints,
    *MIXER_COST_LAWS,
    uses_its_position,
]
MEMORY_LAWS: list[Callable[[Any], None]] = [
    reads_a_memory_step_by_step,
    ignores_padding_in_a_memory,
    reads_the_memory_of_its_document,
]
PLACED_LAWS: list[Callable[[Any], None]] = [keeps_shape_and_dtype, uses_its_position]
"""Of an attention under every position there is: what its other laws need not be tried on again."""

LAWS: list[tuple[type, list[Callable[[Any], None]]]] = [
    (Attention, [*MIXER_LAWS, knows_order_as_declared, stays_when_a_document_moves]),
    (Reader, [*MIXER_LAWS, *MEMORY_LAWS]),
    (Mixer, MIXER_LAWS),
    (Ffn, [uses_every_parameter, stays_within_its_document, reports_finite_losses, *FFN_COST_LAWS]),
    (Norm, [norms_each_token_alone, uses_every_parameter_of_features]),
    (Residual, [ties_to_the_stream]),
    (Mask, [hides_what_it_says]),
    (EmbeddingPosition, [embeds_each_token_by_its_place]),
    (Embedding, [embeds_and_scores]),
    (Head, [scores_and_loses_alike]),
    (Score, [prepares_each_token_alone, rotates_once, scores_with_every_parameter]),
    (
        Normaliser,
        [weighs_only_what_is_allowed, weighs_each_query_alone, adds_up_as_declared, learns_from_scores],
    ),
    (Init, [starts_linears_and_embeddings]),
    (Model, [starts_at_chance, learns_a_tiny_batch, a_model_costs_what_it_says]),
]


def laws_of(block: Any) -> list[Callable[[Any], None]]:
    """The laws that a block of this kind is under."""
    laws = next((laws for kind, laws in LAWS if isinstance(block, kind)), [])
    laws = [*laws, *ROLE_LAWS] if isinstance(block, nn.Module) else laws
    reads = isinstance(block, Attention) and not block.mask.causal and not isinstance(block, Layer | Stack)
    return [*laws, *MEMORY_LAWS] if reads else laws
