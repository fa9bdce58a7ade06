"""`python -m teachwhy.rules.schemas` writes the JSON Schemas of what `teachwhy rules` prints into docs/."""

from __future__ import annotations

import json
from pathlib import Path

from teachwhy.files import write_text
from teachwhy.rules.listing import Listing
from teachwhy.rules.logs import CountedLogs


def make_schemas() -> dict[str, str]:
    """File in docs/ -> its text."""
    held = {
        "rules.read.schema.json": Listing.model_json_schema(by_alias=True),
        "rules.logs.schema.json": CountedLogs.model_json_schema(by_alias=True),
    }
    return {name: json.dumps(schema, indent=2) + "\n" for name, schema in held.items()}


if __name__ == "__main__":
    for name, text in make_schemas().items():
        write_text(Path(__file__).parents[3] / "docs" / name, text)
