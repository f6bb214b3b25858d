"""How far a Hessian label may miss what every Hessian obeys. Nothing is imported: `hint check --help` shows these."""

#: Relative asymmetry ``max|H - H^T| / max|H|`` above which a full label is refused. Analytic and central-difference
#: labels stay below 1e-3 and float32 ones below 1e-2; half a matrix, or blocks in another layout, give order 1.
MAX_ASYMMETRY = 0.05
#: Largest ``|sum_j H_ij|`` relative to ``max|H|`` (translational sum rule); good labels stay below 1e-2 (quadrature
#: grids, float32), a wrong layout gives order 1.
MAX_SUM_RULE = 0.05
