"""Captions that name what varies: what they leave unsaid, the trigger takes on.

Two captioners: `attributes` words what is known of each picture, `blip` looks at it (BLIP, Li et al. 2022).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image
from rich.progress import track

from valentina_pipeline.image.faces import one_thread
from valentina_pipeline.image.missing import MissingModel
from valentina_pipeline.image.wording import sentence

BLIP = "Salesforce/blip-image-captioning-base"
LONGEST = 40
"""Tokens of a BLIP caption."""

PEOPLE = ("woman", "lady", "girl", "female", "person", "man", "guy", "boy", "model", "face", "portrait")
"""What BLIP calls who is in the picture, whoever it is; the first in a caption is her."""

FIXED_WORDS: Mapping[str, tuple[str, ...]] = {
    "face": ("face", "faced", "jaw", "chin", "cheekbones", "cheeks"),
    "eyes": ("eye", "eyes", "eyed"),
    "brows": ("brow", "brows", "eyebrow", "eyebrows"),
    "nose": ("nose",),
    "lips": ("lip", "lips"),
    "hair_color": ("hair", "haired", "blonde", "blond", "brunette", "redhead", "redheaded"),
    "hair_length": ("hair", "haired", "haircut", "hairstyle", "bob"),
    "parting": ("parted", "parting", "bangs", "fringe"),
    "skin": ("skin", "skinned", "complexion", "freckles"),
}
"""Words by which a phrase speaks of a trait."""

PHRASE_START = re.compile(
    r",\s*|\s+(?=(?:and|with|wearing|in|on|at|by|near|next|while|who|that|has|having)\b)"
)
JOINERS = frozenset({"and", "with", "while", "who", "that", "has", "having"})


def from_attributes(
    attributes: Mapping[str, Mapping[str, str]], subject: str, variable_traits: Iterable[str]
) -> dict[str, str]:
    """Word each picture's variable traits.

    Args:
        attributes: name -> trait -> word.
        subject: trigger and class word, such as "valentina_moreau woman".
        variable_traits: the traits that captions name.

    Returns:
        name -> caption.
    """
    keep = tuple(variable_traits)
    return {name: sentence(words, subject, keep) for name, words in attributes.items()}


def by_blip(
    images: Mapping[str, Image.Image],
    names: Sequence[str],
    rewrite: Callable[[str], str],
    model: str | Path = BLIP,
) -> dict[str, str]:
    """Caption pictures by BLIP, and rewrite what it says.

    Args:
        images: by name; opened one at a time.
        names: which of them.
        rewrite: BLIP's words -> caption.
        model: a hub id already downloaded, or a folder.

    Returns:
        name -> caption.

    Raises:
        MissingModel: the model is not on this machine.
    """
    import torch
    from transformers import BlipForConditionalGeneration, BlipProcessor

    try:
        processor = BlipProcessor.from_pretrained(model, local_files_only=True)
        network = BlipForConditionalGeneration.from_pretrained(
            model, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError) as err:  # ValueError: a path that is no folder is taken for a hub id
        raise MissingModel(f"the captioner BLIP ({model})", "BSD-3-Clause", f"`hf download {BLIP}`") from err
    network.eval()
    captions = {}
    # greedy and on one thread: the same words everywhere
    with one_thread(), torch.inference_mode():
        for name in track(names, description="caption", transient=True):
            inputs = processor(images=images[name].convert("RGB"), return_tensors="pt")
            tokens = network.generate(**inputs, max_new_tokens=LONGEST, do_sample=False, num_beams=1)
            captions[name] = rewrite(processor.decode(tokens[0], skip_special_tokens=True))
    return captions


def rewriter(
    trigger: str, class_word: str, fixed_traits: Sequence[str], fixed_words: Iterable[str] = ()
) -> Callable[[str], str]:
    """Return a function that makes a described picture's caption one of hers.

    The first person named becomes trigger and class word; phrases that speak of a fixed trait, or of
    the class again, leave. So do adjectives before the person: they would be hers.

    Args:
        trigger: her token.
        class_word: what she is, such as "woman".
        fixed_traits: the traits that captions leave unsaid.
        fixed_words: more words of them, such as those of her description ("freckled").
    """
    gone = {word for trait in fixed_traits for word in FIXED_WORDS.get(trait, (trait,))}
    gone |= {word.lower() for word in fixed_words} | {trigger, class_word}
    people = sorted({*PEOPLE, class_word}, key=len, reverse=True)
    named = re.compile(rf"\b(?:{'|'.join(map(re.escape, people))})(?:'s)?\b")
    subject = f"{trigger} {class_word}"

    def rewrite(said: str) -> str:
        plain = re.sub(r"\s+", " ", said.lower()).strip(" .")
        match = named.search(plain)
        before, after = (plain[: match.start()], plain[match.end() :]) if match else ("", f", {plain}")
        return f"{_opening(before, gone)} {subject}{_kept(after, gone)}"

    return rewrite


def description_words(description: str) -> set[str]:
    """Return the nouns of a description's phrases that no vocabulary here knows: "a small scar" -> scar."""
    phrases = (phrase.split() for phrase in description.lower().split(","))
    plain = (words for words in phrases if words and not {"on", "at", "in", "the", "to"} & set(words))
    return {words[-1] for words in plain}


def _opening(before: str, gone: set[str]) -> str:
    """Return how the picture is shown ("a black and white photo of a"), without adjectives of hers."""
    shown, of, _ = before.rpartition(" of ")
    words = [word for word in shown.split() if word not in ("there", "is", "a", "an", "the")]
    if not of or not words or gone & _words(shown):
        return "photo of a"
    return f"{' '.join(words)} of a"


def _kept(after: str, gone: set[str]) -> str:
    """Return the phrases that speak of nothing fixed, joined as they were."""
    start = 0
    kept = ""
    cuts = [*PHRASE_START.finditer(after), None]
    joint = ""
    for cut in cuts:
        phrase = after[start : cut.start() if cut else len(after)].strip()
        if phrase and not gone & _words(phrase) and phrase not in JOINERS:
            # what "and" went on from has left
            phrase = phrase if kept else re.sub(r"^and\b", "with", phrase)
            kept += f"{joint or ' '}{phrase}"
        joint, start = (", " if cut and "," in cut[0] else " ", cut.end()) if cut else ("", 0)
    return kept


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", text)) | set(re.findall(r"\w+", text))
