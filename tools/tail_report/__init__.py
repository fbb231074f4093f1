"""The tail report: what an evaluation says about each class, as numbers and as a page."""
