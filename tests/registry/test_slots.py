"""Holds the resolver to: general is refined by special, auto asks the blocks, and nothing is dropped in silence."""

from __future__ import annotations

from typing import Any

import pytest

from registry import ConfigError
from registry.slots import resolve, trace
from tests.registry.toys import REGISTRY

BASE: dict[str, Any] = {
    "model": "decoder_only",
    "attention": "mha",
    "norm": "rms",
    "ffn": "mlp",
    "residual": "pre_norm",
}


def spec(**config: Any) -> dict[str, Any]:
    return resolve({**BASE, **config}, REGISTRY)


def layers(stack: str = "decoder", **config: Any) -> list[dict[str, Any]]:
    return spec(**config)["model"][stack]["layers"]


def wrong(**config: Any) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        spec(**config)
    return str(refusal.value).splitlines()


def of(slot: str, found: list[dict[str, Any]]) -> list[str | None]:
    return [layer[slot] and layer[slot]["name"] for layer in found]


def test_everything_is_written_out():
    assert spec(decoder={"n_layers": 1}, seed=3) == {
        "seed": 3,
        "model": {
            "name": "model/decoder_only",
            "d_model": 64,
            "embedding": {"name": "embedding/token"},
            "decoder": {
                "name": "stack/plain",
                "layers": [
                    {
                        "name": "layer/sequential",
                        "mixer": {
                            "name": "attention/mha",
                            "n_heads": 8,
                            "n_kv_heads": None,
                            "dropout": 0.0,
                            "backend": "auto",
                        },
                        "mask": {"name": "mask/causal"},
                        "position": {"name": "position/rope", "base": 10000.0},
                        "ffn": {"name": "ffn/mlp", "d_ff": None, "activation": "gelu"},
                        "residual": {
                            "name": "residual/pre_norm",
                            "norm": {"name": "norm/rms", "eps": 1e-6},
                            "dropout": 0.0,
                        },
                        "cross_attention": None,
                    }
                ],
                "norm": {"name": "norm/rms", "eps": 1e-6},
                "position": [],
            },
            "head": {"name": "head/linear", "bias": False},
        },
    }


def test_a_resolved_spec_is_complete():
    made = spec(model="encoder_decoder", position=["sinusoidal", "rope", "alibi"])["model"]
    assert REGISTRY.complete(made) == made


# General and special ----------------------------------------------------------------------------------------------


def test_a_stack_refines_what_is_chosen_for_all():
    found = layers(attention={"name": "gqa", "n_heads": 4}, decoder={"attention": {"n_kv_heads": 1}, "n_layers": 1})
    assert found[0]["mixer"] == {
        "name": "attention/gqa",
        "n_heads": 4,
        "n_kv_heads": 1,
        "dropout": 0.0,
        "backend": "auto",
    }


def test_another_block_drops_the_choices_of_the_old_one():
    found = layers(attention={"name": "gqa", "n_heads": 4}, decoder={"attention": "mha", "n_layers": 1})
    assert found[0]["mixer"]["name"] == "attention/mha"
    assert found[0]["mixer"]["n_heads"] == 8


def test_the_same_block_named_again_keeps_them():
    found = layers(attention={"name": "gqa", "n_heads": 4}, decoder={"attention": "attention/gqa", "n_layers": 1})
    assert found[0]["mixer"]["n_heads"] == 4


def test_the_most_special_level_wins():
    found = layers(
        mask={"name": "window", "size": 1},
        decoder={
            "mask": {"size": 2},
            "n_layers": 4,
            "pattern": ["local", "local", "global"],
            "variants": {"local": {"mask": {"size": 3}}},
            "layers": {"1": {"mask": {"size": 4}}},
        },
    )
    assert [layer["mask"]["size"] for layer in found] == [3, 4, 2, 3]


def test_a_pattern_is_dealt_out_over_the_layers():
    found = layers(decoder={"n_layers": 8, "pattern": ["local*2", "global"]})
    assert of("mask", found) == ["mask/window", "mask/window", "mask/causal"] * 2 + ["mask/window", "mask/window"]


def test_a_pattern_may_name_blocks():
    found = layers(
        decoder={"n_layers": 4, "pattern": ["lstm", "attention", "none"], "variants": {"none": {"ffn": "none"}}}
    )
    assert of("mixer", found) == ["recurrent/lstm", "attention/mha", "attention/mha", "recurrent/lstm"]
    assert of("ffn", found) == ["ffn/mlp", "ffn/mlp", "ffn/none", "ffn/mlp"]


