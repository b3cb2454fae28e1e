"""Which laws a part of a run is under."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L

from blocks import laws as blocks_laws
from training.contracts import Objective, Optimizer, Schedule, Tokenizer
from training.laws.data import (
    Source,
    depends_on_its_seed_alone,
    draws_every_epoch_anew,
    gives_what_a_model_takes,
    keeps_validation_apart,
    resumes_anywhere,
    shows_samples,
    states_its_facts,
)
from training.laws.objectives import (
    averages_over_its_targets,
    draws_from_its_generator,
    hides_its_answers,
    keeps_documents_apart,
    makes_batches,
    prompts_or_refuses,
)
from training.laws.optimizers import (
    Descent,
    decays_only_what_it_may,
    follows_its_learning_rate,
    moves_every_parameter,
    resumes_from_its_state,
    takes_every_parameter_once,
)
from training.laws.running import (
    Writer,
    remembers_by_its_state,
    takes_hyperparameters,
    takes_part_in_a_run,
    writes_what_it_is_given,
)
from training.laws.schedules import (
    changes_little_by_little,
    depends_on_the_step_alone,
    stays_within_bounds,
    takes_a_first_and_a_last_step,
)
from training.laws.tokenizers import counts_bytes, keeps_ids_in_range, says_text_back, survives_its_state

OPTIMIZER_LAWS: list[Callable[[Any], None]] = [
    takes_every_parameter_once,
    moves_every_parameter,
    decays_only_what_it_may,
    follows_its_learning_rate,
    resumes_from_its_state,
]
LAWS: list[tuple[type | tuple[type, ...], list[Callable[[Any], None]]]] = [
    (Tokenizer, [says_text_back, keeps_ids_in_range, counts_bytes, survives_its_state]),
    (
        Objective,
        [
            makes_batches,
            draws_from_its_generator,
            hides_its_answers,
            keeps_documents_apart,
            averages_over_its_targets,
            prompts_or_refuses,
        ],
    ),
    (
        Source,
        [
            depends_on_its_seed_alone,
            draws_every_epoch_anew,
            resumes_anywhere,
            keeps_validation_apart,
            gives_what_a_model_takes,
            states_its_facts,
            shows_samples,
        ],
    ),
    ((Optimizer, Descent), OPTIMIZER_LAWS),
    (
        Schedule,
        [
            stays_within_bounds,
            takes_a_first_and_a_last_step,
            changes_little_by_little,
            depends_on_the_step_alone,
        ],
    ),
    (L.Callback, [takes_part_in_a_run, remembers_by_its_state]),
    (Writer, [writes_what_it_is_given, takes_hyperparameters]),
]


def laws_of(block: Any) -> list[Callable[[Any], None]]:
    """The laws that a block of this kind is under, a part of a run or of a model."""
    return next((laws for kind, laws in LAWS if isinstance(block, kind)), None) or blocks_laws.laws_of(block)
