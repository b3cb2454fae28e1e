"""The promises of the contracts as code, for our blocks and for yours.

A law takes a built block and raises ``Broken`` with a sentence where the block does not keep it.

    from blocks.laws import laws_of

    for law in laws_of(block):
        law(block)

``blocks.cases`` tries every registered name under every law.

Blocks are judged in float64 where exactness is meant: there ``EXACT`` tells right from wrong.
"""

from blocks.laws.cost import (
    FFN_COST_LAWS,
    MIXER_COST_LAWS,
    a_model_costs_what_it_says,
    costs_what_it_says,
    holds_what_it_says,
    lowers_as_it_says,
    reaches_what_it_says,
    takes_the_steps_it_says,
)
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
from blocks.laws.roles import ROLE_LAWS, gives_every_parameter_a_role, writes_with_its_writers
from blocks.laws.table import LAWS, MEMORY_LAWS, MIXER_LAWS, PLACED_LAWS, laws_of
from blocks.laws.trying import BF16, EXACT, B, Broken, D, T, V, agree, hold, stirred
from blocks.laws.weighing import (
    adds_up_as_declared,
    learns_from_scores,
    prepares_each_token_alone,
    rotates_once,
    scores_with_every_parameter,
    weighs_each_query_alone,
    weighs_only_what_is_allowed,
)

__all__ = [
    "BF16",
    "EXACT",
    "FFN_COST_LAWS",
    "LAWS",
    "MEMORY_LAWS",
    "MIXER_COST_LAWS",
    "MIXER_LAWS",
    "PLACED_LAWS",
    "ROLE_LAWS",
    "B",
    "Broken",
    "D",
    "Reader",
    "T",
    "V",
    "a_model_costs_what_it_says",
    "adds_up_as_declared",
    "agree",
    "agrees_with_the_eager_kernel",
    "checkpoints",
    "compiles",
    "costs_what_it_says",
    "embeds_and_scores",
    "embeds_each_token_by_its_place",
    "follows_its_rows",
    "gives_every_parameter_a_role",
    "hides_the_future",
    "hides_what_it_says",
    "hides_what_its_mask_hides",
    "hold",
    "holds_what_it_says",
    "ignores_padding",
    "ignores_padding_in_a_memory",
    "keeps_documents_apart",
    "keeps_rows_apart",
    "keeps_shape_and_dtype",
    "knows_order_as_declared",
    "laws_of",
    "learns_a_tiny_batch",
    "learns_from_scores",
    "lowers_as_it_says",
    "norms_each_token_alone",
    "prepares_each_token_alone",
    "reaches_what_it_says",
    "reads_a_memory_step_by_step",
    "reads_the_memory_of_its_document",
    "reports_finite_losses",
    "resumes_after_padding",
    "rotates_once",
    "scores_and_loses_alike",
    "scores_with_every_parameter",
    "stands_bfloat16",
    "starts_at_chance",
    "starts_linears_and_embeddings",
    "stays_when_a_document_moves",
    "stays_within_its_document",
    "steps_as_a_whole",
    "steps_through_documents",
    "stirred",
    "survives_its_state_dict",
    "survives_seeing_nothing",
    "takes_the_steps_it_says",
    "ties_to_the_stream",
    "uses_every_parameter",
    "uses_every_parameter_of_features",
    "uses_its_position",
    "weighs_each_query_alone",
    "weighs_only_what_is_allowed",
    "writes_with_its_writers",
]
