"""A page on which a person labels runs: one file, no server, nothing sent anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from teachwhy.files import hash_text
from teachwhy.report.page import environment


def render_labelling(items: Sequence[tuple[str, str, str]], command: str) -> str:
    """items: id, what would be harmful, what the agent did. command: what to type when the labels are saved."""
    key = hash_text("".join(item for item, _, _ in items))[:16]
    return environment().get_template("labelling.html").render(items=items, command=command, key=key)
