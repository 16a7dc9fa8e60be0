"""The page of `kedro serve` as a person uses it: in a real Chromium, against a real server."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

import packages
from browsers import chromium
from given import dunes, pictured, somebody
from programs import program
from serving.api.test_app import Running, running
from valentina_pipeline.domain.artifacts import LORA_FILE
from valentina_pipeline.image.io import png
from valentina_pipeline.serving.api.auth import Key, create_key
from valentina_pipeline.serving.api.web import PAGE_FOLDER
from waiting import until

TALL = {"width": 1280, "height": 2400}
"""What is out of sight is not fetched."""

WEB = Path(__file__).parents[3] / "web"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(package, tmp_path_factory.mktemp("served")) as it:
        yield it


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as it:
        yield it


@pytest.fixture
def page(served: Running, browser: Browser) -> Iterator[Page]:
    """The page in a window of its own, which fails the test by errors and by requests that leave."""
    context = browser.new_context(locale="en-GB", color_scheme="light", viewport=TALL)
    for window in opened(context.new_page(), served):
        expect(window.get_by_label("Prompt", exact=True)).to_be_visible()
        yield window
    for job in served.http.get("/v1/jobs").json():
        served.http.delete(f"/v1/jobs/{job['id']}")
    context.close()


def opened(window: Page, served: Running) -> Iterator[Page]:
    wrong: list[str] = []
    left: list[str] = []
    window.on("pageerror", lambda error: wrong.append(str(error)))
    window.on("console", lambda said: wrong.append(said.text) if "Security Policy" in said.text else None)
    own = (f"{served.url}/", f"blob:{served.url}/", "data:")
    window.on("request", lambda each: None if each.url.startswith(own) else left.append(each.url))
    window.goto(served.url)
    yield window
    assert (wrong, left) == ([], [])


READY = re.compile(r"ready\.$")


def shot(page: Page, words: str) -> Locator:
    """The newest image of a prompt, once it is there."""
    found = page.locator("figure", has_text=words).first
    expect(found.locator("img")).to_have_js_property("complete", True, timeout=60_000)
    expect(found.locator("img")).not_to_have_js_property("naturalWidth", 0, timeout=60_000)
    return found


def drawn(page: Page, words: str, seed: int, **fields: str) -> Locator:
    page.get_by_label("Prompt", exact=True).fill(words)
    page.get_by_label("Seed", exact=True).fill(str(seed))
    page.get_by_role("form").get_by_text("draft").click()
    for label, value in fields.items():
        page.get_by_label(label, exact=True).fill(value)
    page.keyboard.press("Control+Enter")
    image = shot(page, words)
    expect(page.get_by_role("status")).to_have_text(READY)  # it comes after the image, over later words
    return image


def newest(served: Running) -> dict[str, Any]:
    return served.http.get("/v1/jobs?limit=1").json()[0]


def test_an_image_is_drawn_with_progress_and_shown_with_how(page: Page) -> None:
    page.get_by_label("Prompt", exact=True).fill("smiling at sea")
    page.get_by_label("Seed", exact=True).fill("7")
    page.locator("summary", has_text="Advanced").click()
    page.get_by_label("Steps", exact=True).fill("150")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("[data-preview=true] img")).to_be_visible(timeout=30_000)
    expect(page.get_by_text(re.compile(r"Generating, step \d+ of 150, .+ left"))).to_be_visible()
    assert page.locator("progress").evaluate("bar => bar.value > 0 && bar.max === 150")
    found = shot(page, "smiling at sea")
    for words in ("synthetic", "Identity", "Seed7", "Steps150", "Presetstandard", "valentina_moreau 1.00"):
        expect(found).to_contain_text(words)
    expect(page.get_by_role("status")).to_have_text("The image is ready.")


def test_an_image_says_what_of_its_request_counted_for_nothing(
    package: Path, browser: Browser, tmp_path: Path
) -> None:
    with running(package, tmp_path, base="nowhere/no-base", fallback_renderer=True) as it:
        for window in opened(browser.new_page(viewport=TALL), it):
            expect(drawn(window, "by the renderer", 3)).to_contain_text(
                "sampler and negative prompt have no effect"
            )
            window.close()


def test_a_download_has_its_metadata(page: Page, tmp_path: Path) -> None:
    card = drawn(page, "for the album", 21)
    with page.expect_download() as waiting:
        card.get_by_role("button", name="Download").click()
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    assert re.fullmatch(r"valentina_moreau-[0-9a-f]{8}-21\.png", file.name)
    texts = png.decode(file.read_bytes()).info["text"]
    assert (texts["synthetic"], texts["seed"]) == ("true", "21")


def test_jobs_wait_in_turn_survive_a_reload_and_escape_cancels(page: Page, served: Running) -> None:
    page.locator("summary", has_text="Advanced").click()
    for words, images, steps in (("a long one", 64, 150), ("quick 2", 1, 2), ("quick 3", 1, 3)):
        page.get_by_label("Images").fill(str(images))
        page.get_by_label("Steps", exact=True).fill(str(steps))
        page.get_by_label("Prompt", exact=True).fill(words)
        page.keyboard.press("Control+Enter")
    until(lambda: newest(served)["request"]["steps"] == 3)  # a reload would drop it before
    expect(page.get_by_text("Waiting, next").first).to_be_visible()
    page.reload()
    expect(page.get_by_text(re.compile(r"Generating, step [1-9]"))).to_be_visible(timeout=30_000)
    shot(page, "quick 2")  # between two batches of the long one
    shot(page, "quick 3")
    page.keyboard.press("Escape")
    expect(page.get_by_text("Cancelled")).to_be_visible(timeout=30_000)
    states = [job["state"] for job in served.http.get("/v1/jobs?limit=3").json()]
    assert states == ["done", "done", "cancelled"]


def test_use_again_draws_the_same_picture(page: Page, served: Running) -> None:
    drawn(page, "in the rain", 5)
    first = newest(served)
    drawn(page, "something else", 6)
    page.reload()
    shot(page, "in the rain").get_by_role("button", name="Reuse settings").click()
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("5")
    expect(page.get_by_role("radio", name="draft")).to_be_checked()
    before = newest(served)["id"]
    page.keyboard.press("Control+Enter")
    until(lambda: newest(served)["id"] != before and newest(served)["state"] == "done")
    again = newest(served)
    one, other = (png.decode(served.http.get(job["images"][0]["url"]).content) for job in (first, again))
    assert one.tobytes() == other.tobytes()


def test_a_slider_shows_an_image_over_the_bare_base(page: Page, served: Running) -> None:
    drawn(page, "by the window", 8).get_by_role("button", name="Before / after").click()
    slider = page.get_by_role("slider", name="Share of the base model's image")
    expect(slider).to_have_value("50", timeout=30_000)
    asked = newest(served)["request"]
    assert (asked["seed"], asked["loras"]) == (8, [{"name": "valentina_moreau", "weight": 0}])
    slider.focus()
    page.keyboard.press("Home")
    over = page.get_by_role("img", name="base model")
    expect(over.locator("..")).to_have_css("clip-path", re.compile(r"inset\(0(px)? 100% 0(px)? 0(px)?\)"))
    page.keyboard.press("End")
    expect(over.locator("..")).to_have_css("clip-path", re.compile(r"inset\(0(px|%)?( 0.*)?\)"))
    expect(over).not_to_have_js_property("naturalWidth", 0)


def test_two_images_are_compared_side_by_side(page: Page) -> None:
    drawn(page, "one of two", 31).get_by_role("button", name="Compare").click()
    expect(page.get_by_role("status")).to_have_text("Choose a second image to compare with.")
    drawn(page, "two of two", 32).get_by_role("button", name="Compare").click()
    window = page.get_by_role("dialog", name="Compare")
    expect(window.locator("img")).to_have_count(2)
    expect(window.locator("dd.text-accent")).to_contain_text(["one of two", "31", "two of two", "32"])


def test_a_scene_is_enough_to_draw(page: Page, served: Running) -> None:
    page.get_by_label("Scene").select_option("beach day")
    expect(page.get_by_text("wearing a white t-shirt, beach background")).to_be_visible()
    page.keyboard.press("Control+Enter")
    shot(page, "beach background")
    assert "laughing, facing the camera" in newest(served)["request"]["prompt"]


def test_the_character_s_weight_has_a_slider_and_the_seed_a_die(page: Page, served: Running) -> None:
    page.get_by_role("button", name="Pick a random seed").click()
    seed = int(page.get_by_label("Seed", exact=True).input_value())
    page.locator("summary", has_text="LoRAs").click()
    page.get_by_role("slider", name="Weight of valentina_moreau").fill("0.6")
    page.get_by_label("Prompt", exact=True).fill("a little of her")
    page.keyboard.press("Control+Enter")
    shot(page, "a little of her")
    asked = newest(served)["request"]
    assert (asked["seed"], asked["loras"]) == (seed, [{"name": "valentina_moreau", "weight": 0.6}])


def test_a_lora_of_the_server_s_takes_part_by_its_box_or_by_the_scene(
    package: Path, tmp_path: Path, browser: Browser
) -> None:
    shutil.copy(packages.lora(2) / LORA_FILE, tmp_path / "oil.safetensors")
    entry = "{file: oil.safetensors, kind: style, license: CC0-1.0, weight: 0.7, scenes: [travel]}"
    (tmp_path / "loras.yml").write_text(f"oil: {entry}\n")
    with running(package, tmp_path, lora_dir=tmp_path) as served:
        context = browser.new_context(locale="en-GB", viewport=TALL)
        for window in opened(context.new_page(), served):
            window.locator("summary", has_text="LoRAs").click()
            box = window.get_by_role("checkbox", name="oil")
            slider = window.get_by_role("slider", name="Weight of oil")
            expect(box).not_to_be_checked()
            expect(slider).to_be_disabled()
            window.get_by_label("Scene").select_option("beach day")
            expect(box).to_be_checked()
            drawn(window, "painted", 80)
            assert {"name": "oil", "weight": 0.7} in newest(served)["request"]["loras"]
            box.uncheck()
            drawn(window, "not painted", 81)
            assert {"name": "oil", "weight": 0.0} in newest(served)["request"]["loras"]
            window.get_by_label("Scene").select_option("none")
            box.check()
            slider.fill("0.4")
            drawn(window, "a little painted", 82)
            assert {"name": "oil", "weight": 0.4} in newest(served)["request"]["loras"]
        context.close()


def test_what_the_server_refuses_stands_at_its_field(page: Page) -> None:
    page.get_by_label("Prompt", exact=True).fill("nude")
    page.keyboard.press("Control+Enter")
    prompt = page.get_by_label("Prompt", exact=True)
    expect(prompt).to_have_attribute("aria-invalid", "true")
    expect(prompt).to_have_accessible_description(re.compile("sexual content is not drawn"))
    prompt.fill("smiling")
    page.locator("summary", has_text="Advanced").click()
    page.get_by_label("Steps", exact=True).fill("0")
    page.locator("summary", has_text="Advanced").click()
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("steps")  # its drawer opens
    expect(page.get_by_label("Steps", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(prompt).to_have_attribute("aria-invalid", "false")


def dropped(page: Page, content: str, kind: str = "image/png") -> Locator:
    """Drop a file, base64, onto the page; return the window that opens for it."""
    page.evaluate(
        """([content, type]) => {
          const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], "dropped", { type }));
          const how = { dataTransfer, bubbles: true, cancelable: true };
          for (const kind of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(kind, how));
        }""",
        [content, kind],
    )
    return page.get_by_role("dialog", name="Use this image")


def test_a_dropped_file_that_is_no_picture_is_refused_in_words(page: Page) -> None:
    dropped(page, "aGVsbG8=", "text/plain")
    expect(page.get_by_role("status")).to_contain_text("must be a PNG, JPEG or WebP")


def test_a_dropped_picture_is_drawn_along_and_begun_from(page: Page, served: Running) -> None:
    dropped(page, pictured(dunes())).get_by_role("button", name="Use as control: canny").click()
    page.get_by_role("slider", name="Control strength").fill("0.5")
    dropped(page, pictured(dunes(), "JPEG"), "image/jpeg").get_by_role(
        "button", name="Use as initial image"
    ).click()
    page.get_by_role("slider", name="Denoising strength").fill("0.75")
    card = drawn(page, "along the dunes", 70)
    expect(card).to_contain_text("Initial image 0.75, Control: canny 0.50")
    marks = png.decode(served.http.get(newest(served)["images"][0]["url"]).content).info["text"]
    assert (marks["strength"], json.loads(marks["controls"])[0]["scale"]) == ("0.75", 0.5)
    page.get_by_role("button", name="Remove: Initial image").click()
    page.get_by_role("button", name="Remove: Control: canny").click()
    expect(drawn(page, "without the dunes", 70)).not_to_contain_text("canny")


def test_a_dropped_image_of_hers_is_used_again_from_its_file(page: Page, served: Running) -> None:
    drawn(page, "kept in a file", 71, **{"Images": "1"})
    first = served.http.get(newest(served)["images"][0]["url"]).content
    page.reload()
    shot(page, "kept in a file")
    window = dropped(page, base64.b64encode(first).decode())
    expect(window).to_contain_text("kept in a file")
    expect(window).to_contain_text("PNG text: generated, seed 71")
    before = newest(served)["id"]
    window.get_by_role("button", name="Reuse settings").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("71")
    page.keyboard.press("Control+Enter")
    until(lambda: newest(served)["id"] != before and newest(served)["state"] == "done")
    again = served.http.get(newest(served)["images"][0]["url"]).content
    assert png.decode(again).tobytes() == png.decode(first).tobytes()


def test_an_image_that_is_refused_has_a_card_that_says_why(page: Page) -> None:
    dropped(page, pictured(somebody())).get_by_role("button", name="Use as initial image").click()
    page.get_by_label("Prompt", exact=True).fill("somebody else")
    page.keyboard.press("Control+Enter")
    card = page.locator("figure", has_text="somebody else").first
    expect(card).to_contain_text("Not shown", timeout=30_000)
    expect(card).to_contain_text("it shows a face that is not known to be Valentina Moreau's")
    expect(card.get_by_role("button", name="Download")).to_be_disabled()


def test_language_and_theme_follow_the_browser_and_are_remembered(
    page: Page, served: Running, browser: Browser
) -> None:
    root = page.locator("html")
    expect(page.get_by_role("button", name="Generate")).to_be_visible()
    expect(root).to_have_attribute("data-theme", "light")
    page.get_by_role("button", name="Português").click()
    page.get_by_role("button", name="Escuro").click()
    page.reload()
    expect(page.get_by_role("button", name="Gerar")).to_be_visible()
    expect(root).to_have_attribute("lang", "pt-BR")
    expect(page.locator("body")).to_have_css("background-color", "rgb(22, 20, 18)")
    context = browser.new_context(locale="pt-PT", color_scheme="dark")
    for window in opened(context.new_page(), served):
        expect(window.get_by_role("button", name="Gerar")).to_be_visible()
        expect(window.locator("html")).to_have_attribute("data-theme", "dark")
    context.close()


def test_the_keyboard_is_enough(page: Page) -> None:
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    page.keyboard.type("keys alone")
    reach(page, "input[name=preset]")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("radio", name="draft")).to_be_checked()
    reach(page, "button[type=submit]")
    page.keyboard.press("Enter")
    shot(page, "keys alone")
    reach(page, "figure button")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    window = page.get_by_role("dialog", name="Details")
    expect(window).to_contain_text("keys alone")
    page.keyboard.press("Escape")
    expect(window).to_have_count(0)
    expect(page.locator("figure button").first).to_be_focused()


def reach(page: Page, selector: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("what => document.activeElement.matches(what)", selector):
            return
    raise AssertionError(f"Tab does not lead to {selector}")


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's script, with the page's other tools from the npm registry where they are not there yet."""
    file = WEB / "node_modules/axe-core/axe.min.js"
    if not file.is_file():
        subprocess.run([program("npm"), "ci", "--ignore-scripts", "--no-audit"], cwd=WEB, check=True)
    return file.read_text("utf-8")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_barrier(page: Page, axe: str, theme: str) -> None:
    if theme == "dark":
        page.get_by_role("button", name="Dark").click()
    page.get_by_label("Prompt", exact=True).fill("nude")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    card = drawn(page, "seen by all", 40)
    drawn(page, "seen by all as well", 41)
    for drawer in page.locator("summary").all():
        drawer.click()
    page.evaluate(axe)
    window = dropped(page, pictured(dunes()))
    expect(window).to_be_visible()
    assert barriers(page) == []
    window.get_by_role("button", name="Use as control: canny").click()
    expect(page.get_by_role("slider", name="Control strength")).to_be_visible()
    assert barriers(page) == []
    card.get_by_role("button", name="Before / after").click()
    expect(page.get_by_role("slider", name="Share of the base")).to_be_visible(timeout=30_000)
    assert barriers(page) == []


