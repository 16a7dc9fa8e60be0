from typing import get_args

import diffusers

from valentina_pipeline.domain.samplers import SAMPLERS, SamplerName


def test_a_request_may_name_every_sampler_of_the_table_and_no_other() -> None:
    assert set(get_args(SamplerName)) == set(SAMPLERS)


def test_every_sampler_but_the_base_models_own_is_a_class_of_diffusers() -> None:
    classes = {name: sampler.diffusers for name, sampler in SAMPLERS.items()}
    assert classes.pop("default") == ""
    for name in classes.values():
        assert hasattr(getattr(diffusers, name), "from_config")


def test_no_name_of_a1111_means_two_samplers() -> None:
    meant = {(name.casefold(), ours) for ours, each in SAMPLERS.items() for name in (ours, *each.a1111)}
    assert len(meant) == len({name for name, _ in meant})
