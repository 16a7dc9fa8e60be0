"""Where a hub model counts as there: its configuration and its weights, looked up by name."""

from pathlib import Path

from valentina_pipeline.common.missing_model import download_command, has_hub_model


def test_a_folder_needs_configuration_and_weights(tmp_path: Path) -> None:
    assert not has_hub_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert not has_hub_model(str(tmp_path))
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    assert has_hub_model(str(tmp_path))


def test_a_name_that_the_hub_cannot_have_is_missing() -> None:
    assert not has_hub_model("/no/such/folder/at all")


def test_the_command_fetches_weights_of_one_format() -> None:
    assert '--include "*.safetensors"' in download_command("owner/model")
