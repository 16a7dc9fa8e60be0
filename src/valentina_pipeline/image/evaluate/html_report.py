"""Evaluation report, an HTML page."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, isnan
from typing import Any

from PIL import Image

from valentina_pipeline.common.confidence_intervals import format_interval
from valentina_pipeline.image.evaluate.attributes import FIELDS
from valentina_pipeline.image.evaluate.html_page import image_data, image_score, page, picture, table
from valentina_pipeline.image.evaluate.prompts import VARIANTS, ScoredPrompt
from valentina_pipeline.image.evaluate.step_comparison import step_names

NUM_PAIRS = 8
"""Number of images shown with their nearest training portrait."""

SHORT = {
    "lora": "LoRA",
    "base": "base model, described",
    "base_trigger": "base model, trigger",
    "floor": "base model, class word",
}
IDENTITY_ROWS = {
    "ceiling": "real portraits (ceiling)",
    **{variant: words for variant, words in SHORT.items() if variant != "floor"},
    "floor": "somebody else (floor)",
}
PANEL_ROWS = {
    "lora": "LoRA",
    "base": "base model, described",
    "real": "real portraits",
    "real_vae": "real portraits through the VAE",
}
STEP_SCORES = {
    "identity": "identity",
    "attributes": "attributes",
    "clip_t": "CLIP-T",
    "diversity": "diversity",
}
NUM_STEP_PROMPTS = 4
"""Number of prompts whose images are shown at each training step."""

SCALE_ROWS = {name: PANEL_ROWS[name] for name in ("lora", "base", "real")}
IDENTITY_JUDGES = {
    "embedder": ("face embedder of the tiny base", "identity"),
    "dlib": ("dlib, independent", "identity_dlib"),
}
"""Words of each identity judge, and the metric of its cosines."""

PLOT_WIDTH, PLOT_LEFT, PLOT_ROW = 720, 190, 34


@dataclass(frozen=True)
class ReportData:
    """Content of the report.

    Attributes:
        title: the concept's name.
        metrics: see image/evaluate/metrics.py.
        prompts: each prompt with the scores of its images.
        images: generated images by name.
        aligned: real portraits by sha256.
        trained: sha256 of each accepted portrait, sorted -> True if it was trained on.
        captions: sha256 -> caption.
        settings: name -> value, as text.
        notes: notes for the top of the page, such as excluded prompts.
        step_scores: rows of step_comparison.STEP_COLUMNS; empty if no LoRA was kept during training.
    """

    title: str
    metrics: Mapping[str, Any]
    prompts: Sequence[ScoredPrompt]
    images: Mapping[str, Image.Image]
    aligned: Mapping[str, Image.Image]
    trained: Mapping[str, bool]
    captions: Mapping[str, str]
    settings: Mapping[str, str]
    notes: Sequence[str]
    step_scores: Sequence[Mapping[Any, Any]] = ()

    @property
    def references(self) -> list[str]:
        """The sha256 of the held-out portraits."""
        return [name for name, trained in self.trained.items() if not trained]


def report(content: ReportData) -> str:
    """Return the HTML page."""
    sections: tuple[tuple[str, Callable[[ReportData], str]], ...] = (
        ("Identity", _identity),
        ("Requested and shown", _attributes),
        ("Metrics", _metrics),
        ("Training steps", _training_steps),
        ("Images by prompt", _side_by_side),
        ("Scores by prompt", _by_prompt),
        ("Nearest training portraits", _nearest),
        ("Captions", _captions),
        ("Settings", _settings),
    )
    parts = {name: make(content) for name, make in sections}
    return page(content.title, "evaluation", _summary(content.metrics), parts, content.notes)


def _summary(metrics: Mapping[str, Any]) -> str:
    identity, memorized = metrics["identity"], metrics["memorization"]["rate"]
    return (
        f"Measured on {metrics['num_images']} images of scenes outside the training set. The LoRA’s faces "
        f"reach an identity of {format_interval(identity['lora'])}: {identity['gain_over_base']:+.2f} "
        "against the base model with the full description, "
        f"{identity['ratio_to_ceiling']:.0%} of the value of real portraits. "
        f"{memorized:.0%} of its images copy a training portrait. {_shown(metrics)}"
        "Intervals contain 95% of the bootstrap resamples."
    )


def _shown(metrics: Mapping[str, Any]) -> str:
    """Return a sentence on the attributes that the LoRA's images show."""
    measured = metrics.get("attributes", {})
    shares = [
        f"{words} {measured[field]['lora']['mean']:.0%}"
        for field, words in FIELDS.items()
        if field in measured
    ]
    return f"Its images show of what the prompts request: {', '.join(shares)}. " if shares else ""


