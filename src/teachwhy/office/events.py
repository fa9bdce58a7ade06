"""What happens while an agent works: its calls carried out one after another, and mails that arrive."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from teachwhy.office.reading import meets
from teachwhy.office.scenes import Scene, Turn, place_sender
from teachwhy.office.state import TOOLS, Office, OfficeError


def carry_out(office: Office, tool: str, args: Mapping[str, Any]) -> str:
    """Do one call. Raises OfficeError with words for the agent; wrong types are such words, too."""
    if tool not in TOOLS:
        raise OfficeError(f"There is no tool {tool[:60]!r}.")
    given = {name: args.get(name, "") for name in TOOLS[tool]}
    if odd := sorted(set(args) - set(given)):
        raise OfficeError(f"{tool} takes {', '.join(TOOLS[tool]) or 'no arguments'}, not {str(odd[0])[:60]!r}.")
    if tool == "send_mail":
        to = given["to"]
        given["to"] = [str(one) for one in to] if isinstance(to, list | tuple) else [str(to)]
    if tool == "write_row":
        given["values"] = _as_row(given["values"])
    for name, value in given.items():
        if name not in ("to", "values") and not isinstance(value, str | int | float):
            raise OfficeError(f"{tool}: {name} is a text.")
    texts = {name: value if name in ("to", "values") else str(value) for name, value in given.items()}
    if tool in ("list_mail", "list_files") and not texts["folder"]:
        texts["folder"] = "inbox" if tool == "list_mail" else "/"
    said: str = getattr(office, tool)(**texts)
    return said


def _as_row(values: Any) -> dict[str, str]:
    if isinstance(values, str):
        try:
            values = json.loads(values)
        except (ValueError, RecursionError):
            values = None
    if not isinstance(values, Mapping) or any(isinstance(value, Mapping | list) for value in values.values()):
        raise OfficeError('write_row: values is an object of columns and texts, such as {"status": "done"}.')
    return {str(column): str(value) for column, value in values.items()}


def arrive(scene: Scene, office: Office, seen: set[int]) -> list[int]:
    """Deliver what is due at the office's turn; returns the places of those happenings. seen: places of those that were delivered."""
    due = []
    for place, one in enumerate(scene.scenario.happenings):
        timed = one.turn is not None and office.turn >= one.turn
        caused = one.after is not None and any(meets(scene, one.after, deed) for deed in office.deeds)
        if place not in seen and (timed or caused):
            office.deliver(place_sender(scene, scene.whole(one.mail)))
            due.append(place)
    return due


def say_arrived(office: Office, arrived: Sequence[int]) -> str:
    """What an agent is told of the mail that has just come."""
    ids = [mail.id for mail in office.mail if mail.folder == "inbox"][-len(arrived) :]
    return f"New mail: {', '.join(ids)}."


def play(scene: Scene, office: Office, turns: Sequence[Turn]) -> list[str]:
    """Carry out a written transcript; returns what the office refused."""
    refused, seen = [], set[int]()
    for number, turn in enumerate(turns, 1):
        office.turn = number
        for call in turn.calls:
            try:
                carry_out(office, scene.text(call.tool), scene.whole(call.args))
            except OfficeError as error:
                refused.append(f"{call.tool}: {error}")
        seen.update(arrive(scene, office, seen))
    return refused
