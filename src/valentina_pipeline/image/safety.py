"""What is not drawn and not trained on: a word policy for prompts, a detector for pictures.

Both err towards refusing. The word policy is the first fence, not the only one: the detector looks at
every picture afterwards.
"""

import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


class UnsafePrompt(ValueError):
    """A prompt asks for what this project does not draw; `reason` says what, in words."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this prompt is refused: {reason}")
        self.reason = reason


SEXUAL = re.compile(
    r"""\b(nude(?!\s+(lip\w*|colou?r\w*|tones?|heels|shoes|make\s?up|shade))s?|nudity|nudist|naked(?!\s+eye)|
    nsfw|topless|bottomless|undress(ed|ing)?|strip(ping|tease|per)s?|unclothed|without\s+(any\s+)?clothes|no\s+clothes|
    porn\w*|hentai|ecchi|rule\s?34|xxx|onlyfans|erotic\w*|fetish\w*|bdsm|bondage|orgasm\w*|masturbat\w*|
    sex|sexual\w*|sexy|intercourse|blowjob|handjob|cum(shot)?|genital\w*|penis(es)?|vagina\w*|vulva|pussy|cock|dick|
    nipples?|areolas?|breasts?(?!\s+pocket)|boobs?|tits|buttocks|anus|crotch|cleavage|upskirt|cameltoe)\b""",
    re.VERBOSE,
)
MINOR = re.compile(
    r"""\b(child(ren|hood|like)?|kids?|minors?|toddlers?|infants?|baby(?!\s+(blue|pink))|babies|newborn|teens?|teenage(r|rs|d)?|preteens?|
    tweens?|adolescents?|juvenile|girls?|boys?|school\s?(girl|boy)s?|kindergarten\w*|daughters?|
    (primary|elementary|middle|high)\s+school|
    (aged?\s+)?([0-9]|1[0-7])\s*(-|\s)?\s*(years?|yrs?|y)\s*(-|\s)?\s*(old|o)|aged?\s+([0-9]|1[0-7]))\b""",
    re.VERBOSE,
)
MINOR_CODE = re.compile(r"\b(loli(con|ta)?s?|shota(con)?s?|underage|jailbait|pedo\w*)\b")
SUGGESTIVE = re.compile(
    r"""\b(lingerie|underwear|panties|bra|bras|thong|bikini|swim(suit|wear)|bathing\s+suit|micro\s?skirt|mini\s?skirt|
    seductive\w*|sensual\w*|provocative\w*|suggestive\w*|flirt\w*|alluring|sultry|lustful|
    see[\s-]?through|transparent\s+(dress|shirt|top|clothes)|wet\s+(shirt|clothes|dress)|shirtless|
    in\s+bed|bedroom|bath(room|tub)?|shower(ing)?|spread\s+legs|intimate|kiss\w*|cuddl\w*)\b""",
    re.VERBOSE,
)
FACE_SWAP = re.compile(
    r"""\b(face\s?-?swap\w*|swap\w*\s+(\w+\s+){0,3}faces?|deep\s?-?fakes?|
    (replac|chang|put|past)(e|es|ed|ing|ting)?\s+(\w+('s)?\s+){0,4}face\s+(on|onto|with|by|over|of))\b""",
    re.VERBOSE,
)
LOOKALIKES = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "@": "a", "$": "s", "!": "i"})


def refuse_prompt(text: str) -> None:
    """Raise UnsafePrompt where the prompt asks for what is never drawn; else do nothing.

    Refused: sexual content, anything suggestive together with a word for a minor, swapping faces.
    Letters replaced by look-alike digits, split by dots or written in full width are read as meant.
    English words only.
    """
    written = plain(text)
    readings = (written, joined(written), joined(written.translate(LOOKALIKES)))
    for reading in readings:
        if MINOR_CODE.search(reading):
            raise UnsafePrompt("it sexualises minors")
        if SEXUAL.search(reading):
            raise UnsafePrompt("sexual content is not drawn")
        if FACE_SWAP.search(reading):
            raise UnsafePrompt("faces of other people are not put onto anybody")
    # across readings: digits are ages in one and letters in the other
    if any(MINOR.search(r) for r in readings) and any(SUGGESTIVE.search(r) for r in readings):
        raise UnsafePrompt("minors are not drawn in suggestive ways")


