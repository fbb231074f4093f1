"""Detections -> metrics."""
