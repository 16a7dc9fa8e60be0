import re
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from reviewed import MACHINE, NAMES
from valentina_pipeline.integrations import captions
from valentina_pipeline.review.app import create_app
from valentina_pipeline.review.dataset import Dataset, NotReadyError

A, B, C = NAMES


@pytest.fixture
def client(dataset: Dataset) -> TestClient:
    """A browser on the page, with the token that the page was sent with."""
    client = TestClient(create_app(dataset, "Ada"), base_url="http://127.0.0.1:1")
    found = re.search(r'name="token" content="([^"]+)"', client.get("/").text)
    assert found
    client.headers["x-review-token"] = found[1]
    return client


def put(client: TestClient, sha256: str, before: dict[str, str], after: dict[str, str]) -> Any:
    return client.put(f"/api/portraits/{sha256}", json={"before": before, "after": after})


def test_every_picture_is_shown_with_box_and_scores_those_left_out_last(client: TestClient) -> None:
    shown = client.get("/api/portraits").json()
    assert (shown["concept"], shown["editor"]) == ("vee", "Ada")
    b, a, c = shown["portraits"]
    assert [a["sha256"], b["sha256"], c["sha256"]] == [A, B, C]
    assert (a["box"], len(a["landmarks"]), a["scores"]["yaw, degrees"]) == ([10, 11, 12, 13], 10, -3)
    assert "JPEG quality" not in a["scores"] and b["scores"]["JPEG quality"] == 92
    assert (c["reviewable"], c["reason"], c["box"]) == (False, "no face", [])


def test_no_other_site_can_frame_the_page(client: TestClient) -> None:
    headers = client.get("/").headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert (headers["x-frame-options"], headers["x-content-type-options"]) == ("DENY", "nosniff")


def test_an_edit_is_written_with_who_made_it_and_when(client: TestClient, dataset: Dataset) -> None:
    answer = put(client, A, {"human": ""}, {"human": "  photo of a vee woman,\n laughing "})
    assert answer.status_code == 200
    row = captions.read(dataset.captions).set_index("sha256").loc[A]
    assert (row["human"], row["machine"], row["editor"]) == (
        "photo of a vee woman, laughing",
        MACHINE[0],
        "Ada",
    )
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", row["edited"])
    assert put(client, A, {"human": row["human"]}, {"human": ""}).json()["portraits"][1]["human"] == ""


def test_a_verdict_keeps_the_caption_and_back(client: TestClient, dataset: Dataset) -> None:
    put(client, A, {"human": ""}, {"human": "mine"})
    put(client, A, {"verdict": ""}, {"verdict": "rejected"})
    row = captions.read(dataset.captions).set_index("sha256").loc[A]
    assert (row["human"], row["verdict"]) == ("mine", "rejected")


def test_what_somebody_else_wrote_meanwhile_is_not_overwritten(client: TestClient, dataset: Dataset) -> None:
    captions.edit(dataset.captions, {A: captions.Edit({}, {"human": "theirs"})}, "Bob")
    answer = put(client, A, {"human": ""}, {"human": "mine"})
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "another edit wrote 'theirs' meanwhile: reload the page",
    )
    assert captions.read(dataset.captions)["human"].tolist() == ["theirs", ""]


def test_find_and_replace_changes_every_caption_or_none(client: TestClient, dataset: Dataset) -> None:
    put(client, B, {"human": ""}, {"human": "photo of a vee woman, beach background"})
    changed = client.post(
        "/api/replace", json={"find": "beach background", "replacement": "on a beach"}
    ).json()
    assert changed["changed"] == 2
    assert captions.read(dataset.captions)["human"].tolist() == [
        "photo of a vee woman, smiling, on a beach",
        "photo of a vee woman, on a beach",
    ]
    whole = "photo of a vee woman, on a beach"
    answer = client.post("/api/replace", json={"find": whole, "replacement": " "})
    assert (answer.status_code, "would be empty" in answer.json()["detail"]) == (409, True)
    assert captions.read(dataset.captions)["human"].tolist()[1] == whole


def test_a_picture_that_changed_under_its_edit_is_shown_so(client: TestClient, dataset: Dataset) -> None:
    put(client, A, {"human": ""}, {"human": "mine"})
    assert not client.get("/api/portraits").json()["portraits"][1]["changed"]
    file = dataset.picture(A)
    file.write_bytes(dataset.picture(B).read_bytes())
    assert client.get("/api/portraits").json()["portraits"][1]["changed"]


def test_an_edit_whose_picture_was_replaced_at_its_source_is_shown_beside_the_new_one(
    dataset: Dataset,
) -> None:
    captions.edit(dataset.captions, {A: captions.Edit({}, {"human": "mine"})}, "Ada")
    said = {"sha256": [C, B], "source_name": ["z.png", "y.png"], "machine": list(MACHINE)}
    captions.merge_machine_captions(dataset.captions, pd.DataFrame(said))
    table = captions.read(dataset.captions)
    assert table["sha256"].tolist() == [C, B, A] and table["human"].tolist() == ["", "", "mine"]
    assert captions.find_superseded(table, {B, C}) == {C: A}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"before": {}, "after": {"verdict": "maybe"}}, 422),
        ({"before": {}, "after": {"machine": "x"}}, 422),
        ({"before": {}, "after": {"human": "x" * 3000}}, 422),
        ({"after": {"human": "x"}}, 422),
    ],
)
def test_what_is_no_edit_is_refused(
    client: TestClient, dataset: Dataset, change: dict[str, Any], status: int
) -> None:
    before = dataset.captions.read_bytes()
    assert client.put(f"/api/portraits/{A}", json=change).status_code == status
    assert put(client, "d" * 64, {}, {"human": "x"}).status_code == 409
    assert client.put("/api/portraits/..%2fx", json={"before": {}, "after": {}}).status_code in (404, 422)
    assert dataset.captions.read_bytes() == before


def test_other_sites_can_neither_read_nor_write(dataset: Dataset) -> None:
    app = create_app(dataset, "Ada")
    elsewhere = TestClient(app, base_url="http://evil.example")
    assert elsewhere.get("/api/portraits").status_code == 400
    here = TestClient(app, base_url="http://localhost:1")
    assert put(here, A, {}, {"human": "x"}).status_code == 422  # no token at all
    here.headers["x-review-token"] = "guessed"
    assert put(here, A, {}, {"human": "x"}).status_code == 403
    assert here.post("/api/replace", json={"find": "a", "replacement": "b"}).status_code == 403
    assert "script-src 'nonce-" in here.get("/").headers["content-security-policy"]


def test_pictures_are_the_portraits_or_what_was_left_out(client: TestClient) -> None:
    for name in NAMES:
        answer = client.get(f"/pictures/{name}.png")
        assert (answer.status_code, answer.content[:4]) == (200, b"\x89PNG")
    assert client.get(f"/pictures/{'e' * 64}.png").status_code == 404
    assert client.get("/pictures/..%2f..%2fparams.png").status_code in (404, 422)


def test_before_the_stages_ran_it_is_said_what_to_run(dataset: Dataset) -> None:
    (dataset.root / "data/03_primary/vee/faces.parquet").unlink()
    with pytest.raises(NotReadyError, match=r"faces\.parquet is missing: run `uv run dvc repro`"):
        dataset.portraits()
    client = TestClient(create_app(dataset, "Ada"), base_url="http://127.0.0.1:1")
    assert client.get("/api/portraits").status_code == 409
