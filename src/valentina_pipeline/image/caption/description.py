"""Captions describe only what varies; identity traits are left out so that the trigger word absorbs them.

A captioner fills in fixed fields. Phrases that describe the character are removed, and the rest is worded in
one order. Trigger and class word appear once.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields

from valentina_pipeline.domain.concept import photo_of
from valentina_pipeline.image.renderer.wording import PHRASES

PHRASINGS = {
    "expression": "{}",
    "pose": "{}",
    "clothes": "wearing {}",
    "place": "{}",
    "light": "{}",
    "framing": "{}",
}
"""Field -> phrasing, in the order of a caption; the subject is trigger and class word."""

TRAITS = {"dress": "clothes", "background": "place"}
"""Renderer attribute -> field; other attributes are used where a field has their name."""

PEOPLE = ("woman", "lady", "girl", "female", "person", "man", "guy", "boy", "model", "face", "portrait")
"""Words by which captioners call any person; the first one in a sentence is the character."""

VOCABULARY: Mapping[str, str] = {
    "framing": r"close[- ]?up|head ?shot|bust|upper body|half[- ]length|full[- ](body|length)|cowboy shot|"
    r"wide shot|selfie|from (behind|above|below|the side|side)",
    "light": r"light(s|ing)?|lit|backlit|sun(set|rise|light|shine|ny)?|shadows?|shade|night|dusk|dawn|"
    r"golden hour|black and white|monochrome|gr[ae]yscale|dark|bright|overcast",
    "expression": r"smil\w*|laugh\w*|grin\w*|frown\w*|serious|neutral|sad|angry|surprised|cry\w*|pout\w*|"
    r"(open|closed) mouth|expression|happy|calm",
    "clothes": r"wear\w*|dress\w*|shirt|t-shirt|blouse|top|sweater|hoodie|jacket|coat|suit|tie|skirt|jeans|"
    r"pants|trousers|shorts|uniform|scarf|hat|cap|glasses|sunglasses|necklace|earrings?|jewel\w*|gloves|shoes|"
    r"boots|clothes|clothing|outfit|sleeves?|collar",
    "pose": r"sit\w*|stand\w*|walk\w*|run\w*|look\w*|fac(e|es|ing)|turn\w*|lean\w*|lying|kneel\w*|"
    r"pos(e|es|ing)|profile|arms?|hands?|hold\w*|viewer|camera|head",
}
"""Field -> words that assign a phrase to it, tried in this order; any other phrase is the place."""

FILLER_WORDS = (
    "and",
    "with",
    "while",
    "who",
    "that",
    "is",
    "are",
    "has",
    "having",
    "she",
    "he",
    "they",
    "it",
    "there",
)
"""Words that join phrases and carry no content."""

NOT_PHRASES = re.compile(rf"^(?:(?:{'|'.join(FILLER_WORDS)})\s+)+")
CLOTHED = re.compile(r"^(?:wear(?:s|ing)?|dressed in|in|with)\s+")
PHRASE_START = re.compile(
    r"[,;.]\s*|\s+(?=(?:and|with|wearing|in|on|at(?! (?:the )?(?:camera|viewer))|by|near|next|while|who|that|"
    r"has|having|smiling|laughing|standing|sitting|looking|holding|leaning|walking)\b)"
)
IMAGE_WORDS = frozenset(
    {"a", "an", "the", "there", "is", "photo", "photograph", "picture", "image", "portrait", "of"}
)
"""Words that only say that this is an image."""

MAX_FIELD_CHARS = 200
"""Maximum length of a field; longer answers are cut."""


@dataclass(frozen=True)
class Description:
    """Content of an image by field; an unknown field is empty.

    Attributes:
        subject: the person in the captioner's words; captions use trigger and class word instead.
        clothes: such as "a red dress".
        pose: such as "looking to the left".
        expression: such as "smiling".
        place: location and surroundings, such as "on a beach".
        light: such as "soft light".
        framing: such as "close up".
    """

    subject: str = ""
    clothes: str = ""
    pose: str = ""
    expression: str = ""
    place: str = ""
    light: str = ""
    framing: str = ""


FIELDS = tuple(field.name for field in fields(Description))


def compose_caption(description: Description, trigger: str, class_word: str) -> str:
    """Return the caption, such as "photo of a vee woman, smiling, wearing a red dress, on a beach"."""
    values = asdict(description)
    phrases = [phrase.format(values[name]) for name, phrase in PHRASINGS.items() if values[name]]
    return ", ".join([photo_of(f"{trigger} {class_word}"), *phrases])


def from_attributes(attributes: Mapping[str, str]) -> Description:
    """Return the description that corresponds to attributes (trait -> word)."""
    known: dict[str, str] = {}
    for trait, word in attributes.items():
        name = TRAITS.get(trait, trait)
        if name in FIELDS and word:
            phrase = PHRASES.get(trait, "{}").format(word)
            known[name] = CLOTHED.sub("", phrase) if trait == "dress" else phrase
    return Description(**known)


def from_sentence(sentence: str, class_word: str) -> Description:
    """Parse a captioner's sentence into fields.

    The first person mentioned is the subject, together with the words before it: adjectives there describe
    the character.
    """
    plain = re.sub(r"\s+", " ", sentence.lower()).strip(" .")
    people = sorted({*PEOPLE, class_word}, key=len, reverse=True)
    person = re.search(rf"\b(?:{'|'.join(map(re.escape, people))})(?:'s)?\b", plain)
    before, after = (plain[: person.start()], plain[person.end() :]) if person else ("", plain)
    shown, of, own = before.rpartition(" of ")
    opening = _drop_image_words(shown) if of else ""
    subject = f"{_drop_image_words(own if of else before)} {person[0]}".strip() if person else ""
    return from_phrases([opening, *PHRASE_START.split(after)], subject)


def from_caption(caption: str, class_word: str) -> Description:
    """Parse a person's caption: tags separated by commas, or a sentence."""
    tags = caption.split(",")
    return from_phrases(tags) if len(tags) > 2 else from_sentence(caption, class_word)


