"""HINT in MACE's trainer (mace-torch 0.3.13 and later 0.3 versions).

Nothing is imported here: the start-up hook must cost nothing to runs that do not ask for it.
"""
