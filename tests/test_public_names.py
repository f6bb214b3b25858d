"""Names that `hint_plugins` and `hint_recipes` offer at their top."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = ("hint_plugins", "hint_recipes")
NAMES = [(package, name) for package in PACKAGES for name in importlib.import_module(package).PUBLIC]


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_name_is_there_with_a_docstring(package, name):
    module = importlib.import_module(package)
    assert name in dir(module)
    value = getattr(module, name)
    assert value.__name__ == name
    assert value.__doc__


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_the_package_loads_no_library(package):
    code = f"import sys, {package}; print(*sorted(sys.modules.keys() & {{'torch', 'numpy', 'ase', 'pydantic'}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


@pytest.mark.parametrize("package", PACKAGES)
def test_unknown_name_is_refused(package):
    with pytest.raises(AttributeError, match="no attribute 'Potentail'"):
        importlib.import_module(package).Potentail  # noqa: B018
