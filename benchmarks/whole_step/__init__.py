"""A side of a benchmark of whole steps. Imported by its own process alone, as a package at the top."""