def _identity(content: ReportData) -> str:
    rows = [(words, content.metrics["identity"][name], name) for name, words in IDENTITY_ROWS.items()]
    if decoded := content.metrics.get("identity_real_vae"):
        rows.insert(1, ("real, through the VAE", decoded, "ceiling"))
    start = floor(min(0.0, *(figure["ci_low"] for _, figure, _ in rows)) * 5) / 5  # a whole fifth
    height = PLOT_ROW * len(rows) + 34

    def x(value: float) -> str:
        return f"{PLOT_LEFT + (value - start) / (1 - start) * (PLOT_WIDTH - PLOT_LEFT - 60):.1f}"

    parts = [
        f'<line class="rule" x1="{x(tick)}" x2="{x(tick)}" y1="4" y2="{height - 28}"/>'
        f'<text class="tick" x="{x(tick)}" y="{height - 10}" text-anchor="middle">{tick:.1f}</text>'
        for tick in (start + 0.2 * step for step in range(round((1 - start) / 0.2) + 1))
    ]
    for index, (words, figure, name) in enumerate(rows):
        y = PLOT_ROW * index + 22
        low, middle, high = (x(figure[bound]) for bound in ("ci_low", "mean", "ci_high"))
        parts.append(
            f'<g class="{name}">'
            f'<text x="{PLOT_LEFT - 14}" y="{y + 5}" text-anchor="end">{escape(words)}</text>'
            f'<line class="bar" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{middle}" cy="{y}" r="6"/>'
            f'<text x="{PLOT_WIDTH - 4}" y="{y + 5}" text-anchor="end">{figure["mean"]:.2f}</text></g>'
        )
    plot = f'<svg viewBox="0 0 {PLOT_WIDTH} {height}" role="img" aria-label="identity">{"".join(parts)}</svg>'
    words = (
        "Mean cosine similarity of the face embedding to the held-out portraits’, over images that show a "
        "face; the line is its 95% interval."
    )
    return f'{plot}<p class="small">{words}</p>{_identity_scale(content.metrics)}'


def _identity_scale(metrics: Mapping[str, Any]) -> str:
    """Return the table of identity by judge, between strangers and real portraits through the VAE."""
    if "identity_scale" not in metrics:
        return ""
    lines = [
        [
            words,
            *(format_interval(metrics["identity_scale"][judge][name]) for name in SCALE_ROWS),
            *(f"{metrics[raw][name]['mean']:.2f}" for name in ("lora", "base")),
        ]
        for judge, (words, raw) in IDENTITY_JUDGES.items()
        if judge in metrics["identity_scale"]
    ]
    words = (
        "Between the mean of strangers (0) and that of the real portraits through the VAE (1), the most that "
        "a LoRA on this base model can reach. dlib’s network was trained by others, on photographs."
    )
    header = ["judge", *SCALE_ROWS.values(), "LoRA, cosine", "base model, cosine"]
    return f'{table(header, lines)}<p class="small">{words}</p>'


