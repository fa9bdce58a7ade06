"""The office itself: mail, files, tables, a ledger, a calendar, a chat. No clock, no chance, no network: the same calls leave the same
state. What it cannot do it says in words that an agent can read (OfficeError)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

MAX_TEXT = 20_000
"""Characters of one argument that the office takes."""


class OfficeError(Exception):
    """What an agent is told instead of a result."""


class Part(BaseModel):
    """Base of what lies in an office."""

    model_config = ConfigDict(extra="forbid")


class Mail(Part):
    """One mail, in the agent's inbox or sent by it."""

    id: str = ""
    at: str = "08:00"
    """Of the day, HH:MM."""
    sender: str = Field("", alias="from")
    to: list[str] = []
    subject: str
    body: str
    folder: str = "inbox"

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Entry(Part):
    """A line of the ledger. `by` is who answers for it."""

    id: str = ""
    day: str = ""
    account: str
    amount: str
    text: str
    by: str


class Event(Part):
    """A line of the calendar."""

    id: str = ""
    day: str
    time: str
    title: str
    people: str = ""


class Post(Part):
    """A line of a channel."""

    at: str = "08:00"
    by: str
    text: str


class Deed(Part):
    """One call of a tool that the office carried out: what it was and what it touched."""

    turn: int
    tool: str
    target: str = ""
    """A path, TABLE/ROW, an account, a day or a channel; of a mail its id."""
    to: list[str] = []
    """Addresses."""
    by: str = ""
    """Of a ledger entry: under whose name."""
    text: str = ""
    """All that the agent wrote."""
    changed: bool = False
    """Whether the office is another one after it."""


Row = dict[str, str]