def test_a_layer_may_be_one_of_the_variants():
    found = layers(decoder={"n_layers": 2, "layers": {1: "local"}})
    assert of("mask", found) == ["mask/causal", "mask/window"]


def test_mixer_attention_is_whatever_the_attention_slot_holds():
    found = layers(attention="gqa", mixer="lstm", decoder={"n_layers": 2, "layers": {"1": {"mixer": "attention"}}})
    assert of("mixer", found) == ["recurrent/lstm", "attention/gqa"]


def test_a_mixer_may_be_any_attention_by_name():
    assert of("mixer", layers(mixer="linformer", decoder={"n_layers": 1})) == ["attention/linformer"]


def test_choices_of_the_mixer_refine_the_attention():
    found = layers(mixer={"name": "attention", "n_heads": 2}, decoder={"n_layers": 1})
    assert found[0]["mixer"]["n_heads"] == 2


def test_the_norm_slot_fills_residuals_and_the_top():
    made = spec(norm="layer", decoder={"n_layers": 2, "norm": {"eps": 1e-3}, "layers": {"1": {"norm": "rms"}}})
    decoder = made["model"]["decoder"]
    assert decoder["norm"] == {"name": "norm/layer", "eps": 1e-3}
    assert [layer["residual"]["norm"]["name"] for layer in decoder["layers"]] == ["norm/layer", "norm/rms"]


def test_a_norm_chosen_for_the_residual_wins():
    found = layers(residual={"name": "pre_norm", "norm": {"name": "layer", "eps": 0.1}}, decoder={"n_layers": 1})
    assert found[0]["residual"]["norm"] == {"name": "norm/layer", "eps": 0.1}


def test_choices_for_the_residuals_norm_refine_the_slot():
    found = layers(residual={"name": "pre_norm", "norm": {"eps": 0.1}}, norm="layer", decoder={"n_layers": 1})
    assert found[0]["residual"]["norm"] == {"name": "norm/layer", "eps": 0.1}


def test_null_is_none():
    assert of("ffn", layers(decoder={"n_layers": 2, "layers": {"0": {"ffn": None}}})) == ["ffn/none", "ffn/mlp"]


def test_params_reach_a_block_wherever_it_is_used():
    config = {"params": {"gqa": {"n_kv_heads": 1}, "rms": {"eps": 0.5}}, "decoder": {"n_layers": 1}}
    found = layers(attention="gqa", **config)
    assert found[0]["mixer"]["n_kv_heads"] == 1
    assert found[0]["residual"]["norm"]["eps"] == 0.5
    assert layers(attention="mha", **config)[0]["mixer"]["n_kv_heads"] is None  # so that attention can be swept


def test_a_choice_made_in_place_beats_params():
    found = layers(
        attention={"name": "gqa", "n_kv_heads": 4}, params={"gqa": {"n_kv_heads": 1}}, decoder={"n_layers": 1}
    )
    assert found[0]["mixer"]["n_kv_heads"] == 4


def test_the_backend_goes_to_every_block_that_has_one():
    assert layers(backend="eager", decoder={"n_layers": 1})[0]["mixer"]["backend"] == "eager"
    assert wrong(backend="warp", decoder={"n_layers": 1}) == [
        "backend: must be one of 'auto', 'eager', 'sdpa', but got 'warp'."
    ]


def test_a_stack_can_be_of_another_kind():
    decoder = spec(decoder={"stack": {"name": "looped", "loops": 3}, "n_layers": 1})["model"]["decoder"]
    assert (decoder["name"], decoder["loops"], len(decoder["layers"])) == ("stack/looped", 3, 1)


# What auto means --------------------------------------------------------------------------------------------------


def test_the_mask_follows_the_direction_of_the_stack():
    made = spec(model="encoder_decoder")["model"]
    assert set(of("mask", made["encoder"]["layers"])) == {"mask/full"}
    assert set(of("mask", made["decoder"]["layers"])) == {"mask/causal"}


def test_the_position_is_what_each_mixer_asks_for():
    decoder = spec(decoder={"n_layers": 3, "pattern": ["attention", "lstm", "word_window"]})["model"]["decoder"]
    assert of("position", decoder["layers"]) == ["position/rope", None, None]
    assert decoder["position"] == [{"name": "position/sinusoidal", "base": 10000.0}]  # word_window asks for it


