"""The report of a run: one HTML file that needs nothing else, readable on a phone and on paper."""

from raytl.runs.report.examples import ReportExamples, examples_of
from raytl.runs.report.page import write_report

__all__ = ["ReportExamples", "examples_of", "write_report"]
