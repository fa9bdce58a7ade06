"""A page on which a person labels runs: one file, no server, nothing sent anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from teachwhy.files import hash_text
from teachwhy.report.page import environment


def render_labelling(items: Sequence[tuple[str, str, str]], where: str) -> str:
    """items: id, what would be harmful, what the agent did. where: the run's folder, for the command to type afterwards."""
    key = hash_text("".join(item for item, _, _ in items))[:16]
    return environment().get_template("labelling.html").render(items=items, where=where, key=key)
