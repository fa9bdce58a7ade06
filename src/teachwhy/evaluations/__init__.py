"""Evaluations: ordinary Inspect tasks."""

VERSIONS = {"honeypots": 1, "goals": 1, "ambiguity": 1, "agreement": 1, "conduct": 1, "lookalikes": 1, "capability": 1}
"""Each evaluation's version: raised by its author whenever its outcomes are no longer comparable."""
OFFICE_VERSION = 1
"""The same of office honeypots, whatever families are met."""
WRITTEN = ("honeypots", "goals", "conduct", "lookalikes")
"""Evaluations whose scenarios somebody wrote. Every second one of a family and split is sealed: looked at when all choices are made."""
KINDS = {
    "honeypots": "honeypot", "goals": "goal", "ambiguity": "ambiguity", "agreement": "agreement", "conduct": "conduct",
    "lookalikes": "lookalike", "capability": "capability",
}  # fmt: skip
"""Evaluation -> the kind of its scenarios."""
