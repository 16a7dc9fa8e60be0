"""Convert U-Net layer names between diffusers and Stability's code."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


@dataclass(frozen=True)
class Layout:
    """Grouping of a U-Net's layers.

    Attributes:
        size: Stability's input blocks per diffusers' block: its resnets and one more.
        crossed: for each of diffusers' up blocks, True if it has attentions.
    """

    size: int = 3
    crossed: tuple[bool, ...] = (True, True, False)


SDXL = Layout()
"""Layout of the published SDXL; all published SD 1.x and 2.x have the same size."""


def layout_of(config: Any) -> Layout:
    """Return the layout of a U-Net by its configuration."""
    return Layout(config.layers_per_block + 1, tuple("CrossAttn" in kind for kind in config.up_block_types))


def original_name(name: str, layout: Layout, dot: str = ".") -> str:
    """Return Stability's name of a layer.

    Args:
        name: diffusers' name, such as "down_blocks.1.attentions.0.proj_in".
        layout: layout of the U-Net.
        dot: separator in both names; "_" in kohya's flat names.

    Raises:
        ValueError: Stability's code has no such layer.
    """
    for ours, theirs in OUTER.items():
        if name == ours.replace(".", dot):
            return theirs.replace(".", dot)
    d, size = re.escape(dot), layout.size
    if found := re.fullmatch(rf"down_blocks{d}(\d+){d}downsamplers{d}0{d}conv", name):
        where, rest = f"input_blocks.{size * (int(found[1]) + 1)}.0", "op"
    elif found := re.fullmatch(rf"up_blocks{d}(\d+){d}upsamplers{d}0{d}(.*)", name):
        block = int(found[1])
        crossed = block < len(layout.crossed) and layout.crossed[block]
        where, rest = f"output_blocks.{size * block + size - 1}.{1 + crossed}", found[2]
    else:
        found = re.fullmatch(
            rf"(down|mid|up)_blocks?{d}(?:(\d+){d})?(resnets|attentions){d}(\d+){d}(.*)", name
        )
        if found is None or (found[2] is None) != (found[1] == "mid"):
            raise ValueError(f"{name}: this layer of the U-Net has no name in Stability's format")
        side, block_, kind, index, rest = found.groups()
        if kind == "resnets" and rest in RESNET:
            rest = RESNET[rest].replace(".", dot)
        if side == "mid":
            where = f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}"
        else:
            number = size * int(block_) + int(index) + (side == "down")
            ends = "input" if side == "down" else "output"
            where = f"{ends}_blocks.{number}.{int(kind == 'attentions')}"
    return f"{where.replace('.', dot)}{dot}{rest}"


def diffusers_name(name: str, size: int) -> str:
    """Return diffusers' flat name of a layer.

    Args:
        name: Stability's flat name, such as "input_blocks_4_1_proj_in"; diffusers' names are returned as is.
        size: size of the U-Net's `Layout`.
    """
    for ours, theirs in OUTER.items():
        if name == theirs.replace(".", "_"):
            return ours.replace(".", "_")
    if found := re.fullmatch(r"middle_block_([012])_(.*)", name):
        return f"mid_block_{_inner(found[1] == '1', int(found[1]) // 2, found[2])}"
    found = re.fullmatch(r"(input|output)_blocks_(\d+)_(\d)_(.*)", name)
    if found is None:
        return name
    side, number, inner, rest = found[1], int(found[2]), found[3], found[4]
    if side == "input":
        block, index = divmod(number - 1, size)
        return (
            f"down_blocks_{block}_downsamplers_0_conv"
            if rest == "op"
            else f"down_blocks_{block}_{_inner(inner == '1', index, rest)}"
        )
    block, index = divmod(number, size)
    if rest == "conv":
        return f"up_blocks_{block}_upsamplers_0_conv"
    return f"up_blocks_{block}_{_inner(inner == '1', index, rest)}"


def group_size(names: Sequence[str]) -> int | None:
    """Return the size of a `Layout` that fits Stability's flat names, the published size first.

    Only the last input block of each group is a downsampler. Return None if the names contain no input
    blocks, or if no size fits.
    """
    blocks = [found for name in names if (found := re.fullmatch(r"input_blocks_(\d+)_\d_(.*)", name))]
    for size in (SDXL.size, 2, 4) if blocks else ():
        if all((int(block[1]) % size == 0) == (block[2] == "op") for block in blocks):
            return size
    return None


def _inner(attention: bool, index: int, rest: str) -> str:
    if attention:
        return f"attentions_{index}_{rest}"
    ours = {theirs.replace(".", "_"): own for own, theirs in RESNET.items()}
    return f"resnets_{index}_{ours.get(rest, rest)}"
