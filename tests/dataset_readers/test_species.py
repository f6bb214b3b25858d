"""Labels of kinds of atoms: symbol, then nothing, digits, or _ or - and anything."""

import pytest

from hint_plugins.datasets.record import RecordError
from hint_plugins.structures.species import element


@pytest.mark.parametrize(
    ("label", "symbol"),
    [
        ("O", "O"), ("O_s", "O"), ("N_a", "N"), ("C_o", "C"), ("C-o", "C"), ("Co", "Co"), ("Co1", "Co"), ("CO", "Co"),
        ("TE", "Te"), ("te2", "Te"), ("Fe12", "Fe"), ("Sn1", "Sn"), ("H_", "H"), (" Na ", "Na"), ("Si-up", "Si"),
        ("U1", "U"), ("fe1", "Fe"),
    ],
)  # fmt: skip
def test_elements(label, symbol):
    assert element(label) == (symbol, None)


@pytest.mark.parametrize(("label", "mass"), [("D", 2.014), ("d", 2.014), ("D1", 2.014), ("D_a", 2.014), ("T", 3.016)])
def test_isotopes_of_hydrogen(label, mass):
    symbol, found = element(label)
    assert symbol == "H"
    assert found == pytest.approx(mass, abs=1e-3)


@pytest.mark.parametrize("label", ["", "Q", "X", "1H", "Xy", "O s", "H2O", "Fea", "Fe1a", "_O", "Æ"])
def test_what_names_no_element_is_refused(label):
    with pytest.raises(RecordError, match="is no element"):
        element(label)
