"""Isotopes of hydrogen that files name as if they were elements."""

#: Labels and their masses in u.
ISOTOPES = {"D": 2.014101778, "T": 3.016049282}
