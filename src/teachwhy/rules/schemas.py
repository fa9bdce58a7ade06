"""`python -m teachwhy.rules.schemas` writes the JSON Schemas of what `teachwhy rules` prints into docs/."""

from __future__ import annotations

import json
from pathlib import Path

from teachwhy.files import write_text
from teachwhy.rules.listing import Listing

if __name__ == "__main__":
    docs = Path(__file__).parents[3] / "docs"
    write_text(docs / "rules.read.schema.json", json.dumps(Listing.model_json_schema(by_alias=True), indent=2) + "\n")
