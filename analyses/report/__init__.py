"""Results in, one self-contained HTML file out."""

from analyses.report.chosen import chosen_head
from analyses.report.collect import collect
from analyses.report.html import render, write
from analyses.report.summary import summary

__all__ = ["chosen_head", "collect", "render", "summary", "write"]
