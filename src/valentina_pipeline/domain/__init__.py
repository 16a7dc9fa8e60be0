"""What the project speaks of: concepts, rights and manifests; no tool is known here."""
