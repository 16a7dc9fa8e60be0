"""Image files: decoding, PNG, color, contact sheets, perceptual hashes."""
