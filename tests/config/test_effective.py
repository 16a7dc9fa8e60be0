"""The effective parameters: the base's values, under the concept's, under the user's."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.config.effective import STAGES, Params, resolve_params
from valentina_pipeline.config.train_lora import ExtraDatasetConfig, LayerOverrideConfig
from valentina_pipeline.config.validation import InvalidParameterError
from valentina_pipeline.domain.concept import SECTIONS, Concept
from valentina_pipeline.domain.renamed_keys import RENAMED_KEYS
from valentina_pipeline.domain.rights import RightsRecord

ROOT = Path(__file__).parents[2]


def read(path: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    return loaded


@pytest.fixture
def params() -> dict[str, Any]:
    return read("params.yaml")


@pytest.fixture
def bases() -> dict[str, Any]:
    return read("conf/base/bases.yml")


@pytest.fixture
def concept() -> dict[str, Any]:
    return read("conf/base/concepts/valentina_moreau.yml")


def test_auto_in_params_leaves_what_the_base_implies(params, bases, concept) -> None:
    made = resolve_params(params, bases, concept)["train_lora"]
    assert made | bases["tiny"]["train_lora"] == made
    assert made["optimizer"] == "adamw"


def test_a_null_is_refused(params, bases, concept) -> None:
    params["train_lora"]["rank"] = None
    with pytest.raises(InvalidParameterError, match=r"train_lora\.rank: Input should be a valid integer"):
        resolve_params(params, bases, concept)


def test_no_base_repeats_a_default(bases) -> None:
    fields = {stage: model.model_fields for stage, model in STAGES.items()}
    repeated = [
        (base, stage, key)
        for base in bases
        for stage in STAGES
        for key in bases[base][stage]
        if not fields[stage][key].is_required() and bases[base][stage][key] == fields[stage][key].default
    ]
    assert repeated == []


def test_gates_extend_those_of_the_base(params, bases, concept) -> None:
    params["register"]["gates"] = {"memorization.rate": {"max": 0.05}, "identity_scale.lowest": {}}
    gates = resolve_params(params, bases, concept)["register"]["gates"]
    assert gates["memorization.rate"] == {"max": 0.05}
    assert gates["identity_scale.lowest"] == {}
    assert gates["attributes.all.lora.mean"] == bases["tiny"]["register"]["gates"]["attributes.all.lora.mean"]
    assert gates["face_detection_rate.lora.mean"] == {"min": 0.9}


def test_the_concept_wins_over_the_base_and_params_win_over_both(params, bases, concept) -> None:
    concept["overrides"]["train_lora"] = {"rank": 4, "max_steps": 50}
    params["train_lora"]["rank"] = 24
    made = resolve_params(params, bases, concept)["train_lora"]
    assert (made["rank"], made["max_steps"]) == (24, 50)
    assert made["alpha"] == bases["tiny"]["train_lora"]["alpha"]


def test_zero_is_a_choice(params, bases, concept) -> None:
    params["train_lora"]["text_encoder_lr"] = 0
    assert resolve_params(params, bases, concept)["train_lora"]["text_encoder_lr"] == 0


@pytest.mark.parametrize("base", ["tiny", "sdxl", "sd15"])
def test_every_base_in_the_file_is_complete(params, bases, concept, base: str) -> None:
    made = resolve_params(params | {"base": base}, bases, concept)
    assert set(made) == {"concept", "base_name", "base", "seed", "num_threads", *STAGES}
    assert made["base_name"] == base
    assert made["base"]["resolution"] == made["align"]["resolution"]


@pytest.mark.parametrize(
    ("stage", "key", "value", "message"),
    [
        ("train_lora", "rnak", 8, "train_lora.rnak: Extra inputs"),
        ("train_lora", "rank", 0, "train_lora.rank: Input should be greater"),
        ("train_lora", "precision", "fp8", "train_lora.precision: Input should be"),
        ("align", "resolution", 100, "align.resolution: Input should be a multiple of 8"),
        ("caption", "captioner", "poet", "caption.captioner: Input should be"),
        ("register", "gates", {"memorization.rate": {"most": 1}}, "register.gates.memorization.rate.most"),
    ],
)
def test_an_unknown_key_or_a_value_out_of_range_is_named(
    params, bases, concept, stage: str, key: str, value: object, message: str
) -> None:
    params[stage][key] = value
    with pytest.raises(InvalidParameterError, match=message):
        resolve_params(params, bases, concept)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"max_steps": 0}, "max_steps is 0: set init_from"),
        ({"init_from": "a.safetensors", "method": "full"}, "cannot be used with method full"),
        ({"method": "full", "quantize": "nf4"}, "set quantize to none"),
        ({"optimizer": "schedule_free"}, "must have lr_scheduler: constant"),
        ({"timestep_range": [500, 500]}, "must be ascending and not negative"),
        ({"best_metric": "identity"}, "best_metric: identity needs image_eval_every"),
        ({"best_metric": "val_loss", "eval_every": 0}, "best_metric: val_loss needs eval_every"),
        ({"early_stopping_patience": 2}, "early_stopping_patience needs best_metric: val_loss or identity"),
        ({"target_modules": "to_["}, "is not a valid regular expression"),
        ({"export_formats": ["kohya"]}, "export_formats must contain diffusers"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_and_say_why(
    params, bases, concept, chosen: dict, said: str
) -> None:
    params["train_lora"] |= chosen
    with pytest.raises(InvalidParameterError, match=said):
        resolve_params(params, bases, concept)


def test_a_wrong_override_of_the_concept_is_named(params, bases, concept) -> None:
    concept["overrides"]["evaluate"] = {"step": 3}
    with pytest.raises(InvalidParameterError, match=r"evaluate\.step: "):
        resolve_params(params, bases, concept)


def test_an_unknown_top_level_key_is_named(params, bases, concept) -> None:
    with pytest.raises(InvalidParameterError, match="train: Extra inputs"):
        resolve_params(params | {"train": {}}, bases, concept)


def test_an_unknown_base_is_answered_with_those_there_are(params, bases, concept) -> None:
    known = "is not one of sd15, sdxl, sdxl_turbo, tiny: choose an entry of conf/base/bases.yml"
    with pytest.raises(InvalidParameterError, match=f"'sd3' in params.yaml {known}"):
        resolve_params(params | {"base": "sd3"}, bases, concept)
    with pytest.raises(InvalidParameterError, match=f"'sd3' in valentina_moreau.yml {known}"):
        resolve_params(params, bases, concept | {"base": "sd3"})


def test_the_base_of_a_concept_wins_and_changes_nothing_else(params, bases, concept) -> None:
    assert resolve_params(params, bases, concept | {"base": "sdxl"}) == resolve_params(
        params | {"base": "sdxl"}, bases, concept
    )
    assert resolve_params(params | {"base": "sdxl"}, bases, concept | {"base": "tiny"}) == resolve_params(
        params, bases, concept
    )


def test_a_base_that_lacks_a_stage_is_named(params, bases, concept) -> None:
    del bases["tiny"]["evaluate"]
    with pytest.raises(InvalidParameterError, match=r"bases\.tiny: needs exactly these keys"):
        resolve_params(params, bases, concept)


def test_a_concept_listed_twice_is_refused(params, bases, concept) -> None:
    with pytest.raises(InvalidParameterError, match="concepts must not list a name twice"):
        resolve_params(params | {"concepts": ["a", "a"]}, bases, concept)


@pytest.mark.parametrize("key", sorted(set(Concept.model_fields) - {"base"}))
def test_every_key_of_a_concept_is_needed_because_dvc_follows_each(params, bases, concept, key: str) -> None:
    del concept[key]
    with pytest.raises(InvalidParameterError, match=rf"concept\.{key}: Field required"):
        resolve_params(params, bases, concept)


def test_a_concept_has_an_override_for_each_stage(params, bases, concept) -> None:
    del concept["overrides"]["publish"]
    with pytest.raises(InvalidParameterError, match=r"overrides: .*needs exactly these keys"):
        resolve_params(params, bases, concept)


def test_a_minor_is_refused(params, bases, concept) -> None:
    with pytest.raises(InvalidParameterError, match=r"concept\.adult: Input should be True"):
        resolve_params(params, bases, concept | {"adult": False})


def test_stages_have_the_same_names_in_configuration_and_domain() -> None:
    assert tuple(STAGES) == SECTIONS


@pytest.mark.parametrize(
    ("stage", "values", "message"),
    [
        ("ingest", {"hosts": []}, r"ingest\.hosts: renamed to allowed_hosts"),
        ("train_lora", {"steps": 9}, r"train_lora\.steps: renamed to max_steps"),
        ("train_lora", {"debiased": True}, r"train_lora\.debiased: renamed to loss_weighting: debiased"),
        ("train_lora", {"keep": "loss"}, r"train_lora\.keep: renamed to best_metric"),
        ("train_lora", {"layer_overrides": {"up": {"rate": 2}}}, r"up\.rate: renamed to lr_scale"),
        ("train_lora", {"extra_datasets": {"reg": {"repeats": 2}}}, r"reg\.repeats: renamed to num_repeats"),
        ("evaluate", {"guidance": 1.0}, r"evaluate\.guidance: renamed to guidance_scale"),
    ],
)
def test_a_former_key_is_refused_with_its_new_name(
    params, bases, concept, stage: str, values: dict, message: str
) -> None:
    params.setdefault(stage, {}).update(values)
    with pytest.raises(InvalidParameterError, match=message):
        resolve_params(params, bases, concept)


def test_former_keys_of_the_other_files_are_refused_alike(params, bases, concept) -> None:
    with pytest.raises(InvalidParameterError, match=r"^threads: renamed to num_threads$"):
        resolve_params(params | {"threads": 2}, bases, concept)
    with pytest.raises(InvalidParameterError, match=r"concept\.identity: renamed to renderer_parameters"):
        resolve_params(params, bases, concept | {"identity": {}})
    bases["tiny"]["model"]["obtain"] = "x"
    with pytest.raises(InvalidParameterError, match=r"model\.obtain: renamed to download_instructions"):
        resolve_params(params, bases, concept)


def test_every_new_name_is_a_key() -> None:
    """Each name in the table of former keys is a key of its model, and no former key is."""
    models: dict[str, type[BaseModel]] = {
        **STAGES,
        "": Params,
        "base": BaseConfig,
        "concept": Concept,
        "ledger": RightsRecord,
        "train_lora.layer_overrides": LayerOverrideConfig,
        "train_lora.extra_datasets": ExtraDatasetConfig,
    }
    for section, renamed in RENAMED_KEYS.items():
        keys = set(models[section].model_fields)
        assert {new.split(" ")[0].rstrip(":") for new in renamed.values()} <= keys, section
        assert not keys & set(renamed), section
