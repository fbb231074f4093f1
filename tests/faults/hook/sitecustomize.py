"""Injects faults before the program starts, in every Python process whose PYTHONPATH has this folder."""

from tests.faults.inject import install_from_environment

install_from_environment()