def from_phrases(phrases: Iterable[str], subject: str = "") -> Description:
    """Assign phrases, or a tagger's tags, to fields by their words."""
    found: dict[str, list[str]] = {}
    for phrase in phrases:
        plain = NOT_PHRASES.sub("", re.sub(r"\s+", " ", phrase.lower()).strip(" .,;"))
        if plain and plain not in FILLER_WORDS:
            found.setdefault(_field(plain), []).append(plain)
    clothes = " and ".join(dict.fromkeys(CLOTHED.sub("", phrase) for phrase in found.pop("clothes", [])))
    others = {name: ", ".join(dict.fromkeys(texts))[:MAX_FIELD_CHARS] for name, texts in found.items()}
    return Description(subject=subject[:MAX_FIELD_CHARS], clothes=clothes[:MAX_FIELD_CHARS], **others)


def drop_identity_phrases(description: Description, gone: Iterable[str]) -> Description:
    """Return the description without phrases that contain one of these words, as they describe the character.

    Args:
        description: a captioner's; its subject stays, because captions never use it.
        gone: words in lower case: identity words, trigger and class word.
    """
    words = set(gone)
    kept = {"subject": description.subject}
    for name in PHRASINGS:
        left, start, joint = "", 0, ""
        value = getattr(description, name)
        for cut in [*PHRASE_START.finditer(value), None]:
            phrase = value[start : cut.start() if cut else len(value)].strip()
            if phrase and not words & _words(phrase):
                left += f"{joint if left else ''}{phrase}"
            if cut:
                joint, start = " " if cut[0].isspace() else ", ", cut.end()
        kept[name] = NOT_PHRASES.sub("", left)
    return Description(**kept)


def _drop_image_words(text: str) -> str:
    return " ".join(word for word in text.split() if word not in IMAGE_WORDS)


def _field(phrase: str) -> str:
    named = (name for name, words in VOCABULARY.items() if re.search(rf"\b(?:{words})\b", phrase))
    return next(named, "place")


def _words(text: str) -> set[str]:
    # a trigger may contain underscores and digits: match with and without them
    return set(re.findall(r"[^\W_]+", text)) | set(re.findall(r"\w+", text))
