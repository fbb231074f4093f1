"""What is wrong with data, before time is spent on training.

findings     one thing that is wrong, how bad, and what helps
split        a split as it is in its files, whatever is wrong with it
annotations  checks of ids, names, classes, boxes
images     checks of the files: there, whole, of the size that is said, not in two splits
image_level  checks of the images with labels only
tail         the histogram of the classes
"""
