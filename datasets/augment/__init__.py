"""Augmentation: the multi-scale policy, photometric transforms, the mosaic."""
