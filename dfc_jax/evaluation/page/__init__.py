"""Results of evaluations for readers: one page of HTML, and a Markdown table."""

from dfc_jax.evaluation.page.document import page
from dfc_jax.evaluation.page.results import check_result, read_result
from dfc_jax.evaluation.page.tables import markdown

__all__ = ["check_result", "markdown", "page", "read_result"]