def plain(text: str) -> str:
    """Return lower case without accents, invisible characters and repeated spaces."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    kept = (c for c in decomposed if unicodedata.category(c) not in ("Mn", "Cf", "Cc") or c.isspace())
    return re.sub(r"[\s_]+", " ", "".join(kept)).strip()


def joined(text: str) -> str:
    """Return text with single letters joined: "n.u-d e" reads as "nude"."""
    return re.sub(r"\b\w(?:[ .\-*]\w\b){2,}", lambda m: re.sub(r"[ .\-*]", "", m[0]), text)


SUREST = 200
"""Boxes of a picture that are looked at: many more than bodies have parts."""


@lru_cache(maxsize=1)
def _nudenet() -> Any:
    """Return the detector, one in a process, on one thread: pictures are looked at side by side."""
    import nudenet
    from onnxruntime import InferenceSession, SessionOptions

    class Surest(InferenceSession):
        """Gives the likeliest boxes only: NudeDetector walks through all 2100 in Python."""

        def run(self, *args: Any) -> list[np.ndarray]:
            (boxes,) = super().run(*args)  # [1, 4 + classes, boxes]
            surest = np.argsort(-boxes[0, 4:].max(axis=0), kind="stable")[:SUREST]
            return [boxes[:, :, np.sort(surest)]]

    detector = nudenet.NudeDetector()
    options = SessionOptions()
    options.intra_op_num_threads = 1
    detector.onnx_session = Surest(str(Path(nudenet.__file__).with_name("320n.onnx")), options)
    return detector


EXPOSED = {
    "FEMALE_GENITALIA_EXPOSED": "exposed genitalia",
    "MALE_GENITALIA_EXPOSED": "exposed genitalia",
    "FEMALE_BREAST_EXPOSED": "an exposed breast",
    "BUTTOCKS_EXPOSED": "exposed buttocks",
    "ANUS_EXPOSED": "an exposed anus",
}


class ContentFilter:
    """Looks for nudity in pictures with NudeNet, whose model is part of its wheel.

    Args:
        threshold: a detection of at least this score, in [0, 1], makes a picture unsafe.
        detector: anything with NudeDetector's `detect(bgr)`; made when None.
    """

    LONGEST = 640
    """Pixels: the network looks at 320, so that more only costs time."""

    def __init__(self, threshold: float = 0.4, detector: Any = None) -> None:
        self._threshold = threshold
        self._detector = detector

    def unsafe(self, image: Image.Image) -> str | None:
        """Return what makes the picture unsafe, in words, or None.

        Fails closed: a picture that cannot be looked at is unsafe ("filter failed: ...").
        """
        try:
            found = self.detect(image)
        except Exception as err:  # whatever breaks in here, the picture has not been looked at
            return f"filter failed: {type(err).__name__}: {err}"
        shown = [d for d in found if d["class"] in EXPOSED and d["score"] >= self._threshold]
        if not shown:
            return None
        worst = max(shown, key=lambda d: d["score"])
        return f"{EXPOSED[worst['class']]} (score {worst['score']:.2f})"

    def detect(self, image: Image.Image) -> list[dict[str, Any]]:
        """Return what is found: class, score in [0, 1] and box (left, top, width, height).

        Boxes are in pixels of the picture as it is looked at, its longer side LONGEST at most.
        """
        detector = self._detector or _nudenet()
        small = image.convert("RGB")
        small.thumbnail((self.LONGEST, self.LONGEST))
        # blue first, as cv2.imread gives the pictures that the network was made for
        found: list[dict[str, Any]] = detector.detect(np.ascontiguousarray(np.asarray(small)[..., ::-1]))
        return found