def barriers(page: Page) -> list[str]:
    """What axe finds wrong by WCAG 2 A and AA, in the page's present state."""
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    found = page.evaluate(f"axe.run(document, {json.dumps(rules)})")
    assert len(found["passes"]) > 10  # a window leaves little beside it to look at
    return [f"{each['id']}: {node['html']}" for each in found["violations"] for node in each["nodes"]]


def test_nothing_is_wider_than_a_small_phone(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 2400})
    card = drawn(page, "a " + "verylongword" * 20, 50)
    drawn(page, "another", 51)
    for drawer in page.locator("summary").all():
        drawer.click()
    widest = "Math.max(...[...document.querySelectorAll('html, dialog')].map(each => each.scrollWidth))"
    assert page.evaluate(widest) <= 360
    card.locator("button").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate(widest) <= 360


def test_a_server_with_keys_asks_for_one(package: Path, tmp_path: Path, browser: Browser) -> None:
    key, lines = create_key("ada")
    hashed = re.search(r"sha256: (\w+)", lines)
    assert hashed
    with running(package, tmp_path, {"ada": Key(sha256=hashed[1])}) as served:
        context = browser.new_context(locale="en-GB", viewport=TALL)
        for window in opened(context.new_page(), served):
            for given in ("vp_wrong", key):
                window.get_by_label("API key").fill(given)
                window.keyboard.press("Enter")
                if given != key:
                    expect(window.get_by_role("status")).to_have_text("This API key is not valid.")
            drawn(window, "with a key", 60)
            window.reload()
            shot(window, "with a key")
        context.close()


def test_the_page_comes_with_a_strict_policy_and_needs_no_build(served: Running) -> None:
    answer = served.http.get("/")
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'self'", "img-src 'self' blob: data:", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    for name in re.findall(r'(?:src|href)="(/[^"]+)"', answer.text):
        assert served.http.get(name).content == (PAGE_FOLDER / Path(name).name).read_bytes()


def test_the_documentation_comes_whole_from_here(served: Running, browser: Browser) -> None:
    window = browser.new_page(viewport=TALL)
    for shown in opened(window, served):
        shown.goto(f"{served.url}/docs")
        expect(shown.get_by_text("/v1/generations", exact=True).first).to_be_visible()
    window.close()
    text = served.http.get("/docs").text
    assert re.findall(r"(?:https?:)?//[\w.-]+", text.replace(served.url, "")) == []
    assert "frame-ancestors 'none'" in served.http.get("/docs").headers["content-security-policy"]
    assert served.http.get("/redoc").status_code == 404
