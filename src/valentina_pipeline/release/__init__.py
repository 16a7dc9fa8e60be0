"""What any medium needs to be released: a decision and a package."""