def test_choices_for_auto_go_to_what_it_means():
    assert layers(position={"base": 5.0}, decoder={"n_layers": 1})[0]["position"]["base"] == 5.0


def test_only_what_reads_an_encoder_has_cross_attention():
    made = spec(model="encoder_decoder")["model"]
    assert set(of("cross_attention", made["encoder"]["layers"])) == {None}
    assert set(of("cross_attention", made["decoder"]["layers"])) == {"attention/mha"}
    assert set(of("cross_attention", layers())) == {None}


def test_cross_attention_takes_over_widths_only():
    found = layers(model="encoder_decoder", attention={"name": "gqa", "n_heads": 2, "n_kv_heads": 1, "dropout": 0.1})
    assert found[0]["cross_attention"] == {
        "name": "attention/mha",
        "n_heads": 2,
        "n_kv_heads": None,
        "dropout": 0.1,
        "backend": "auto",
    }


def test_cross_attention_can_be_chosen_and_left_out():
    decoder = {"cross_attention": "linformer", "n_layers": 2, "layers": {"1": {"cross_attention": None}}}
    found = layers(model="encoder_decoder", mixer="lstm", decoder=decoder)
    assert of("cross_attention", found) == ["attention/linformer", None]


@pytest.mark.parametrize(
    ("model", "data", "objective"),
    [
        ("decoder_only", "copy", "next_token"),
        ("encoder_only", "copy", "masked_token"),
        ("encoder_decoder", {"name": "text", "path": "x"}, "span_corruption"),
        ("encoder_decoder", "copy", "next_token"),
    ],
)
def test_the_objective_is_what_the_model_is_for(model, data, objective):
    assert spec(model=model, data=data, objective="auto")["objective"]["name"] == f"objective/{objective}"


def test_auto_that_means_nothing_is_refused():
    assert wrong(optimizer="auto", data="copy") == [
        "optimizer: auto must mean something, but neither decoder_only nor copy prefers one. Choose one."
    ]


# Positions --------------------------------------------------------------------------------------------------------


def test_the_type_of_a_position_says_where_it_acts():
    decoder = spec(position="sinusoidal", decoder={"n_layers": 1})["model"]["decoder"]
    assert decoder["position"] == [{"name": "position/sinusoidal", "base": 10000.0}]
    assert of("position", decoder["layers"]) == [None]


def test_a_list_of_positions_is_split_by_where_they_act():
    decoder = spec(position=["sinusoidal", {"name": "rope", "base": 5.0}], decoder={"n_layers": 1})["model"]["decoder"]
    assert decoder["position"] == [{"name": "position/sinusoidal", "base": 10000.0}]
    assert decoder["layers"][0]["position"] == {"name": "position/rope", "base": 5.0}


def test_two_positions_inside_attention_are_a_sum():
    found = layers(position={"name": "sum", "parts": ["rope", "alibi"]}, decoder={"n_layers": 1})
    assert found[0]["position"] == {
        "name": "position/sum",
        "parts": [{"name": "position/rope", "base": 10000.0}, {"name": "position/alibi"}],
    }


def test_a_layer_may_choose_what_acts_inside_it():
    decoder = spec(position=["sinusoidal", "rope"], decoder={"n_layers": 2, "layers": {"1": {"position": "none"}}})
    decoder = decoder["model"]["decoder"]
    assert of("position", decoder["layers"]) == ["position/rope", None]
    assert [p["name"] for p in decoder["position"]] == ["position/sinusoidal"]


def test_a_layer_may_not_choose_what_acts_at_the_foot():
    assert wrong(decoder={"n_layers": 2, "layers": {"1": {"position": "sinusoidal"}}}) == [
        "decoder.layers.1.position: sinusoidal acts once at the foot of the stack, so it must be chosen for the whole "
        "stack (decoder.position=sinusoidal), but here it is chosen for some layers only. "
        "A layer may choose among: alibi, rope."
    ]


def test_a_position_with_nothing_to_act_in_is_refused():
    assert wrong(model="encoder_decoder", position="rope", decoder={"mixer": "lstm"}) == [
        "position: rope acts inside attention, so the mixer must be attention, but decoder.mixer is lstm. "
        "For decoder.position choose auto, none or one that acts at the foot of a stack (sinusoidal)."
    ]


