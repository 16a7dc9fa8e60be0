"""Numba kernels: signed distance fields of a head and body, painted details, lighting.

Head space: x to the viewer's right, y up, z towards the viewer; the eyes lie near y = 0, the chin near
y = -1, the hairline near y = 0.8. World space has the same unit; the neck bends between the two. All
functions process one pixel at a time, so an image does not depend on the number of threads. They share one
file because numba's cache checks only the time stamp of the file with the entry point.
"""

from __future__ import annotations

import math

import numba

# Rows of the palette array, linear RGB.
SKIN, LIPS, HAIR, IRIS, CLOTH, KEY, FILL, AMBIENT = range(8)

DRESS, SHIRT, TURTLENECK, TSHIRT = range(4)
STUDIO, BEIGE, SKY, GARDEN, NIGHT, BEACH, TEAL, SUNSET = range(8)

# Part hit by a ray.
NOTHING, ON_HEAD, ON_HAIR, ON_BODY = range(4)

CAMERA_DISTANCE = 11.0
# Offset of the body: the shoulders were modeled with a longer neck.
BODY_LIFT = 0.22
PIVOT_Y = -1.15
PIVOT_Z = -0.15
NEAR_Z = 1.35
FAR_Z = -1.5

_FAST = {"contract", "arcp", "nsz", "reassoc"}
_jit = numba.njit(cache=True, error_model="numpy", fastmath=_FAST)


# ---------------------------------------------------------------- small mathematics


@_jit
def _clamp(value, low, high):
    return min(max(value, low), high)


