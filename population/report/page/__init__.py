"""A run as one HTML file that opens without a network.

Needs jinja2 and plotly (`pip install population-jax[report]`).
"""

from population.report.page.writing import render as render
from population.report.page.writing import write as write

__all__ = [
    "render",
    "write",
]
