"""Annotation files of every form -> columns."""
