"""Domain: concepts, rights records, manifests and scenes, independent of all tools."""