def _attributes(content: ReportData) -> str:
    """Return the table of the share of images that show each requested attribute."""
    if "attributes" not in content.metrics:
        return '<p class="small">Not measured on this base model: see the notes above.</p>'
    lines = []
    for field, words in {**FIELDS, "all": "all together"}.items():
        if field in content.metrics["attributes"]:
            shares = content.metrics["attributes"][field]
            strangers = f"{shares['strangers']:.0%}" if "strangers" in shares else ""
            lines.append([words, *(_share(shares[name]) for name in PANEL_ROWS), strangers])
    words = (
        "Share of images that show what their prompt, or a real portrait’s caption, names, with its 95% "
        "interval. What the judges miss in real portraits is their own error. "
    )
    if identified := content.metrics.get("identification"):
        ranks = [f"{_share(identified[n])}, mean rank {identified[n]['mean_rank']:.1f}" for n in PANEL_ROWS]
        lines.append([f"recognized among {identified['num_strangers']} strangers", *ranks, ""])
    if model := content.settings.get("attribute model"):
        words += f"A vision-language model was asked about each: {escape(model)}."
    else:
        words += (
            "No caption taught these judges: they measure landmarks, gradients and colors, and were "
            "calibrated on renders of other people. An image without a face shows at most the place."
        )
    return f'{table(["", *PANEL_ROWS.values(), "renders of strangers"], lines)}<p class="small">{words}</p>'


def _metrics(content: ReportData) -> str:
    metrics = content.metrics
    drop = f"{metrics['clip_t']['relative_drop']:.1%}"
    copied = metrics["memorization"]
    rows = {
        "Images with a face": ("face_detection_rate", "MTCNN probability of 0.9 or more"),
        "CLIP-T": ("clip_t", f"similarity of image and prompt; the LoRA’s drop is {drop}"),
        "CLIP-I": (
            "clip_i",
            "similarity to the held-out portraits; it sees the scene, not the person: no gate",
        ),
        "Diversity": ("diversity", "CLIP-I distance between images of one prompt"),
    }
    lines = [
        [name, format_interval(metrics[key]["lora"]), format_interval(metrics[key]["base"]), escape(words)]
        for name, (key, words) in rows.items()
    ]
    limits = f"over {copied['threshold']:.3f} in content and {copied['layout_threshold']:.3f} in layout"
    copies = f"closer to a training portrait than real portraits are to each other: {limits}"
    margin = metrics["held_out_minus_training"]
    lines.append(
        [
            "Held-out minus training",
            *(_signed(margin[variant]) for variant in ("lora", "base")),
            "identity to the held-out minus that to the training portraits; copies are below the value of "
            f"real portraits, {_signed(margin['real'])}",
        ]
    )
    lines.append(["Memorized", f"{copied['rate']:.1%}", "", copies])
    return table(["", "LoRA", "base model, described", "meaning"], lines)


def _training_steps(content: ReportData) -> str:
    """Return the scores of the LoRAs kept during training, and their images: a line for each seed."""
    if not content.step_scores:
        return '<p class="small">None was kept: set train_lora.keep_every, such as 100.</p>'
    by_step: dict[int, dict[str, Mapping[Any, Any]]] = {}
    for row in content.step_scores:
        by_step.setdefault(int(row["step"]), {})[row["score"]] = row
    lines = [
        [str(step), *(_step_score(scores[name]) if name in scores else "" for name in STEP_SCORES)]
        for step, scores in by_step.items()
    ]
    words = (
        "Images of the same prompts and seeds by the LoRA at each kept step. ▼ marks a step whose score is "
        "below that of the best earlier step beyond the interval of the paired difference: from there on the "
        "LoRA forgets."
    )
    strips = []
    for prompt, rows in content.prompts[:NUM_STEP_PROMPTS]:
        strips.append(f"<h3>{escape(prompt.label)}</h3>")
        for number in [row["name"].rpartition("/")[2] for row in rows if row["variant"] == "lora"]:
            named = {step: f"{variant}/{number}" for step, variant in step_names(list(by_step)).items()}
            shown = [
                picture(content.images[name], f"step {step}", "", "lora")
                for step, name in named.items()
                if name in content.images
            ]
            strips.append(f'<div class="strip">{"".join(shown)}</div>')
    header = ["step", *STEP_SCORES.values()]
    return f'{table(header, lines)}<p class="small">{words}</p>{"".join(strips)}'


