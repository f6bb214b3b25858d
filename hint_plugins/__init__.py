"""HINT: Hessian-informed training of interatomic potentials inside existing trainers."""

__version__ = "0.1.0"
