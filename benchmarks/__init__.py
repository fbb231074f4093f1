"""Speed and memory, candidate beside baseline in one run. `protocol.py` says how it is measured."""
