"""The order of images, and how the two streams mix."""