def test_no_position_is_fine_anywhere():
    assert of("position", layers(position="none", mixer="lstm")) == [None] * 4
    assert of("position", layers(position=None)) == [None] * 4


# The rest of a run ------------------------------------------------------------------------------------------------


def test_what_trains_is_completed_too():
    made = spec(optimizer={"name": "adamw", "lr": 1}, trainer={"max_steps": 3})
    assert made["optimizer"] == {"name": "optimizer/adamw", "lr": 1.0}
    assert made["trainer"] == {"max_steps": 3}


@pytest.mark.parametrize(
    "callbacks",
    [
        [{"name": "early_stopping", "patience": 5}],
        {"early_stopping": {"patience": 5}},
        {"early_stopping": {"patience": 5}, "nothing": None},
    ],
)
def test_callbacks_are_a_list_or_a_mapping(callbacks):
    assert spec(callbacks=callbacks)["callbacks"] == [{"name": "callback/early_stopping", "patience": 5}]


def test_what_is_already_used_up_is_not_in_the_spec():
    made = spec(params={}, backend="auto", decoder={}, callbacks={})
    assert set(made) == {"model", "callbacks"}


# Where things come from -------------------------------------------------------------------------------------------


def test_a_refusal_at_building_names_the_choice_and_the_layer():
    config = {**BASE, "attention": {"name": "mha", "n_heads": 5}, "decoder": {"layers": {"2": {"mask": "window"}}}}
    resolved = trace(config, REGISTRY)
    assert resolved.origins["model.decoder.layers.0.mixer"] == "attention (decoder.layers.0.mixer)"
    assert resolved.origins["model.decoder.layers.2.mask"] == "decoder.layers.2.mask"
    assert resolved.origins["model.decoder.layers.1.mask"] == "mask (auto: causal) (decoder.layers.1.mask)"
    layer = resolved.spec["model"]["decoder"]["layers"][0]["mixer"]
    make = REGISTRY.factory(layer, path="model.decoder.layers.0.mixer", origins=resolved.origins)
    with pytest.raises(ConfigError) as refusal:
        make(64, None, None)
    assert str(refusal.value) == (
        "attention (decoder.layers.0.mixer): d_model must be a multiple of n_heads, but got 64 and 5."
    )


