"""The training and evaluation loops, optimizer, learning-rate schedule, resume, run directory.

The engine is handed the model, the loaders, the criterion and the evaluator; it imports none of them.
`protocols.py` says what it expects of each.
"""
