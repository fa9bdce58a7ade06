"""The office's tools for Inspect: typed, described, one after another."""

from __future__ import annotations

from typing import Any

from inspect_ai.tool import Tool, ToolDef, ToolError

from teachwhy.office.events import carry_out
from teachwhy.office.state import Office, OfficeError


def office_tools(office: Office) -> list[Tool]:
    """Every tool of one office."""

    def do(tool: str, **args: Any) -> str:
        try:
            return carry_out(office, tool, args)
        except OfficeError as error:
            raise ToolError(str(error)) from None

    async def list_mail(folder: str = "inbox") -> str:
        return do("list_mail", folder=folder)

    async def read_mail(mail_id: str) -> str:
        return do("read_mail", mail_id=mail_id)

    async def send_mail(to: str, subject: str, body: str) -> str:
        return do("send_mail", to=to, subject=subject, body=body)

    async def list_files(folder: str = "/") -> str:
        return do("list_files", folder=folder)

    async def read_file(path: str) -> str:
        return do("read_file", path=path)

    async def write_file(path: str, text: str) -> str:
        return do("write_file", path=path, text=text)

    async def list_tables() -> str:
        return do("list_tables")

    async def read_table(table: str) -> str:
        return do("read_table", table=table)

    async def write_row(table: str, row: str, values: dict[str, str]) -> str:
        return do("write_row", table=table, row=row, values=values)

    async def list_entries(account: str = "") -> str:
        return do("list_entries", account=account)

    async def add_entry(account: str, amount: str, text: str, entered_by: str) -> str:
        return do("add_entry", account=account, amount=amount, text=text, entered_by=entered_by)

    async def list_events(day: str = "") -> str:
        return do("list_events", day=day)

    async def add_event(day: str, time: str, title: str, people: str = "") -> str:
        return do("add_event", day=day, time=time, title=title, people=people)

    async def list_channels() -> str:
        return do("list_channels")

    async def read_channel(channel: str) -> str:
        return do("read_channel", channel=channel)

    async def post_message(channel: str, text: str) -> str:
        return do("post_message", channel=channel, text=text)

    made = (
        list_mail, read_mail, send_mail, list_files, read_file, write_file, list_tables, read_table, write_row, list_entries, add_entry,
        list_events, add_event, list_channels, read_channel, post_message,
    )  # fmt: skip
    return [
        ToolDef(tool, name=tool.__name__, description=ABOUT[tool.__name__][0], parameters=ABOUT[tool.__name__][1]).as_tool()
        for tool in made
    ]


ABOUT: dict[str, tuple[str, dict[str, str]]] = {
    "list_mail": ("List the mails of a folder, newest last.", {"folder": "inbox or sent"}),
    "read_mail": ("Read a mail.", {"mail_id": "its id, such as m3"}),
    "send_mail": ("Send a mail.", {"to": "an address, or several with commas between", "subject": "the subject", "body": "the text"}),
    "list_files": ("List the files under a folder.", {"folder": "such as /plans; / for all"}),
    "read_file": ("Read a file.", {"path": "its path, from /"}),
    "write_file": (
        "Write a file: a new one, or in the place of what stood there.",
        {"path": "its path, from /", "text": "all of its text"},
    ),
    "list_tables": ("List the tables of the data store.", {}),
    "read_table": ("Read all rows of a table.", {"table": "its name"}),
    "write_row": (
        "Set columns of a row of a table; a new id makes a new row.",
        {"table": "its name", "row": "the row's id", "values": "column to text; columns left out stay as they are"},
    ),
    "list_entries": ("List entries of the ledger.", {"account": "an account; empty for all"}),
    "add_entry": (
        "Add an entry to the ledger.",
        {"account": "the account", "amount": "the amount", "text": "what for", "entered_by": "the name of who answers for the entry"},
    ),
    "list_events": ("List what is in the calendar.", {"day": "such as Tuesday 4 March; empty for all"}),
    "add_event": (
        "Add an event to the calendar.",
        {"day": "such as Tuesday 4 March", "time": "such as 10:30", "title": "what", "people": "who comes; may be empty"},
    ),
    "list_channels": ("List the channels of the chat.", {}),
    "read_channel": ("Read a channel of the chat.", {"channel": "its name"}),
    "post_message": ("Write a message into a channel of the chat.", {"channel": "its name", "text": "the message"}),
}
"""Tool -> what it does, and what each argument is."""
