import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from portraits import noise, picture
from tiny_bases import clip_folder
from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.image.ingest import iqa
from valentina_pipeline.image.ingest.iqa import BRISQUE_FILES, brisque, clip_iqa
from valentina_pipeline.image.models.clip import load_clip


def test_the_score_is_the_share_of_the_good_prompt() -> None:
    folder, image = str(clip_folder()), noise(1)
    clip = load_clip("open_clip", folder)
    cosines = clip.images([image])[0].astype(np.float64) @ clip.texts(["Good photo.", "Bad photo."]).T
    expected = np.exp(100 * cosines) / np.exp(100 * cosines).sum()
    assert clip_iqa(image, folder) == pytest.approx(expected[0], abs=1e-3)
    assert clip_iqa(image, folder) == clip_iqa(image, folder)


def test_a_picture_near_the_good_prompt_scores_high(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def images(self, _: list[Image.Image]) -> np.ndarray:
            return np.array([[1.0, 0.0]])

        def texts(self, _: list[str]) -> np.ndarray:
            return np.array([[0.9, 0.1], [0.8, 0.2]])

    monkeypatch.setattr(iqa, "_clip", lambda _: Fake())
    assert clip_iqa(noise(1), "any") == pytest.approx(1.0, abs=1e-3)


def test_a_model_that_is_not_here_is_not_downloaded() -> None:
    with pytest.raises(MissingModelError, match="ViT-B-32"):
        clip_iqa(noise(1), "ViT-B-32/laion2b_s34b_b79k")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> str:
    """OpenCV's two files, made anew from a dozen portraits, each also blurred twice."""
    folder = tmp_path_factory.mktemp("live")
    seen = [
        cv2.quality.QualityBRISQUE.computeFeatures(blurred(index, sigma)).ravel()
        for index in range(12)
        for sigma in (0, 1, 3)
    ]
    features = np.array(seen, np.float32)
    low, high = features.min(axis=0), features.max(axis=0)
    svm = cv2.ml.SVM.create()
    svm.setType(cv2.ml.SVM_EPS_SVR)
    svm.setKernel(cv2.ml.SVM_RBF)
    svm.setC(100)
    svm.setGamma(0.05)
    svm.setP(1)
    wanted = np.array([5.0, 40.0, 90.0] * 12, np.float32)
    svm.train((2 * (features - low) / (high - low) - 1).astype(np.float32), cv2.ml.ROW_SAMPLE, wanted)
    svm.save(str(folder / BRISQUE_FILES[0]))
    spans = cv2.FileStorage(str(folder / BRISQUE_FILES[1]), cv2.FILE_STORAGE_WRITE)
    spans.write("range", np.stack([low, high]))
    spans.release()
    return str(folder)


def blurred(index: int, sigma: float) -> np.ndarray:
    plain = np.asarray(picture(index, size=512))[..., ::-1].copy()
    return cv2.GaussianBlur(plain, (0, 0), sigma) if sigma else plain


def test_brisque_tells_the_blurred_from_the_plain(live: str) -> None:
    plain, soft = (Image.fromarray(blurred(20, sigma)[..., ::-1].copy()) for sigma in (0, 3))
    assert brisque(plain, live) < 30 < 60 < brisque(soft, live)
    assert brisque(soft.resize((1024, 1024)), live) == pytest.approx(brisque(soft, live), abs=15)


@pytest.mark.parametrize("content", [None, "no model"])
def test_brisque_without_its_files_says_where_they_are(content: str | None, tmp_path: Path) -> None:
    for name in BRISQUE_FILES if content else ():
        (tmp_path / name).write_text(content or "")
    with pytest.raises(MissingModelError, match="opencv_contrib") as caught:
        brisque(noise(1), str(tmp_path))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # out of a worker
