"""Portrait renderer: a small ray-marched 3D model of adult women, controlled by numbers and words."""
