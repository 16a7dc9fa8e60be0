"""API keys: whose they are, how often and how much."""

from pathlib import Path

import pytest

from valentina_pipeline.serving.api.auth import (
    ApiKeyAuth,
    InvalidKeysError,
    Key,
    RateLimitError,
    create_key,
    read_keys,
)


def gate(**limits: int) -> tuple[ApiKeyAuth, str, list[float]]:
    key, lines = create_key("ada")
    now = [0.0]
    held = {"ada": Key(sha256=lines.split("sha256: ")[1].split()[0], **limits)}
    return ApiKeyAuth(held, lambda: now[0]), key, now


def test_a_key_s_lines_make_the_file_that_knows_it(tmp_path: Path) -> None:
    key, lines = create_key("ada")
    file = tmp_path / "keys.yml"
    file.write_text(lines + create_key("bob")[1])
    made = ApiKeyAuth(read_keys(file))
    assert made.owner(key) == "ada"
    assert made.owner(key[:-1]) is None
    assert made.owner("") is None
    assert key not in file.read_text()


def test_without_keys_everybody_is_local() -> None:
    assert ApiKeyAuth({}).owner("") == "local"


def test_a_rate_refills_with_time() -> None:
    made, _, now = gate(requests_per_minute=6)
    for _ in range(6):
        made.request("ada")
    with pytest.raises(RateLimitError) as err:
        made.request("ada")
    assert err.value.wait == pytest.approx(10)
    now[0] += 10
    made.request("ada")
    with pytest.raises(RateLimitError):
        made.request("ada")


def test_a_key_has_a_quota_and_who_needs_none_has_none() -> None:
    made, _, _ = gate(images_per_day=10)
    assert made.images_per_day("ada") == 10
    assert ApiKeyAuth({}).images_per_day("local") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "a: [",
        "ada: {sha256: short}",
        "ada: {}",
        f"local: {{sha256: {'0' * 64}}}",
        f"{'a' * 101}: {{sha256: {'0' * 64}}}",
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.yml").write_text(text)
    with pytest.raises(InvalidKeysError, match=r"keys\.yml"):
        read_keys(tmp_path / "keys.yml")
    with pytest.raises(InvalidKeysError, match="none"):
        read_keys(tmp_path / "none.yml")