def _step_score(row: Mapping[Any, Any]) -> str:
    return f"{format_interval(row)}{' ▼' if row['falls'] else ''}"


def _side_by_side(content: ReportData) -> str:
    """Return one strip per prompt with every image of every variant."""
    references, strips = content.references, []
    for place, (prompt, rows) in enumerate(content.prompts):
        name = references[place % len(references)]
        cells = [picture(content.aligned[name], "held-out portrait", "")]
        for variant, words in SHORT.items():
            for row in rows:
                if row["variant"] == variant:
                    cells.append(picture(content.images[row["name"]], words, image_score(row), variant))
        strips.append(f'<h3>{escape(prompt.label)}</h3><div class="strip">{"".join(cells)}</div>')
    legend = "".join(f"<li><b>{escape(SHORT[v])}</b>: {escape(words)}</li>" for v, words in VARIANTS.items())
    return f"<ul>{legend}</ul>{''.join(strips)}"


def _by_prompt(content: ReportData) -> str:
    lines = []
    for prompt, rows in content.prompts:
        by = {v: [row for row in rows if row["variant"] == v] for v in VARIANTS}
        identity = [_mean(row["identity"] for row in by[variant]) for variant in VARIANTS]
        clip_t = [_mean(row["clip_t"] for row in by[variant]) for variant in ("lora", "base")]
        nearest = _mean(row["nearest_training"] for row in by["lora"])
        lines.append([escape(prompt.label), *identity, *clip_t, nearest])
    header = [
        "",
        *(f"identity: {SHORT[v]}" for v in VARIANTS),
        "CLIP-T: LoRA",
        "CLIP-T: base model",
        "nearest",
    ]
    return table(header, lines)


def _nearest(content: ReportData) -> str:
    own = [row for _, rows in content.prompts for row in rows if row["variant"] == "lora"]
    own.sort(key=lambda row: (not row["memorized"], -row["nearest_training"], row["name"]))
    pairs = []
    for row in own[:NUM_PAIRS]:
        verdict = "a copy" if row["memorized"] else "not a copy"
        figures = f"content {row['nearest_training']:.3f}, layout {row['nearest_layout']:.3f}: {verdict}"
        drawn = picture(content.images[row["name"]], row["name"], figures, "lora")
        trained = picture(content.aligned[row["nearest_name"]], "trained on", row["nearest_name"][:12])
        pairs.append(f'<div class="pair">{drawn}{trained}</div>')
    words = "The LoRA’s images closest to a training portrait, each with that portrait."
    return f'<p class="small">{words}</p><div class="strip">{"".join(pairs)}</div>'


def _captions(content: ReportData) -> str:
    lines = []
    for name, trained in content.trained.items():
        thumb = f'<img class="thumb" alt="" src="{image_data(content.aligned[name])}">'
        split = "trained on" if trained else "held out"
        lines.append([thumb, f"<code>{name[:12]}</code>", split, escape(content.captions.get(name, ""))])
    return table(["", "portrait", "", "caption"], lines)


def _settings(content: ReportData) -> str:
    lines = [[escape(name), f"<code>{escape(value)}</code>"] for name, value in content.settings.items()]
    return table(["", ""], lines)


def _share(figure: Mapping[str, float]) -> str:
    return f"<b>{figure['mean']:.0%}</b> ({figure['ci_low']:.0%} to {figure['ci_high']:.0%})"


def _signed(figure: Mapping[str, float]) -> str:
    return f"{figure['mean']:+.3f} ({figure['ci_low']:+.3f} to {figure['ci_high']:+.3f})"


def _mean(values: Iterable[float]) -> str:
    valid = [value for value in values if not isnan(value)]
    return f"{sum(valid) / len(valid):.2f}" if valid else "–"
