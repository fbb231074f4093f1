"""What all packages share: boxes, structures, the checkpoint format, files, errors, distributed, logging.

Imports no other package of this project.
"""
