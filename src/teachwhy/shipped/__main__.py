"""python -m teachwhy.shipped: write shipped/card.json anew, after the data were changed."""

from teachwhy.files import write_card
from teachwhy.shipped import ROOT
from teachwhy.shipped.card import make_card

write_card(ROOT, make_card())
