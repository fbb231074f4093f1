"""DINO (Zhang et al., ICLR 2023): a two-stage deformable DETR with contrastive denoising.

One file per role; `detector.py` shows how they meet and `build.py` makes them from a config.

Shape letters used throughout: B batch, Q queries, S flattened tokens, L levels, P points, H heads,
D width, C classes, N boxes of all images, K matched pairs. Boxes say their format in their name;
`references` and `boxes_cxcywh` are in 0..1 of the image without its padding.
"""
