"""A trained model as an object: images in, named boxes out."""
