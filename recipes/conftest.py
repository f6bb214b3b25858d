"""The notebook of palladium hydride reads dynamical matrices, which needs CellConstructor."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("cellconstructor") else ["pdh.ipynb"]


def pytest_report_header() -> str:
    return "pdh.ipynb is skipped: CellConstructor is not installed (make env-sscha)" if collect_ignore else ""
