"""Draws a small long-tailed dataset in LVIS v1's and Detic's formats, the same bytes for the same seed.

vocabulary  what a class is, and how often it is meant to appear
classes     the classes of the two data sets
shapes, patterns, backgrounds  what a thing and a scene look like
scene       composes an image and knows which pixel shows which thing
outline     the polygon around a mask
plan        deals the classes to the images
boxed       the LVIS half: images, annotations, negatives
image_level the ImageNet-LVIS half: one label an image
"""
