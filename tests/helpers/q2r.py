"""Files in the format of q2r.x, written from a Hessian."""

import numpy as np
from ase.units import Bohr, Rydberg

AMU_RY = 911.4442431  # electron masses in half a unified atomic mass unit


def supercell_blocks(hessian, n, grid):
    """(3, 3, n, n, n1, n2, n3): derivative by atom i in cell R and atom j in cell 0, from a Hessian of cells outer."""
    cells = int(np.prod(grid))
    first = hessian.reshape(cells, n, 3, cells, n, 3)[:, :, :, 0]  # R, i, a, j, b
    return first.transpose(2, 4, 1, 3, 0).reshape(3, 3, n, n, *grid)


def write_q2r(path, cell, grid, hessian, *, labels=None, masses=None, born=None, dielectric=None):
    """Write what q2r.x would: ``hessian`` in eV/A^2 (of ``cell.repeat(grid)``), Born charges (n, 3, 3), field first."""
    n = len(cell)
    labels = labels or cell.get_chemical_symbols()
    masses = cell.get_masses() if masses is None else masses
    kinds = list(dict.fromkeys(zip(labels, masses, strict=True)))
    alat = float(np.linalg.norm(cell.cell[0])) / Bohr
    lines = [f"{len(kinds):3d}{n:5d}  0{alat:14.9f}" + 5 * "  0.0000000"]
    lines += ["  " + "".join(f"{x:15.9f}" for x in row) for row in cell.cell.array / Bohr / alat]
    lines += [f"           {k + 1}  '{label:4s}'    {mass * AMU_RY:.10f}" for k, (label, mass) in enumerate(kinds)]
    for i, position in enumerate(cell.positions / Bohr / alat):
        kind = kinds.index((labels[i], masses[i])) + 1
        lines.append(f"{i + 1:5d}{kind:5d}" + "".join(f"{x:18.10f}" for x in position))
    lines.append(" T" if born is not None else " F")
    if born is not None:
        lines += ["".join(f"{x:15.7f}" for x in row) for row in dielectric]
        for i in range(n):
            lines += [f"{i + 1:5d}", *("".join(f"{x:15.7f}" for x in row) for row in born[i])]
    lines.append("".join(f"{m:4d}" for m in grid))
    blocks = supercell_blocks(hessian / (Rydberg / Bohr**2), n, grid)
    for a, b, i, j in np.ndindex(3, 3, n, n):
        lines.append(f"{a + 1:4d}{b + 1:4d}{i + 1:4d}{j + 1:4d}")
        for z, y, x in np.ndindex(*grid[::-1]):
            lines.append(f"{x + 1:4d}{y + 1:4d}{z + 1:4d}  {blocks[a, b, i, j, x, y, z]:19.11E}")
    path.write_text("\n".join(lines) + "\n")
    return path


def springs(cell, grid, stiffness, cutoff):
    """(3N, 3N) eV/A^2: springs between neighbours, along (3 parts) and across (1 part) the bond."""
    from ase.neighborlist import neighbor_list

    supercell = cell.repeat(grid)
    hessian = np.zeros((len(supercell), 3, len(supercell), 3))
    for i, j, d in zip(*neighbor_list("ijD", supercell, cutoff), strict=True):
        block = stiffness * (np.eye(3) + 2 * np.outer(d, d) / (d @ d))
        hessian[i, :, j] -= block
        hessian[i, :, i] += block
    return hessian.reshape(3 * len(supercell), -1)
