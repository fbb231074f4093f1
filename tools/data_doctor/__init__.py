"""What is wrong with data, before time is spent on training.

findings     one kind of fault, how bad it is, and the fix
report       all of them as one text
examination  all checks of one data set
part         one split of it, with what was found so far
annotations  checks of entries: ids, and what they refer to
classes      checks of names, of classes that are probably one, of how often they occur
boxes        checks of boxes against their images and one another
images       checks of the files: present, whole, of the stated size
pixels       checks of their orientation, modes and shapes
copies       images with the same content, in one split, in two, in several data sets
several      what becomes of the classes of several data sets
image_level  checks of the images that have a label but no boxes
predictions  checks of a predictions file
start        the start of a run, which may refuse what no check knows
machine      checks of shared memory
tail         the histogram of the classes
"""
