"""What is wrong with data, before time is spent on training.

findings     one kind of fault, how bad it is, and the fix
report       all of them as one text
annotations  checks of ids, names, classes, boxes
images       checks of the files: present, whole, of the stated size, not in two splits
image_level  checks of the images that have a label but no boxes
machine      checks of shared memory
tail         the histogram of the classes
"""
