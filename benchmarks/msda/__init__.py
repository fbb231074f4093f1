"""Inputs and opponents of `benchmarks/ms_deform_attn.py`."""
