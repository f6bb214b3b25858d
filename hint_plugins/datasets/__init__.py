"""Readers of published data sets and of files of codes: structures labelled in this project's names and units."""
