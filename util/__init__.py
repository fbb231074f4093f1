"""The ground every other package stands on: boxes, structures, errors, distributed, logging.

Imports nothing of ours.
"""
