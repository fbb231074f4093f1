"""What RichSem (Meng et al., NeurIPS 2023) adds to DINO.

A classifier whose weights are CLIP text embeddings, and a semantic branch that learns, in training
only, what a frozen CLIP sees in each region. `build.py` makes them from a config.
"""
