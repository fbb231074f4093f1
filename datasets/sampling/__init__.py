"""The order of images, and the mix of the two streams."""
