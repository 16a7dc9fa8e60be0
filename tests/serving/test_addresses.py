"""No address that a file names is asked: by no code of the project, and by no library's native code."""

from pathlib import Path

import pytest
from PIL import PngImagePlugin

import offline
from packages import stage
from portraits import noise
from valentina_pipeline.image.io import png

NAMED = "http://127.0.0.1:9/manifest.c2pa"
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    f'xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{NAMED}"/></rdf:RDF></x:xmpmeta>'
    '<?xpacket end="w"?>'
)
CHILD = "import socket; socket.create_connection(('127.0.0.1', 9))"
PLAYLISTS = {
    "hls.mp4": f"#EXTM3U\n#EXTINF:1,\n{NAMED}\n#EXT-X-ENDLIST\n",
    "concat.mkv": f"ffconcat version 1.0\nfile {NAMED}\n",
    "session.mov": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures that say where their manifest is."""
    folder = tmp_path_factory.mktemp("naming")
    for number, kind in enumerate(("png", "jpg", "webp")):
        picture, file = noise(number), folder / f"{number}.{kind}"
        if kind == "png":
            about = PngImagePlugin.PngInfo()
            about.add_itxt(png.XMP_KEY, XMP)
            picture.save(file, pnginfo=about)
        else:
            picture.save(file, xmp=XMP.encode())
    return folder


def ended_well(done: "offline.subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import c2pa; c2pa.Reader('image/png', open(sys.argv[1], 'rb'))",
        "import socket; socket.getaddrinfo('example.org', 443)",
        "import subprocess; subprocess.run([sys.executable, '-c', sys.argv[2]], check=True)",
    ],
)
def test_who_asks_one_is_found_out(pictures: Path, code: str) -> None:
    done = offline.run(f"import sys\ntry:\n    {code}\nexcept OSError: pass", pictures / "0.png", CHILD)
    assert done.returncode != 0
    assert "SIGSYS" in done.stderr or done.returncode == -31


def test_verify_asks_none(pictures: Path) -> None:
    code = "import sys; from valentina_pipeline.serving.cli.verify import verify; verify(sys.argv[1:])"
    told = ended_well(offline.run(code, *sorted(pictures.iterdir())))
    assert told.count("no mark found") == 3


@pytest.mark.slow
def test_serving_asks_none(package: Path, pictures: Path, tmp_path: Path) -> None:
    code = """
import base64, pathlib, sys, time
from fastapi.testclient import TestClient
from valentina_pipeline.serving.api.app import create_app
from valentina_pipeline.serving.jobs.dispatcher import Dispatcher
from valentina_pipeline.serving.jobs.database import sqlite
from valentina_pipeline.serving.jobs.store import JobStore
from valentina_pipeline.serving.api.auth import ApiKeyAuth
from valentina_pipeline.serving.jobs.metrics import Metrics
from valentina_pipeline.serving.api.service import GenerationService
from valentina_pipeline.serving.inference.package import read
from valentina_pipeline.serving.jobs.worker import WorkerConfig
if __name__ == "__main__":
    package, pictures, state = map(pathlib.Path, sys.argv[1:])
    store, metrics = JobStore(sqlite(state)), Metrics()
    config = WorkerConfig(package, state / "c2pa")
    desk = Dispatcher(store, read(package), config, state / "images", metrics)
    app = create_app(GenerationService({}, desk, ApiKeyAuth({}), metrics))
    with TestClient(app, "http://localhost") as http:
        for file in sorted(pictures.iterdir()):
            given = base64.b64encode(file.read_bytes()).decode()
            print(http.post("/v1/verify", json={"image": given}).json())
            asked = {"prompt": "smiling", "preset": "draft", "image": given}
            job = http.post("/v1/generations", json=asked).json()["id"]
            while (now := http.get(f"/v1/jobs/{job}").json())["state"] in ("queued", "running"):
                time.sleep(0.1)
            print(now["state"], now["error"], http.get(now["images"][0]["url"]).status_code)
"""
    told = ended_well(offline.run(code, package, pictures, tmp_path))
    assert told.splitlines() == ["{'marks': [], 'request': None}", "done  200"] * 3


@pytest.mark.slow
def test_ingest_asks_none(pictures: Path, tmp_path: Path) -> None:
    limits = {
        **stage("ingest"),
        "num_rendered_images": 4,
        "min_side": 32,
        "min_sharpness": 0,
        "brightness_range": (0, 1),
    }
    limits |= {"max_clipped_fraction": 1, "max_noise": 100, "min_jpeg_quality": 0}
    raw = tmp_path / "data/01_raw"
    raw.mkdir(parents=True)
    for name, text in PLAYLISTS.items():
        (raw / name).write_text(text)
    code = f"""
import pathlib, sys
from portraits import CONCEPT, RIGHTS
from valentina_pipeline.integrations.sources import InvalidSourceError, source
from valentina_pipeline.pipelines.ingest.nodes import ingest_images
if __name__ == "__main__":
    raw = pathlib.Path(sys.argv[2])
    concept = {{**CONCEPT, "source": sys.argv[1]}}
    place, root = raw / "none", raw.parents[2]
    images, _, rejections, *_ = ingest_images(raw, place, RIGHTS, root, concept, {limits!r}, 7)
    print("pictures", len(images) + len(rejections), len(images) > 0)
    for playlist in sorted(raw.iterdir()):
        if playlist.is_file():
            try:
                print(source(str(playlist), raw, cache=raw / "cache").entries())
            except InvalidSourceError as err:
                print("cannot be read as a video" in str(err))
"""
    told = ended_well(offline.run(code, pictures, raw))
    assert told.splitlines()[-4:] == ["pictures 3 True", "True", "True", "True"]
