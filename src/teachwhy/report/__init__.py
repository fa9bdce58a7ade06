"""Sections to one self-contained page. Knows neither study nor rules."""
