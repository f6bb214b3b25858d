"""Hessian-informed training in fairchem-core 2.24: parts that a fairchem YAML names by ``_target_``."""