class Office(Part):
    """The whole state. Every method is a tool's work: it returns what the agent reads, or raises OfficeError."""

    domain: str
    agent: str
    """The agent's address."""
    today: str
    turn: int = 0
    mail: list[Mail] = []
    files: dict[str, str] = {}
    locked: list[str] = []
    """Paths and tables that can be read and not written."""
    tables: dict[str, dict[str, Row]] = {}
    ledger: list[Entry] = []
    calendar: list[Event] = []
    chat: dict[str, list[Post]] = {}
    deeds: list[Deed] = []

    # mail

    def list_mail(self, folder: str) -> str:
        """Ids, times, senders and subjects, newest last."""
        if folder not in ("inbox", "sent"):
            raise OfficeError(f"There is no mail folder {_short(folder)!r}. There are: inbox, sent.")
        held = [mail for mail in self.mail if mail.folder == folder]
        self._note("list_mail", folder)
        lines = [
            f"{mail.id}  {mail.at}  {'to ' + ', '.join(mail.to) if folder == 'sent' else 'from ' + mail.sender}  {mail.subject}"
            for mail in held
        ]
        return "\n".join(lines) or f"No mail in {folder}."

    def read_mail(self, mail_id: str) -> str:
        """The whole mail."""
        for mail in self.mail:
            if mail.id == mail_id.strip():
                self._note("read_mail", mail.id)
                return f"From: {mail.sender}\nTo: {', '.join(mail.to)}\nAt: {mail.at}\nSubject: {mail.subject}\n\n{mail.body}"
        raise OfficeError(f"There is no mail {_short(mail_id)!r}. list_mail shows the ids.")

    def send_mail(self, to: Sequence[str], subject: str, body: str) -> str:
        """Send to one address or several."""
        addresses = [address.strip().lower() for one in to for address in re.split(r"[,;]", one) if address.strip()]
        if not addresses:
            raise OfficeError("A mail needs an address in `to`.")
        for address in addresses:
            if not re.fullmatch(r"[^@\s<>]{1,64}@[^@\s<>]{1,190}", address):
                raise OfficeError(f"{_short(address)!r} is no mail address; they look like name@{self.domain}.")
        _check_sizes(subject, body)
        if not body.strip() and not subject.strip():
            raise OfficeError("The mail is empty.")
        mail = Mail(id=f"s{1 + sum(one.folder == 'sent' for one in self.mail)}", sender=self.agent, to=addresses, subject=subject,
        body=body,
                    folder="sent", at="now")  # fmt: skip
        self.mail.append(mail)
        self._note("send_mail", mail.id, to=addresses, text=f"{subject}\n{body}", changed=True)
        return f"Sent to {', '.join(addresses)} as {mail.id}."

    # files

    def list_files(self, folder: str) -> str:
        """Paths under a folder."""
        root = "/" + folder.strip().strip("/")
        held = sorted(path for path in self.files if root == "/" or path == root or path.startswith(root + "/"))
        if not held:
            raise OfficeError(f'There is no folder {_short(folder)!r}. list_files with folder "/" shows all files.')
        self._note("list_files", root)
        return "\n".join(path + ("  (read only)" if path in self.locked else "") for path in held)

    def read_file(self, path: str) -> str:
        """A file's text."""
        found = "/" + path.strip().lstrip("/")
        if found not in self.files:
            raise OfficeError(f"There is no file {_short(path)!r}. list_files shows what there is.")
        self._note("read_file", found)
        return self.files[found]

    def write_file(self, path: str, text: str) -> str:
        """Write a whole file, a new one or in the place of what stood there."""
        found = "/" + path.strip().lstrip("/")
        if not re.fullmatch(r"(/[^/\x00-\x1f]{1,100}){1,8}", found) or ".." in found.split("/"):
            raise OfficeError(f"{_short(path)!r} is no path; they look like /folder/name.txt.")
        if found in self.locked:
            raise OfficeError(f"{found} is read only for you.")
        _check_sizes(text)
        changed = self.files.get(found) != text
        known = found in self.files
        self.files[found] = text
        self._note("write_file", found, text=text, changed=changed)
        return f"{found} {'written anew' if known else 'made'}, {len(text)} characters."

    # the data store

    def list_tables(self) -> str:
        """Names of tables and how many rows each has."""
        self._note("list_tables")
        lines = [
            f"{name}: {len(rows)} rows" + (" (read only)" if name in self.locked else "") for name, rows in sorted(self.tables.items())
        ]
        return "\n".join(lines) or "The data store has no tables."

    def read_table(self, table: str) -> str:
        """All rows of a table."""
        rows = self._table(table)
        self._note("read_table", table.strip())
        return "\n".join(f"{row}: " + "; ".join(f"{column}={value}" for column, value in values.items()) for row, values in rows.items())

    def write_row(self, table: str, row: str, values: Mapping[str, str]) -> str:
        """Set columns of a row; a new id makes a new row."""
        rows, name, key = self._table(table), table.strip(), row.strip()
        if name in self.locked:
            raise OfficeError(f"The table {name} is read only for you.")
        columns = list(next(iter(rows.values()), {}))
        if not values:
            raise OfficeError(f"No values given. The columns of {name} are: {', '.join(columns)}.")
        if unknown := [column for column in values if columns and column not in columns]:
            raise OfficeError(f"{name} has no column {_short(unknown[0])!r}. Its columns are: {', '.join(columns)}.")
        if not key or len(key) > 100:
            raise OfficeError("A row needs an id of 1 to 100 characters.")
        _check_sizes(*values.values())
        before = dict(rows.get(key, {}))
        rows[key] = {**dict.fromkeys(columns, ""), **before, **values}
        said = "; ".join(f"{column}={value}" for column, value in values.items())
        self._note("write_row", f"{name}/{key}", text=said, changed=rows[key] != before)
        return f"{name}, row {key}: {'changed' if before else 'added'}."

    def _table(self, table: str) -> dict[str, Row]:
        found = self.tables.get(table.strip())
        if found is None:
            raise OfficeError(f"There is no table {_short(table)!r}. list_tables shows what there is.")
        return found

    # the ledger

    def list_entries(self, account: str) -> str:
        """Entries of an account, or of all."""
        held = [entry for entry in self.ledger if account.strip() in ("", entry.account)]
        if not held and account.strip():
            known = ", ".join(sorted({entry.account for entry in self.ledger})) or "none"
            raise OfficeError(f"There is no account {_short(account)!r}. Accounts: {known}.")
        self._note("list_entries", account.strip())
        lines = [f"{one.id}  {one.day}  {one.account}  {one.amount}  {one.text}  (entered by {one.by})" for one in held]
        return "\n".join(lines) or "The ledger is empty."

    def add_entry(self, account: str, amount: str, text: str, entered_by: str) -> str:
        """Add a line to the ledger."""
        _check_sizes(account, amount, text, entered_by)
        if not re.search(r"\d", amount):
            raise OfficeError(f"{_short(amount)!r} is no amount.")
        if not account.strip() or not entered_by.strip():
            raise OfficeError("An entry needs an account and the name of who enters it.")
        entry = Entry(
            id=f"e{len(self.ledger) + 1}", day=self.today, account=account.strip(), amount=amount, text=text, by=entered_by.strip()
        )
        self.ledger.append(entry)
        self._note("add_entry", entry.account, by=entry.by, text=f"{amount} {text}", changed=True)
        return f"Entered as {entry.id}, by {entry.by}."

    # the calendar

    def list_events(self, day: str) -> str:
        """Lines of a day, or of all days."""
        held = [event for event in self.calendar if day.strip().lower() in event.day.lower()]
        self._note("list_events", day.strip())
        lines = [f"{one.id}  {one.day} {one.time}  {one.title}" + (f"  (with {one.people})" if one.people else "") for one in held]
        return "\n".join(lines) or "Nothing in the calendar" + (f" for {_short(day)}." if day.strip() else ".")

    def add_event(self, day: str, time: str, title: str, people: str) -> str:
        """Add a line to the calendar."""
        _check_sizes(day, time, title, people)
        if not day.strip() or not title.strip():
            raise OfficeError("An event needs a day and a title.")
        event = Event(id=f"c{len(self.calendar) + 1}", day=day, time=time, title=title, people=people)
        self.calendar.append(event)
        self._note("add_event", f"{day} {time}".strip(), text=f"{title} {people}".strip(), changed=True)
        return f"Added as {event.id}."

    # the chat

    def list_channels(self) -> str:
        """Names of channels."""
        self._note("list_channels")
        return "\n".join(f"#{name}: {len(posts)} messages" for name, posts in sorted(self.chat.items())) or "There are no channels."

    def read_channel(self, channel: str) -> str:
        """All messages of a channel, newest last."""
        name = self._channel(channel)
        self._note("read_channel", name)
        return "\n".join(f"{post.at}  {post.by}: {post.text}" for post in self.chat[name]) or "No messages yet."

    def post_message(self, channel: str, text: str) -> str:
        """Write into a channel."""
        name = self._channel(channel)
        _check_sizes(text)
        if not text.strip():
            raise OfficeError("The message is empty.")
        self.chat[name].append(Post(at="now", by=self.agent, text=text))
        self._note("post_message", name, text=text, changed=True)
        return f"Posted in #{name}."

    def _channel(self, channel: str) -> str:
        name = channel.strip().lstrip("#")
        if name not in self.chat:
            known = ", ".join(f"#{one}" for one in sorted(self.chat)) or "none"
            raise OfficeError(f"There is no channel {_short(channel)!r}. Channels: {known}.")
        return name

    # what comes from outside

    def deliver(self, mail: Mail) -> None:
        """A mail for the agent."""
        number = 1 + sum(one.folder == "inbox" for one in self.mail)
        self.mail.append(mail.model_copy(update={"id": f"m{number}", "to": mail.to or [self.agent], "folder": "inbox"}))

    def _note(self, tool: str, target: str = "", *, to: Sequence[str] = (), by: str = "", text: str = "", changed: bool = False) -> None:
        self.deeds.append(Deed(turn=self.turn, tool=tool, target=target, to=list(to), by=by, text=text, changed=changed))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _check_sizes(*texts: str) -> None:
    for text in texts:
        if len(text) > MAX_TEXT:
            raise OfficeError(f"A text of {len(text)} characters is too long; {MAX_TEXT} are the most.")


TOOLS: dict[str, tuple[str, ...]] = {
    "list_mail": ("folder",),
    "read_mail": ("mail_id",),
    "send_mail": ("to", "subject", "body"),
    "list_files": ("folder",),
    "read_file": ("path",),
    "write_file": ("path", "text"),
    "list_tables": (),
    "read_table": ("table",),
    "write_row": ("table", "row", "values"),
    "list_entries": ("account",),
    "add_entry": ("account", "amount", "text", "entered_by"),
    "list_events": ("day",),
    "add_event": ("day", "time", "title", "people"),
    "list_channels": (),
    "read_channel": ("channel",),
    "post_message": ("channel", "text"),
}
"""Every tool's arguments, in order."""
WRITING = frozenset({"send_mail", "write_file", "write_row", "add_entry", "add_event", "post_message"})
"""Tools that can change the office."""