# Mistakes ---------------------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_said_at_once():
    assert wrong(
        attention={"name": "gqa", "kv_heads": 1},
        ffn={"name": "mlp", "d_ff": "wide"},
        optimizer="adam",
        lr=1,
        d_model=3,
        decoder={"n_layers": 2, "n_layer": 3, "layers": {"9": {}}},
        encoder={"n_layers": 2},
    ) == [
        "decoder.n_layer: a stack has no 'n_layer'. Did you mean 'n_layers'? It has: n_layers, pattern, variants, "
        "layers, mixer, attention, cross_attention, position, mask, norm, ffn, residual, layer, stack.",
        "decoder.layers.9: must be a layer of decoder, 0 to 1, but got '9'.",
        "attention.kv_heads: gqa has no choice 'kv_heads'. Did you mean 'n_kv_heads'? "
        "It has: n_heads, n_kv_heads, dropout, backend.",
        "ffn.d_ff: must be a whole number or null, but got 'wide'.",
        "optimizer: no block is named 'adam'. Did you mean 'adamw'? There are: adamw. "
        "A block of your own must be listed in plugins=[...].",
        "lr: nothing in a config is called 'lr'.",
        "d_model: nothing in a config is called 'd_model'. Did you mean 'model.d_model'?",
        "encoder: decoder_only must not be given one, but it is: it has decoder. "
        "Models with that stack: encoder_decoder, encoder_only.",
    ]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"mask": "full"}, "mask: a decoder must hide the future, but full hides nothing. Choose causal."),
        ({"mask": {"name": "window", "size": 0}}, "mask: size must be at least 1, but got 0."),
        ({"attention": 7}, "attention: must be a name, or a mapping with the choices of a block, but got 7."),
        (
            {"attention": ["mha"]},
            "attention: must be one block, but got a list: ['mha']. A pattern says which layer has which.",
        ),
        ({"seed": "one"}, "seed: must be a whole number, but got 'one'."),
        ({"decoder": 3}, "decoder: must be a mapping, but got 3."),
        ({"decoder": {"n_layers": 0}}, "decoder.n_layers: must be at least 1, but got 0."),
        ({"decoder": {"n_layers": "two"}}, "decoder.n_layers: must be a whole number, but got 'two'."),
        ({"decoder": {"pattern": 3}}, "decoder.pattern: must be a list of variants or blocks, but got 3."),
        (
            {"decoder": {"pattern": ["local*x"]}},
            "decoder.pattern: a repeat must be a whole number behind a star, as in local*5, but got 'local*x'.",
        ),
        (
            {"decoder": {"pattern": ["locl"]}},
            "decoder.pattern: no variant and no block is named 'locl'. Did you mean 'local'? Variants: local, global.",
        ),
        (
            {"decoder": {"pattern": ["none"]}},
            "decoder.pattern: must say which 'none', which is a position and a ffn and a residual. "
            "Name a variant that chooses it.",
        ),
        (
            {"decoder": {"variants": {"near": {"mask": "window"}}}},
            "decoder.variants.near: some layer must be of this variant, but none is. "
            "Deal it out with decoder.pattern=[near,...].",
        ),
        (
            {"decoder": {"variants": {"local": {"mask": {"size": 3}}}}},
            "decoder.variants.local: some layer must be of this variant, but none is. "
            "Deal it out with decoder.pattern=[local,...].",
        ),
        (
            {"decoder": {"layers": {"0": {"masks": "window"}}}},
            "decoder.layers.0.masks: a layer has no slot 'masks'. Did you mean 'mask'? "
            "It has: mixer, attention, cross_attention, position, mask, norm, ffn, residual, layer.",
        ),
        (
            {"decoder": {"layers": {"0": 3}}},
            "decoder.layers.0: must be a mapping from slots to blocks, but got 3.",
        ),
        (
            {"mixer": "lstm", "decoder": {"attention": "gqa"}},
            "decoder.attention: some layer must use it, but every mixer of decoder is another. "
            "Say decoder.mixer=attention, or leave it out.",
        ),
        (
            {"cross_attention": "mha"},
            "cross_attention: a cross-attention must have another sequence to read, but decoder_only has none there. "
            "Leave it out, or choose a decoder that reads an encoder: model=encoder_decoder.",
        ),
        (
            {"model": "encoder_decoder", "encoder": {"cross_attention": "mha"}},
            "encoder.cross_attention: a cross-attention must have another sequence to read, but encoder_decoder has "
            "none there. Leave it out, or choose a decoder that reads an encoder: model=encoder_decoder.",
        ),
        (
            {"model": "encoder_decoder", "layer": "parallel"},
            "layer: parallel must have a slot for the cross_attention, but it has none.",
        ),
        (
            {"layer": {"name": "sequential", "ffn": "none"}},
            "layer.ffn: it is filled from the slot ffn: say ffn=....",
        ),
        (
            {"params": {"gqaa": {"n_heads": 1}}},
            "params.gqaa: no block is named 'gqaa'. Did you mean 'gqa'?",
        ),
        (
            {"params": {"gqa": {"heads": 1}}},
            "params.gqa.heads: gqa has no choice 'heads'. Did you mean 'n_heads'? "
            "It has: n_heads, n_kv_heads, dropout, backend.",
        ),
        (
            {"params": {"gqa": 1}},
            "params.gqa: must be a mapping from choices to values, but got 1.",
        ),
        ({"data": "text"}, "data.path: text needs 'path' (Which.); it has no default."),
        (
            {"head": {"name": "linear", "_target_": "os.system"}},
            "head._target_: a config must name registered blocks, but this names a Python object: 'os.system'.",
        ),
        (
            {"position": ["rope", 3]},
            "position.parts.1: must be the name of a position, or a mapping with one, but got 3.",
        ),
        (
            {"model": {"name": "decoder_only", "decoder": {"name": "plain"}}},
            "model.decoder: decoder is a section of its own: say decoder.<choice>.",
        ),
    ],
)
def test_a_mistake_is_said_with_its_place(config, sentence):
    assert sentence in wrong(**config)


def test_a_slot_that_nobody_fills_is_refused():
    with pytest.raises(ConfigError) as refusal:
        resolve({"model": "decoder_only", "attention": "mha", "norm": "rms", "residual": "pre_norm"}, REGISTRY)
    assert str(refusal.value) == "ffn: a block must be chosen, but none is. There are: mlp, none."
