"""Import what the given extras bring, and every module of this package; only missing optional packages may be named.

python scripts/check_imports.py [EXTRA...]
"""

import importlib
import pkgutil
import sys

BROUGHT = {
    "mace": ["mace", "hint_mace.install"],
    "fairchem": ["fairchem.core", "hint_fairchem.task"],
    "xtb": ["tblite.interface"],
    "dft": ["pyscf"],
    "select": ["dscribe.descriptors", "sklearn", "geodesic_interpolate"],
    "datasets": ["h5py", "lmdb", "orjson", "ase_db_backends", "pyarrow", "phonopy", "geodesic_interpolate"],
    "executors": ["distributed", "parsl"],
    "ts": ["sella", "geodesic_interpolate", "pyscf"],
    "phonons": ["phonopy", "spglib"],
    "sscha": ["cellconstructor.Phonons", "sscha.Ensemble"],
    "notebooks": ["jupyterlab", "nbmake"],
    "dev": ["pytest", "hypothesis", "mypy"],
}
OPTIONAL = {name.split(".")[0] for names in BROUGHT.values() for name in names} | {"e3nn", "hydra", "omegaconf"}

for extra in sys.argv[1:]:
    for name in BROUGHT[extra]:
        importlib.import_module(name)
wrong = []
for package in ("hint_plugins", "hint_recipes", "hint_mace", "hint_fairchem"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in OPTIONAL:
                wrong.append(f"{module.name}: {error}")
if wrong:
    sys.exit("\n".join(wrong))
