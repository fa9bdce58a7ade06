"""Judges: models that read transcripts. What they say is checked against labels before it is believed."""
