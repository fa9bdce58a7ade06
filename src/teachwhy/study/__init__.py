"""Studies: arms x seeds x evaluations."""