@_jit
def _ramp(low, high, value):
    """Return a smooth step from 0 at `low` to 1 at `high`; `high` may be smaller than `low`."""
    t = _clamp((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


@_jit
def _bump(t):
    """Return a smooth bump of height 1 over |t| < 1."""
    s = max(1.0 - t * t, 0.0)
    return s * s


@_jit
def _join(a, b, k):
    """Return the union of two distances, blended over the length k."""
    h = max(k - abs(a - b), 0.0) / k
    return min(a, b) - h * h * k * 0.25


@_jit
def _intersect(a, b, k):
    return -_join(-a, -b, k)


@_jit
def _ellipsoid(x, y, z, rx, ry, rz):
    x, y, z = x / rx, y / ry, z / rz
    k0 = math.sqrt(x * x + y * y + z * z)
    x, y, z = x / rx, y / ry, z / rz
    return k0 * (k0 - 1.0) / (math.sqrt(x * x + y * y + z * z) + 1e-9)


@_jit
def _length(x, y, z):
    return math.sqrt(x * x + y * y + z * z)


@_jit
def _cone(x, y, z, ax, ay, az, bx, by, bz, ra, rb):
    """Return the distance to a capsule from a to b whose radius changes from ra to rb."""
    bx, by, bz = bx - ax, by - ay, bz - az
    x, y, z = x - ax, y - ay, z - az
    t = _clamp((x * bx + y * by + z * bz) / (bx * bx + by * by + bz * bz), 0.0, 1.0)
    return _length(x - t * bx, y - t * by, z - t * bz) - ra - t * (rb - ra)


@_jit
def _cover(distance, footprint):
    """Return the share of a pixel inside an edge: 1 inside, 0 outside."""
    return _ramp(0.6 * footprint, -0.6 * footprint, distance)


@_jit
def _mix3(a, b, t):
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


@_jit
def _row(palette, index):
    return palette[index, 0], palette[index, 1], palette[index, 2]


# ----------------------------------------------------------------------------- pose


@_jit
def _to_head(g, x, y, z):
    """Transform world space to head space; below the neck to body space."""
    y, z = y - PIVOT_Y, z - PIVOT_Z
    bx = g.body_cos * x - g.body_sin * z
    bz = g.body_sin * x + g.body_cos * z
    w = _ramp(-0.62, 0.15, y)
    hx = g.m00 * x + g.m10 * y + g.m20 * z
    hy = g.m01 * x + g.m11 * y + g.m21 * z
    hz = g.m02 * x + g.m12 * y + g.m22 * z
    # Blending positions instead of angles needs no trigonometry and bends the neck.
    return (
        bx + (hx - bx) * w,
        y + (hy - y) * w + PIVOT_Y,
        bz + (hz - bz) * w + PIVOT_Z,
    )


# ----------------------------------------------------------------------------- head


@_jit
def _mouth_lines(g, x):
    """Return the heights of the four lip edges at x: upper rim, upper inner, lower inner, lower rim."""
    s = x / g.mouth_half
    f = max(1.0 - s * s, 0.0)
    arc = math.sqrt(f)
    middle = g.mouth_y + g.smile * (s * s - 0.45)
    upper = middle + g.mouth_open * 0.30 * arc
    lower = middle - g.mouth_open * 0.80 * arc
    bow = 1.0 - 0.30 * _bump(s / 0.32)
    body = 0.45 * f + 0.55 * arc
    return (
        upper + g.upper_lip * body * bow + 0.012 * (1.0 - _bump(s / 0.5)) * f,
        upper,
        lower,
        lower - g.lower_lip * (0.65 * f + 0.35 * arc),
    )


@_jit
def _lip_relief(g, x, y):
    """Return the height of the lips above the face; negative inside an open mouth."""
    if abs(x) >= g.mouth_half or abs(y - g.mouth_y) > 0.42:
        return 0.0
    rim, upper, lower, low_rim = _mouth_lines(g, x)
    fade = _ramp(1.0, 0.4, abs(x) / g.mouth_half)
    if y > upper:
        t = (y - upper) / (rim - upper + 0.03)
        return fade * 0.030 * _ramp(1.0, 0.35, t) * _ramp(0.0, 0.45, t)
    if y < lower:
        t = (lower - y) / (lower - low_rim + 0.03)
        return fade * 0.045 * _ramp(1.0, 0.45, t) * _ramp(0.0, 0.45, t)
    return -0.03 * fade * _clamp((upper - lower) / 0.1, 0.0, 1.0)


@_jit
def _head(g, x, y, z):
    """Return the signed distance to the skin of the head."""
    bound = _length(x, y - 0.08, z + 0.1) - 1.2
    if bound > 0.35:
        return bound
    side = abs(x)
    taper = 1.0 + g.jaw_taper * _ramp(0.05, -0.95, y)
    xf = side * taper
    d = _ellipsoid(x, y - 0.30, z + 0.15, 0.72, 0.80, 0.84)
    d = _join(d, _ellipsoid(xf, y + 0.12, z - 0.08, g.face_rx, 0.86, 0.62), 0.18)
    d = _join(d, _length(side - g.jaw_x, y + 0.56, z - 0.10) - 0.20, 0.22)
    d = _join(d, _ellipsoid(x, y - g.chin_y, z - 0.44, g.chin_rx, 0.15, 0.17), 0.22)
    if z < -0.1:
        return d
    if d > 0.4:
        # Nose and lips protrude from this surface by less than the difference.
        return d - 0.24
    cheek = _length(side - g.cheek_x, y - g.cheek_y, z - 0.36) - g.cheek_r
    d = _join(d, cheek, 0.20)
    if abs(y - g.eye_y) < 0.42:
        socket = _ellipsoid(side - g.eye_x, y - g.eye_y - 0.02, z - 0.84, 0.22, 0.15, 0.22)
        d = _intersect(d, -socket, 0.16)
        ball = _length(side - g.eye_x, y - g.eye_y, z - 0.415) - 0.215
        d = _join(d, ball, 0.05)
    if side < 0.45 and abs(y + 0.15) < 0.62:
        bridge = _cone(x, y, z, 0.0, 0.20, 0.58, 0.0, g.nose_y + 0.05, 0.78, g.bridge_r, g.bridge_r * 1.1)
        tip = _length(x, y - g.nose_y, z - 0.79) - g.tip_r
        wing = _ellipsoid(side - g.wing_x, y - g.nose_y + 0.03, z - 0.69, 0.060, 0.056, 0.09)
        # The underside slopes towards the lip, so that it does not turn black.
        base = _cone(x, y, z, 0.0, g.nose_y, 0.75, 0.0, g.nose_y - 0.09, 0.61, 0.065, 0.06)
        nose = _join(_join(_join(bridge, tip, 0.10), base, 0.10), wing, 0.09)
        d = _join(d, nose, 0.13)
    if y > -0.15:
        return d
    d = _join(d, _ellipsoid(x, y - g.mouth_y, z - 0.44, 0.30, 0.20, 0.22), 0.16)
    return d - _lip_relief(g, x, y)


# ----------------------------------------------------------------------------- hair


@_jit
def _wave(g, y):
    """Return the sideways sway of the strands, which increases below the eyes."""
    if y > 0.1:
        return 0.0
    return g.hair_wave * math.sin(3.6 * y + g.hair_phase) * _ramp(0.1, -0.9, y)


@_jit
def _strand(g, x, y):
    """Return the coordinate across the strands, half the width of the face opening, and the gradient.

    The coordinate is 1 at the edge of the face. Above the eyes its level lines are half ellipses around the
    parting, below them they are straight.
    """
    lean = g.part_x * _ramp(-0.6, 0.3, y)
    dx = x - lean
    half = g.open_half - g.open_close * _ramp(-0.7, -1.7, y) - math.copysign(lean, lean * dx)
    rise = g.hairline_y + 0.10
    u, v = dx / half, max(y + 0.10, 0.0) / rise
    c = math.sqrt(u * u + v * v) + 1e-6
    return c, half, u / (half * c), v / (rise * c)


@_jit
def _hair(g, x, y, z):
    """Return the signed distance to the hair: a long dome with an opening for face and neck."""
    x += _wave(g, y)
    yy = max(y - 0.28, 0.0) + min(y - g.hair_end, 0.0) * (g.hair_ry / 0.34)
    fall = _ramp(-0.5, -1.8, y)
    wide = (x + 0.1 * g.part_x) / (1.0 + g.hair_flare * fall)
    d = _ellipsoid(wide, yy, z + 0.20 - 0.16 * fall, g.hair_rx, g.hair_ry, g.hair_rz)
    if d > 0.35:
        return d * 0.9
    c, half, _, _ = _strand(g, x, y)
    opening = (c - 1.0) * half * 0.85
    back = 0.10 - 0.60 * _ramp(-0.30, -1.05, y) - z
    d = _intersect(d, -_intersect(opening, back, 0.10), 0.11)
    if abs(d) < 0.08:
        groove = _bump(_clamp((x - g.part_x) / 0.07, -1.0, 1.0)) * _ramp(0.70, 0.95, y)
        d += 0.020 * groove + 0.009 * math.sin(c * 17.0 + g.hair_phase)
    return d * 0.88


# ----------------------------------------------------------------------------- body


@_jit
def _neckline(g, x, y):
    """Return the distance to the edge of the cloth on the body surface, negative on cloth."""
    side = abs(x)
    if g.dress == DRESS:
        scoop = y + 2.02 - 0.22 * _ramp(0.12, 0.72, side)
        return min(scoop, max(abs(side - 0.70) - 0.045, y + 1.2))
    if g.dress == SHIRT:
        return max(y + 1.40, 0.30 * (y + 2.10) - 0.8 * side + 0.03)
    if g.dress == TURTLENECK:
        return y + 1.27
    return 0.45 - math.sqrt(x * x * 0.62 + (y + 1.46) * (y + 1.46))


@_jit
def _collar(g, x, y):
    """Return 1 on the two leaves of a shirt collar."""
    edge = 0.8 * abs(x) - 0.30 * (y + 2.10) - 0.03
    leaf = _ramp(0.28, 0.22, edge) * _ramp(-0.03, 0.03, edge)
    return leaf * _ramp(-1.38, -1.46, y) * _ramp(-2.02, -1.94, y + 0.25 * (0.25 - edge))


@_jit
def _body(g, x, y, z):
    """Return the signed distance to neck, shoulders and clothes."""
    y -= BODY_LIFT
    side = abs(x)
    d = _cone(x, y, z, 0.0, -0.6, -0.16, 0.0, -1.80, -0.24, 0.28, 0.32)
    if y > -1.1:
        return max(d, 0.0) if d > 0.3 else d
    chest = _ellipsoid(x, y + 2.75, z + 0.16, 1.15, 1.0, 0.50)
    arm = _cone(side, y, z, 0.05, -1.82, -0.25, 1.08, -2.18, -0.25, 0.20, 0.28)
    upper_arm = _cone(side, y, z, 1.08, -2.18, -0.25, 1.28, -3.2, -0.20, 0.27, 0.25)
    d = _join(_join(d, _join(arm, upper_arm, 0.15), 0.36), chest, 0.25)
    if d > 0.2:
        return d - 0.1
    bone = y + 1.76 - 0.10 * side + 0.05 * _bump(_clamp((side - 0.1) / 0.2, -1.0, 1.0))
    d -= 0.024 * _bump(_clamp(bone / 0.085, -1.0, 1.0)) * _bump((side - 0.48) / 0.46) * _ramp(-0.2, 0.1, z)
    d += 0.035 * _bump(side / 0.13) * _bump((y + 1.78) / 0.13) * _ramp(-0.1, 0.1, z)
    d -= 0.035 * _ramp(0.03, -0.04, _neckline(g, x, y))
    if g.dress == TURTLENECK:
        d -= 0.07 * _ramp(-1.25, -1.33, y) * _ramp(-1.68, -1.57, y)
        d += 0.025 * _bump((y + 1.46) / 0.06)
    elif g.dress == SHIRT:
        d -= 0.05 * _collar(g, x, y)
    return d * 0.9


@_jit
def _scene(g, x, y, z):
    """Return the signed distance to the nearest of head, hair and body, and that part."""
    x, y, z = _to_head(g, x, y, z)
    d = _hair(g, x, y, z)
    part = ON_HAIR
    if y > -1.45:
        head = _head(g, x, y, z)
        if head < d:
            d, part = head, ON_HEAD
    if y < -0.45:
        body = _body(g, x, y, z)
        if body < d:
            d, part = body, ON_BODY
    return d, part


@_jit
def _part(g, part, x, y, z):
    if part == ON_HAIR:
        return _hair(g, x, y, z)
    if part == ON_HEAD:
        return _head(g, x, y, z)
    return _body(g, x, y, z)


@_jit
def _normal(g, part, h, y):
    """Return the world-space normal of a part at the point h in head space; y is in world space."""
    e = 0.010
    sx, sy, sz = 0.0, 0.0, 0.0
    # Four corners of a tetrahedron; a loop keeps the compiled code small.
    for corner in range(4):
        cx = 1.0 if corner == 0 or corner == 3 else -1.0
        cy = 1.0 if corner >= 2 else -1.0
        cz = 1.0 if corner == 1 or corner == 3 else -1.0
        d = _part(g, part, h[0] + e * cx, h[1] + e * cy, h[2] + e * cz)
        sx, sy, sz = sx + d * cx, sy + d * cy, sz + d * cz
    w = _ramp(-0.62, 0.15, y - PIVOT_Y)
    bx, by, bz = g.body_cos * sx + g.body_sin * sz, sy, -g.body_sin * sx + g.body_cos * sz
    nx = bx + (g.m00 * sx + g.m01 * sy + g.m02 * sz - bx) * w
    ny = by + (g.m10 * sx + g.m11 * sy + g.m12 * sz - by) * w
    nz = bz + (g.m20 * sx + g.m21 * sy + g.m22 * sz - bz) * w
    s = 1.0 / (_length(nx, ny, nz) + 1e-12)
    return nx * s, ny * s, nz * s


@_jit
def front_depth(params, x, y):
    """Return the depth z of the face surface at (x, y) in head space."""
    g = params[0]
    z = 1.3
    for _ in range(80):
        d = _head(g, x, y, z)
        if d < 1e-3:
            break
        z -= d * 0.7
    return z


# ------------------------------------------------------------------ painted details


@_jit
def _paint_eye(g, palette, color, x, y, footprint):
    """Paint lid, lashes, white, iris, pupil, catch light and brow of the nearer eye."""
    outward = 1.0 if x > 0.0 else -1.0
    du = outward * x - g.eye_x
    u = du / g.eye_half
    dv = y - g.eye_y
    v = dv - g.eye_tilt * du
    f = max(1.0 - u * u, 0.0)
    arc = 0.5 * f + 0.5 * math.sqrt(f)
    lid = g.eye_up * arc * (1.0 + 0.16 * u)
    floor = -g.eye_low * (0.7 * f + 0.3 * arc)
    ink = (0.020, 0.012, 0.010)
    if abs(u) < 1.5 and abs(v) < 0.34:
        shade = (color[0] * 0.52, color[1] * 0.38, color[2] * 0.36)
        above = v - lid
        soft = _ramp(1.35, 0.7, abs(u)) * _ramp(0.11, 0.0, above) * _ramp(-0.3, 0.0, v - floor)
        color = _mix3(color, shade, 0.50 * soft)
        crease = abs(v - lid - 0.048 - 0.015 * u) - 0.008
        color = _mix3(color, shade, 0.75 * _ramp(1.1, 0.7, abs(u)) * _cover(crease, footprint + 0.015))
        if abs(u) < 1.0:
            inside = _cover(v - lid, footprint) * _cover(floor - v, footprint)
            color = _mix3(color, _paint_ball(g, palette, outward, du, dv, lid - v, footprint), inside)
        lash = abs(v - lid - 0.006) - (0.012 + 0.012 * _ramp(-0.9, 0.9, u))
        if u > 1.0:
            lash = abs(v - 0.012 - 0.16 * (u - 1.0)) - 0.020 * _ramp(1.30, 0.9, u)
        ends = _ramp(1.32, 1.2, u) * _ramp(-1.08, -0.9, u)
        color = _mix3(color, ink, 0.94 * ends * _cover(lash, footprint))
        under = abs(v - floor) - 0.006
        color = _mix3(color, ink, 0.45 * _ramp(1.02, 0.8, abs(u)) * _cover(under, footprint))
    b = (du - 0.03) / 0.235
    rise = g.brow_y + g.brow_arch * (1.0 - (b - 0.30) * (b - 0.30) * 1.1) + g.brow_tip * b
    width = g.brow_half * _ramp(1.12, 0.15, b) * (0.72 + 0.28 * _ramp(-0.9, -0.4, b)) + 0.006
    brow = _cover(abs(y - rise) - width, footprint + 0.012) * _ramp(-0.92, -0.72, b) * _ramp(1.12, 0.95, b)
    hair = _row(palette, HAIR)
    deep = (hair[0] * 0.40 + 0.004, hair[1] * 0.36 + 0.003, hair[2] * 0.33 + 0.003)
    return _mix3(color, deep, 0.92 * brow)


@_jit
def _paint_ball(g, palette, outward, du, dv, under_lid, footprint):
    """Return the color of the visible eyeball, in units of the eye."""
    ix = du - outward * g.gaze_x
    iy = dv - g.gaze_y
    r = math.sqrt(ix * ix + iy * iy)
    white = (0.86, 0.83, 0.81)
    iris = _row(palette, IRIS)
    rim = _ramp(0.6, 1.0, r / g.iris_r)
    glow = _ramp(0.3, -0.9, iy / g.iris_r)
    lit = (0.75 + 0.85 * glow) * (1.0 - 0.62 * rim)
    ball = _mix3(white, (iris[0] * lit, iris[1] * lit, iris[2] * lit), _cover(r - g.iris_r, footprint))
    ball = _mix3(ball, (0.008, 0.006, 0.006), _cover(r - 0.42 * g.iris_r, footprint))
    dark = 1.0 - 0.55 * _ramp(0.07, 0.0, under_lid)
    ball = (ball[0] * dark, ball[1] * dark, ball[2] * dark)
    gx = outward * ix + 0.36 * g.iris_r
    gy = iy - 0.40 * g.iris_r
    glint = _cover(math.sqrt(gx * gx + gy * gy) - 0.26 * g.iris_r, footprint)
    return _mix3(ball, (1.25, 1.25, 1.25), glint)


@_jit
def _paint_mouth(g, palette, color, x, y, footprint):
    """Paint the lips, the line between them, and teeth in an open mouth; return color and gloss."""
    s = abs(x) / g.mouth_half
    if s > 1.12 or abs(y - g.mouth_y) > 0.4:
        return color, 0.0
    rim, upper, lower, low_rim = _mouth_lines(g, x)
    lips = _row(palette, LIPS)
    ends = _ramp(1.02, 0.90, s)
    inside = _cover(y - rim, footprint) * _cover(low_rim - y, footprint) * ends
    over = _ramp(lower, upper + 0.01, y)
    tone = 1.12 - 0.40 * over
    color = _mix3(color, (lips[0] * tone, lips[1] * tone, lips[2] * tone), 0.95 * inside)
    gloss = inside * (1.0 - over)
    dark = (lips[0] * 0.12, lips[1] * 0.07, lips[2] * 0.07)
    seam = _cover(max(y - upper, lower - y) - 0.008, footprint) * _ramp(1.10, 0.9, s)
    color = _mix3(color, dark, 0.88 * seam)
    if g.mouth_open > 0.02:
        hollow = _cover(y - upper, footprint) * _cover(lower - y, footprint) * _ramp(1.0, 0.9, s)
        tongue = _ramp(0.10, 0.0, y - lower) * _ramp(0.8, 0.3, s)
        color = _mix3(color, _mix3(dark, (0.42, 0.10, 0.10), 0.7 * tongue), hollow)
        teeth = _cover(upper - g.teeth - y, footprint)
        color = _mix3(color, (0.84, 0.81, 0.77), hollow * teeth * _ramp(0.97, 0.75, s))
        gloss *= 1.0 - hollow
    return color, gloss


@_jit
def _paint_face(g, palette, x, y, z, footprint):
    """Return the color of the face at a point in head space, and its gloss."""
    skin = _row(palette, SKIN)
    if z < 0.0:
        return skin, 0.0
    lips = _row(palette, LIPS)
    side = abs(x)
    cx, cy = (side - g.cheek_x - 0.02) / 0.30, (y - g.cheek_y) / 0.25
    nose = _bump(_clamp(_length(x, y - g.nose_y, 0.0) / 0.17, 0.0, 1.0))
    blush = 0.22 * _bump(min(math.sqrt(cx * cx + cy * cy), 1.0)) + 0.14 * nose
    color = _mix3(skin, (lips[0] * 0.6 + skin[0] * 0.5, lips[1], lips[2]), blush)
    hx, hy = (side - g.wing_x * 0.72) / 0.036, (y - g.nose_y + 0.072) / 0.018
    hole = _ramp(1.6, 0.5, math.sqrt(hx * hx + hy * hy)) * _ramp(0.6, 0.7, z)
    color = _mix3(color, (skin[0] * 0.20, skin[1] * 0.10, skin[2] * 0.09), 0.24 * hole)
    if y > -0.35:
        return _paint_eye(g, palette, color, x, y, footprint), 0.0
    return _paint_mouth(g, palette, color, x, y, footprint)


@_jit
def _paint_body(g, palette, x, y, footprint):
    """Return the color of neck, shoulders or cloth, and the share of cloth."""
    y -= BODY_LIFT
    skin, cloth = _row(palette, SKIN), _row(palette, CLOTH)
    edge = _neckline(g, x, y)
    if g.dress == SHIRT:
        placket = _cover(abs(abs(x) - 0.07) - 0.006, footprint) * _ramp(-2.02, -2.08, y)
        dark = 1.0 - 0.35 * placket + 0.05 * _collar(g, x, y)
        cloth = (cloth[0] * dark, cloth[1] * dark, cloth[2] * dark)
    on = _cover(edge, footprint)
    hem = 1.0 - 0.30 * _bump((edge + 0.05) / 0.02) * (0.0 if g.dress == TURTLENECK else 1.0)
    return _mix3(skin, (cloth[0] * hem, cloth[1] * hem, cloth[2] * hem), on), on


# ------------------------------------------------------------------------- lighting


@_jit
def _shadow(g, x, y, z):
    """Return the share of the key light that reaches a point."""
    lit, t = 1.0, 0.08
    for _ in range(8):
        d, _part = _scene(g, x + g.key_x * t, y + g.key_y * t, z + g.key_z * t)
        lit = min(lit, 3.6 * d / t + 0.12)
        if lit < 0.02:
            return 0.0
        t += _clamp(0.9 * d, 0.07, 0.30)
        if t > 1.3:
            break
    lit = _clamp(lit, 0.0, 1.0)
    return lit * lit * (3.0 - 2.0 * lit)


@_jit
def _occlusion(g, x, y, z, nx, ny, nz):
    near, _a = _scene(g, x + 0.06 * nx, y + 0.06 * ny, z + 0.06 * nz)
    far, _b = _scene(g, x + 0.20 * nx, y + 0.20 * ny, z + 0.20 * nz)
    return _clamp(1.0 - 3.2 * max(0.06 - near, 0.0) - 2.2 * max(0.20 - far, 0.0), 0.0, 1.0)


@_jit
def _shade_hair(g, hx, hy, n, key_dot, lit, open_sky, footprint):
    """Return the color of the hair: diffuse with streaks and two highlights along the strands."""
    c, _half, gx, gy = _strand(g, hx + _wave(g, hy), hy)
    streak = math.sin(c * 17.0 + g.hair_phase) + 0.5 * math.sin(c * 29.0 + 2.0 * g.hair_phase)
    # Single strands only where the image is large enough to resolve them.
    streak += _ramp(0.016, 0.005, footprint) * (0.35 * math.sin(c * 71.0) + 0.25 * math.sin(c * 127.0 + 1.0))
    tone = 1.0 + 0.16 * streak
    # The strand runs along the surface, across the gradient of the coordinate.
    tx, ty, tz = -n[2] * gy, n[2] * gx, n[0] * gy - n[1] * gx
    s = 1.0 / (_length(tx, ty, tz) + 1e-6)
    kx, ky, kz = g.key_x, g.key_y, g.key_z + 1.0
    k = s / _length(kx, ky, kz)
    along = (tx * kx + ty * ky + tz * kz) * k - 0.05 * streak
    across = max(1.0 - along * along, 0.0)
    shine = across**30 * (0.25 + 0.75 * lit) * _clamp(key_dot + 0.3, 0.0, 1.0)
    sheen = across**7 * open_sky
    return tone, shine, sheen


@_jit
def _light(g, palette, part, color, gloss, p, h, n, view, footprint):
    """Return the linear RGB that leaves a point p (h in head space) with normal n."""
    key, fill, ambient = _row(palette, KEY), _row(palette, FILL), _row(palette, AMBIENT)
    dot = n[0] * g.key_x + n[1] * g.key_y + n[2] * g.key_z
    lit = _shadow(g, p[0] + 0.02 * n[0], p[1] + 0.02 * n[1], p[2] + 0.02 * n[2]) if dot > -0.2 else 0.0
    sky = _occlusion(g, p[0], p[1], p[2], n[0], n[1], n[2])
    if part != ON_HAIR:
        # Skin and cloth scatter light into their own shadows.
        lit, sky = 0.16 + 0.84 * lit, 0.25 + 0.75 * sky
    wrap = _clamp((dot + 0.22) / 1.22, 0.0, 1.0)
    direct = wrap * lit
    fill_dot = _clamp(0.5 - 0.5 * n[0] * g.key_side + 0.35 * n[2], 0.0, 1.0) * sky
    dome = (0.62 + 0.38 * n[1]) * sky
    facing = max(n[0] * view[0] + n[1] * view[1] + n[2] * view[2], 0.0)
    rim = (1.0 - facing) ** 3 * sky * 0.35
    hx, hy, hz = g.key_x + view[0], g.key_y + view[1], g.key_z + view[2]
    half = max((n[0] * hx + n[1] * hy + n[2] * hz) / _length(hx, hy, hz), 0.0)
    tone, shine, sheen, tint = 1.0, 0.0, 0.0, 0.0
    if part == ON_HAIR:
        tone, shine, sheen = _shade_hair(g, h[0], h[1], n, dot, lit, sky, footprint)
        shine, sheen = 0.06 * shine, 0.45 * sheen + 1.1 * shine
    elif part == ON_HEAD or gloss < 0.5:
        shine = (0.085 * half**12 + gloss * 0.22 * half**40) * lit
        tint = 1.0
    # Light that enters the skin comes back warm where it grazes and in shade.
    warm = tint * 0.06 * (1.0 - sky)
    bright, graze = direct + sheen, 0.30 * tint * direct * wrap * (1.0 - wrap)
    r = color[0] * tone * (key[0] * (bright + graze) + fill[0] * fill_dot + ambient[0] * dome + warm)
    gr = color[1] * tone * (key[1] * (bright + 0.25 * graze) + fill[1] * fill_dot + ambient[1] * dome)
    b = color[2] * tone * (key[2] * bright + fill[2] * fill_dot + ambient[2] * dome)
    edge = rim * (0.4 * ambient[0] + 0.6 * color[0])
    return (
        r + shine * key[0] + edge * ambient[0],
        gr + shine * key[1] + edge * ambient[1],
        b + shine * key[2] + edge * ambient[2],
    )


# ----------------------------------------------------------------------- background


@_jit
def _disc(color, u, v, cu, cv, radius, blur, tint, strength):
    r = math.sqrt((u - cu) * (u - cu) + (v - cv) * (v - cv))
    return _mix3(color, tint, strength * _ramp(radius + blur, radius - blur, r))


@_jit
def _backdrop(kind, u, v, shift):
    """Return the blurred background, linear RGB; u to the right, v down, 0 to 1."""
    corner = (u - 0.5) * (u - 0.5) + (v - 0.45) * (v - 0.45)
    u = u + shift
    if kind == STUDIO:
        t = 0.50 - 0.55 * corner
        return t, t, t * 1.03
    if kind == BEIGE:
        t = 1.0 - 0.55 * corner - 0.12 * v
        return 0.80 * t, 0.64 * t, 0.46 * t
    if kind == TEAL:
        t = 1.0 - 0.7 * corner - 0.15 * v
        return 0.02 * t, 0.33 * t, 0.34 * t
    if kind == SKY:
        color = _mix3((0.13, 0.39, 0.86), (0.50, 0.74, 0.95), _ramp(0.0, 1.0, v))
        color = _disc(color, u, v * 1.6, 0.16, 0.42, 0.08, 0.12, (0.95, 0.96, 0.98), 0.75)
        color = _disc(color, u, v * 1.6, 0.28, 0.50, 0.06, 0.12, (0.95, 0.96, 0.98), 0.60)
        return _disc(color, u, v * 1.6, 0.90, 0.80, 0.10, 0.14, (0.95, 0.96, 0.98), 0.70)
    if kind == GARDEN:
        color = _mix3((0.20, 0.45, 0.10), (0.06, 0.20, 0.04), _ramp(0.1, 1.0, v))
        color = _disc(color, u, v, 0.12, 0.22, 0.09, 0.10, (0.50, 0.70, 0.16), 0.75)
        color = _disc(color, u, v, 0.88, 0.40, 0.10, 0.10, (0.40, 0.62, 0.12), 0.65)
        color = _disc(color, u, v, 0.72, 0.08, 0.08, 0.10, (0.62, 0.78, 0.30), 0.70)
        return _disc(color, u, v, 0.08, 0.66, 0.10, 0.12, (0.03, 0.13, 0.03), 0.70)
    if kind == NIGHT:
        color = _mix3((0.006, 0.008, 0.030), (0.030, 0.020, 0.060), v)
        color = _disc(color, u, v, 0.10, 0.34, 0.060, 0.025, (0.95, 0.52, 0.12), 0.75)
        color = _disc(color, u, v, 0.90, 0.26, 0.070, 0.025, (0.90, 0.60, 0.20), 0.65)
        color = _disc(color, u, v, 0.20, 0.12, 0.045, 0.022, (0.10, 0.45, 0.80), 0.70)
        color = _disc(color, u, v, 0.82, 0.56, 0.050, 0.022, (0.80, 0.12, 0.18), 0.65)
        return _disc(color, u, v, 0.08, 0.62, 0.048, 0.022, (0.85, 0.75, 0.45), 0.60)
    if kind == BEACH:
        color = _mix3((0.40, 0.66, 0.92), (0.72, 0.86, 0.95), _ramp(0.0, 0.42, v))
        color = _mix3(color, (0.04, 0.36, 0.46), _ramp(0.41, 0.46, v))
        color = _mix3(color, (0.20, 0.55, 0.56), _ramp(0.50, 0.62, v))
        return _mix3(color, (0.80, 0.62, 0.36), _ramp(0.63, 0.70, v))
    color = _mix3((0.16, 0.08, 0.30), (0.80, 0.22, 0.22), _ramp(0.0, 0.48, v))
    color = _mix3(color, (1.0, 0.50, 0.10), _ramp(0.40, 0.75, v))
    color = _mix3(color, (0.22, 0.07, 0.14), _ramp(0.78, 0.95, v))
    return _disc(color, u, v, 0.84, 0.60, 0.06, 0.05, (1.0, 0.80, 0.36), 0.9)


# ------------------------------------------------------------------------ the image


@_jit
def _trace(g, palette, u, v, footprint):
    """Return linear RGB, depth and part at the image position (u, v), both 0 to 1."""
    dx, dy, dz = (u - 0.5) * g.frame, (0.5 - v) * g.frame, -CAMERA_DISTANCE
    s = 1.0 / _length(dx, dy, dz)
    dx, dy, dz = dx * s, dy * s, dz * s
    ox, oy, oz = g.camera_x, g.camera_y, CAMERA_DISTANCE
    t = (NEAR_Z - oz) / dz
    end = (FAR_Z - oz) / dz
    part = NOTHING
    for _ in range(60):
        # A ray that grazes a surface until the steps run out counts as a hit.
        d, part = _scene(g, ox + t * dx, oy + t * dy, oz + t * dz)
        if d < 0.002:
            break
        t += d
        if t > end:
            part = NOTHING
            break
    if part == NOTHING:
        return _backdrop(g.background, u, v, g.backdrop_shift), FAR_Z, part
    p = (ox + t * dx, oy + t * dy, oz + t * dz)
    h = _to_head(g, p[0], p[1], p[2])
    n = _normal(g, part, h, p[1])
    gloss = 0.0
    if part == ON_HEAD:
        color, gloss = _paint_face(g, palette, h[0], h[1], h[2], footprint)
    elif part == ON_BODY:
        color, gloss = _paint_body(g, palette, h[0], h[1], footprint)
    else:
        color = _row(palette, HAIR)
        line = _bump((h[0] - g.part_x) / 0.032) * _ramp(0.80, 0.98, h[1])
        color = _mix3(color, _row(palette, SKIN), 0.55 * line)
    return _light(g, palette, part, color, gloss, p, h, n, (-dx, -dy, -dz), footprint), p[2], part


@_jit
def _encode(value):
    """Convert linear light to sRGB, 0 to 255, with a soft shoulder instead of clipping."""
    if value > 0.7:
        value = 0.7 + 0.3 * (1.0 - math.exp(-(value - 0.7) / 0.3))
    value = max(value, 0.0)
    srgb = 12.92 * value if value < 0.0031308 else 1.055 * value ** (1.0 / 2.4) - 0.055
    return srgb * 255.0


@numba.njit(parallel=True, cache=True, error_model="numpy", fastmath=_FAST)
def draw(params, palette, samples, wanted, colors, depths, parts):
    """Render the `wanted` pixels of a square image with samples x samples rays each.

    Inputs: `params`, the one-element record array of `shape.shape_record`, `palette` float64 (8, 3) and
    `wanted` bool (n, n). Outputs: `colors` float64 (n, n, 3), sRGB times 255, and `depths` float64 (n, n)
    and `parts` int8 (n, n) of the last ray.
    """
    size = wanted.shape[0]
    footprint = params[0].frame / size
    for row in numba.prange(size):
        g = params[0]
        for column in range(size):
            if not wanted[row, column]:
                continue
            red, green, blue = 0.0, 0.0, 0.0
            for k in range(samples * samples):
                u = (column + (k % samples + 0.5) / samples) / size
                v = (row + (k // samples + 0.5) / samples) / size
                rgb, depth, part = _trace(g, palette, u, v, footprint)
                red, green, blue = red + _encode(rgb[0]), green + _encode(rgb[1]), blue + _encode(rgb[2])
                depths[row, column] = depth
                parts[row, column] = part
            share = 1.0 / (samples * samples)
            colors[row, column, 0] = red * share
            colors[row, column, 1] = green * share
            colors[row, column, 2] = blue * share
