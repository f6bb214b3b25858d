"""The plugins' errors in the tables that MACE prints when training has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hint_mace.leaving import exit_with
from hint_mace.validation import plugin_errors
from hint_plugins.objective.metrics import NotFiniteError

if TYPE_CHECKING:
    from hint_mace.adapter import Adapter

#: Headings of the metrics that have a column, in MACE's style.
COLUMNS = {
    "hessian_mae": "MAE H / eV / A^2",
    "eigenvalue_mae": "MAE eigenvalues / eV / A^2",
    "frequency_mae_cm1": "MAE frequencies / cm^-1",
    "hvp_mae": "MAE H z / eV / A^2",
}


def wrap_tables(adapter: Adapter) -> None:
    """Add a column for each Hessian error to the tables of train, valid and test."""

    def extended(original: Callable) -> Callable:
        def create_error_table(table_type: str, all_data_loaders: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            table = original(table_type, all_data_loaders, *args, **kwargs)
            session = adapter.trained
            if session is not None:
                try:
                    errors = [plugin_errors(session, all_data_loaders[row[0]]) for row in table.rows]
                except NotFiniteError as error:
                    exit_with(error, status=1)
                for name, heading in COLUMNS.items():
                    if any(name in row for row in errors):
                        table.add_column(heading, [f"{row[name]:.4g}" if name in row else "-" for row in errors])
            return table

        return create_error_table

    adapter.patches.function("create_error_table", extended, "mace.tools.tables_utils")
