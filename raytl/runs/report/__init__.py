"""The report of a run: one HTML file that needs nothing else, readable on a phone and on paper."""

from raytl.runs.report.examples import ReportExamples
from raytl.runs.report.page import write_report

__all__ = ["ReportExamples", "write_report"]
