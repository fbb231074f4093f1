"""The training loop, the evaluation loop, checkpoints and resume, optimizer, run directory.

The engine is handed the model, the loaders, the criterion and the evaluator; it imports none of them.
`protocols.py` says what it expects of each.
"""
