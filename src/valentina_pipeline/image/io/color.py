"""Conversion to sRGB: a file's colors are read from the numbers of its profile, never from its name.

littlecms applies the profiles. Other color information (PNG's gAMA, cHRM and cICP, the nclx box of HEIC and
AVIF, a camera's EXIF flag for Adobe RGB) is converted to a profile first.
"""

import io
import struct
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageCms

from valentina_pipeline.image.io.png_chunks import PROFILE_BYTES, inflated_profile

MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
"""Color space of a profile -> Pillow mode of its pixels."""

MAX_SRGB_DIFFERENCE = 2
"""Levels of 255: a profile that changes no color by more is treated as sRGB, and the pixels stay."""

D65 = (0.3127, 0.3290)
PRIMARIES = {
    1: (*D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060),
    5: (*D65, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060),
    6: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""ITU-T H.273 code -> x and y of white, red, green and blue: sRGB, BT.601 twice, BT.2020, Display P3."""

ADOBE_RGB = (*D65, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060)
ADOBE_GAMMA = 563 / 256

CURVES: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    4: lambda v: v**2.2,
    5: lambda v: v**2.8,
    8: lambda v: v,
    13: lambda v: np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4),
}
"""H.273 code -> function from value to light, both in [0, 1]. Viewers show video codes (VIDEO) as sRGB."""

VIDEO, UNSPECIFIED = (1, 6, 14, 15), 2
HDR = {16: "PQ", 18: "HLG"}
"""Transfer codes of images with a high dynamic range."""

SRGB_GAMMA = 0.45455
GAMMA_TOLERANCE = 0.05
"""Relative difference up to which libpng treats two gammas as equal."""

BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D50 = np.array([0.9642, 1.0, 0.8249])


class UnknownColorError(ValueError):
    """The colors of a file cannot be determined; the message gives the reason."""


def to_srgb(image: Image.Image, profile: bytes | None, behind: str = "white") -> tuple[Image.Image, str]:
    """Return an image as sRGB without transparency, and a note if its profile could not be used.

    Args:
        image: any mode with 8 bits per channel.
        profile: ICC profile; None means sRGB, or the usual interpretation of CMYK and Lab.
        behind: background color for transparent pixels.
    """
    alpha = None
    if image.has_transparency_data:
        gray = image.mode in ("L", "LA", "La")
        layers = image.convert("RGBA")
        alpha, image = layers.getchannel("A"), layers.getchannel("R") if gray else layers.convert("RGB")
    elif image.mode not in MODES.values():
        image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    colored, note = _apply_profile(image, profile)
    if alpha is not None:
        colored = Image.composite(colored, Image.new("RGB", colored.size, behind), alpha)
    return colored, note


def chunks_profile(colors: dict[bytes, bytes]) -> bytes | None:
    """Return the profile of a PNG's color chunks, by the precedence of the standard; None means sRGB.

    Raises:
        ValueError: a chunk is invalid.
        UnknownColorError: the image has a high dynamic range.
    """
    if body := colors.get(b"cICP"):
        return coded_profile(*body[:2])
    if body := colors.get(b"iCCP"):
        return inflated_profile(body)
    if b"sRGB" in colors or not colors:
        return None
    gamma = struct.unpack(">I", colors[b"gAMA"])[0] / 100_000 if b"gAMA" in colors else SRGB_GAMMA
    if not 0.01 <= gamma <= 10:
        raise ValueError(f"gAMA is {gamma:g}")
    points = PRIMARIES[1]
    if body := colors.get(b"cHRM"):
        points = tuple(number / 100_000 for number in struct.unpack(">8I", body))
    if abs(gamma / SRGB_GAMMA - 1) > GAMMA_TOLERANCE:
        return matrix_profile(points, lambda v: v ** (1 / gamma))
    return None if np.allclose(points, PRIMARIES[1], atol=0.003) else matrix_profile(points, CURVES[13])


def coded_profile(primaries: int, transfer: int) -> bytes | None:
    """Return the profile of two H.273 codes; None means sRGB.

    Raises:
        ValueError: a code is unknown.
        UnknownColorError: the image has a high dynamic range.
    """
    if transfer in HDR:
        raise UnknownColorError(
            f"the image has a high dynamic range ({HDR[transfer]}): export it with a standard range (SDR)"
        )
    primaries = 1 if primaries == UNSPECIFIED else primaries
    transfer = 13 if transfer in (*VIDEO, UNSPECIFIED) else transfer
    if primaries not in PRIMARIES or transfer not in CURVES:
        raise ValueError(f"unknown color codes {primaries} and {transfer}")
    plain = (primaries, transfer) == (1, 13)
    return None if plain else matrix_profile(PRIMARIES[primaries], CURVES[transfer])


def adobe_profile() -> bytes:
    """Return the profile of Adobe RGB (1998): cameras write only a flag for it."""
    return matrix_profile(ADOBE_RGB, lambda v: v**ADOBE_GAMMA)


def matrix_profile(points: Sequence[float], curve: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """Return an ICC profile (version 2, matrix and curves) of a color space.

    Args:
        points: x and y of white, red, green and blue.
        curve: function from values to light, both in [0, 1].

    Raises:
        ValueError: the points do not define a color space.
    """
    light = np.round(np.clip(curve(np.linspace(0, 1, 4096)), 0, 1) * 65535).astype(">u2").tobytes()
    bodies = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 8) + b"by code\0" + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": _xyz(D50),
        **dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(_xyz, _rgb_to_xyz(points).T), strict=True)),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv\0\0\0\0" + struct.pack(">I", 4096) + light),
    }
    table, data = struct.pack(">I", len(bodies)), b""
    for name, body in bodies.items():
        table += name + struct.pack(">II", 132 + 12 * len(bodies) + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    head = struct.pack(">I", 128 + len(table) + len(data)) + bytes(4) + b"\x02\x40\0\0mntrRGB XYZ "
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(D50)[8:]
    return head + bytes(128 - len(head)) + table + data


def _rgb_to_xyz(points: Sequence[float]) -> np.ndarray:
    """Return (3, 3): linear red, green and blue -> XYZ, adapted to D50."""
    pairs = np.array(points, np.float64).reshape(4, 2)
    if (pairs[:, 1] <= 0).any() or (pairs < 0).any() or (pairs > 1).any():
        raise ValueError("its primaries are invalid")
    white, *colors = (np.array([x, y, 1 - x - y]) / y for x, y in pairs)
    matrix = np.stack(colors, axis=1)
    if abs(np.linalg.det(matrix)) < 1e-3:
        raise ValueError("its primaries are invalid")
    matrix = matrix * np.linalg.solve(matrix, white)
    cones = BRADFORD @ D50 / (BRADFORD @ white)
    return np.linalg.inv(BRADFORD) @ np.diag(cones) @ BRADFORD @ matrix


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(v) * 65536) for v in np.clip(values, -2, 2)))


def _apply_profile(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    try:
        source = _open_profile(image, profile) if profile else None
    except ValueError as err:
        source, note = None, f"its color profile was ignored: {err}"
    else:
        note = ""
    if source is None and image.mode == "LAB":
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    if source is None:
        return image.convert("RGB"), note
    mode = MODES[source.profile.xcolor_space.strip()]
    converted = image if image.mode == mode else image.convert(mode)
    if mode in ("RGB", "L") and _is_srgb(source, mode):
        return converted.convert("RGB"), note
    return _transform(converted, source), note


def _open_profile(image: Image.Image, profile: bytes) -> ImageCms.ImageCmsProfile:
    """Return the profile after a test on one pixel.

    Raises:
        ValueError: it is invalid, or for another pixel format.
    """
    if len(profile) > PROFILE_BYTES:
        raise ValueError(f"it exceeds {PROFILE_BYTES:,} bytes")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        mode = MODES.get(space)
        if mode == image.mode or (mode == "RGB" and image.mode == "L"):
            _transform(Image.new(mode, (1, 1)), source)
            return source
    except (ImageCms.PyCMSError, OSError, ValueError, AttributeError) as err:
        raise ValueError(f"it is invalid ({' '.join(str(err).split())[:80]})") from err
    raise ValueError(f"it is for {space}, the pixels are {image.mode}")


def _is_srgb(source: ImageCms.ImageCmsProfile, mode: str) -> bool:
    """Return True if the profile leaves a grid of colors unchanged."""
    steps = np.linspace(0, 255, 9 if mode == "RGB" else 256).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * len(mode), indexing="ij"), axis=-1).reshape(1, -1, len(mode))
    probe = Image.fromarray(grid if mode == "RGB" else grid[..., 0])
    difference = np.asarray(_transform(probe, source), np.int16) - np.asarray(probe.convert("RGB"), np.int16)
    return int(np.abs(difference).max()) <= MAX_SRGB_DIFFERENCE


def _transform(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    transformed = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    if transformed is None:
        raise ValueError("it cannot be applied")
    return transformed
