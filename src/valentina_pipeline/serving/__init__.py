"""What serves a character: it reads only a published package."""
