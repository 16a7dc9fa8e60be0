"""A dataset under review, small."""

NAMES = ("a" * 64, "b" * 64, "c" * 64)
MACHINE = (
    "photo of a vee woman, smiling, beach background",
    "photo of a vee woman, serious, beach background",
)
