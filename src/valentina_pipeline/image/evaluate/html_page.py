"""Self-contained HTML pages without scripts or links; their bytes are reproducible."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import isnan
from typing import Any

from PIL import Image

MAX_IMAGE_SIDE = 320
"""Maximum side in pixels of an image on a page; smaller images keep their size."""


def page(title: str, kind: str, summary: str, sections: Mapping[str, str], notes: Iterable[str] = ()) -> str:
    """Return a page.

    Args:
        title: heading.
        kind: kind of page, in the browser's title.
        summary: first paragraph.
        sections: heading -> HTML.
        notes: paragraphs before the sections that must not be missed.
    """
    body = "".join(f"<section><h2>{escape(name)}</h2>{html}</section>\n" for name, html in sections.items())
    shown = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: {kind}</title>\n<style>{STYLE}</style></head>\n"
        f"<body><main>\n<h1>{escape(title)}</h1><p>{escape(summary)}</p>{shown}\n{body}</main></body>\n</html>\n"
    )


def picture(image: Image.Image, caption: str, figure: str, kind: str = "") -> str:
    """Return an image with its caption and, on a line of its own, a figure."""
    words = f"{escape(caption)}<br>{escape(figure)}" if figure else escape(caption)
    shown = f'<img alt="{escape(caption)}" src="{image_data(image)}">'
    return f'<figure class="{kind}">{shown}<figcaption>{words}</figcaption></figure>'


def image_data(image: Image.Image) -> str:
    """Return an image as a `data:` URL, at most MAX_IMAGE_SIDE wide and high."""
    small = image.convert("RGB")
    small.info = {}  # the metadata belongs to the stored images; here it would only add bytes
    small.thumbnail((MAX_IMAGE_SIDE, MAX_IMAGE_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=92, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table; `lines` contain HTML, `header` plain text."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    head = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>\n" for line in lines)
    return f'<div class="wide"><table>{head}<tbody>\n{body}</tbody></table></div>'


def image_score(row: Mapping[Any, Any]) -> str:
    """Return an image's identity, and the requested attributes that it does not show."""
    identity = "no face found" if isnan(row["identity"]) else f"identity {row['identity']:.2f}"
    missed = row.get("missed")  # a missing value of a table is NaN
    return f"{identity}; {missed}" if isinstance(missed, str) and missed else identity


STYLE = """
:root { color-scheme: light dark; --paper: #faf9f6; --ink: #26262a; --soft: #6d6a66; --line: #d6d3cc;
  --lora: #b4532a; --real: #2f7d62; --base: #5b6f9c; }
@media (prefers-color-scheme: dark) { :root { --paper: #1b1b1e; --ink: #e8e6e1; --soft: #a09c96;
  --line: #3c3b3f; --lora: #e08a5f; --real: #6cc3a2; --base: #93a7d6; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { margin: 0; font-size: 2rem; } h2 { margin: 2.5rem 0 .75rem; font-size: 1.25rem; }
h3 { margin: 1.25rem 0 .4rem; font-size: .95rem; font-weight: 600; }
p, ul { max-width: 46rem; } .small, figcaption, th, ul { color: var(--soft); font-size: .85rem; }
.note { border-left: 3px solid var(--lora); padding-left: .75rem; }
svg { width: 100%; max-width: 720px; font-size: 14px; fill: currentColor; }
.rule { stroke: var(--line); } .tick { fill: var(--soft); font-size: 12px; }
.bar { stroke-width: 4; stroke-linecap: round; stroke: var(--base); } circle { fill: var(--base); }
.lora .bar { stroke: var(--lora); } .lora circle { fill: var(--lora); }
.ceiling .bar { stroke: var(--real); } .ceiling circle { fill: var(--real); }
.strip { display: flex; flex-wrap: wrap; gap: .75rem; } .pair { display: flex; gap: .25rem; }
figure { margin: 0; width: 148px; } figure img { width: 148px; display: block; border-radius: 4px; }
figure.lora img { outline: 2px solid var(--lora); } figcaption { line-height: 1.3; margin-top: .3rem; }
.thumb { width: 64px; display: block; border-radius: 3px; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
"""
