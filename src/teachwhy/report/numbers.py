"""Numbers as people read them: a true minus sign, the digits that mean something, a dash for what is not there."""

from __future__ import annotations

MINUS = "\u2212"
ABSENT = "\u2013"
_THIN_SPACE = "\u202f"


def format_signed(value: float | None, digits: int = 2) -> str:
    """+0.79, −1.20, 0.00 (never −0.00)."""
    if value is None:
        return ABSENT
    text = f"{abs(value):.{digits}f}"
    if not text.strip("0."):
        return text
    return ("+" if value > 0 else MINUS) + text


def format_plain(value: float | None, digits: int = 2) -> str:
    """0.97, −34.20: no plus sign; for rates, log-probabilities and widths."""
    return format_signed(value, digits).removeprefix("+")


def format_interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """+0.05 to +1.53."""
    if low is None or high is None:
        return ABSENT
    return f"{format_signed(low, digits)} to {format_signed(high, digits)}"


def format_range(low: float | None, high: float | None, digits: int = 2) -> str:
    """0.31 to 0.42; one number where both are equal."""
    if low is None or high is None:
        return ABSENT
    first, last = format_plain(low, digits), format_plain(high, digits)
    return first if first == last else f"{first} to {last}"


def format_count(value: float | None) -> str:
    """86 400, with a narrow space that does not break."""
    return ABSENT if value is None else f"{value:,.0f}".replace(",", _THIN_SPACE).replace("-", MINUS)


def format_p(value: float | None) -> str:
    """0.031; under 0.001 it says so."""
    if value is None:
        return ABSENT
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def format_minutes(minutes: float) -> str:
    """0.4 minutes, 34 minutes, 2 h 05 min."""
    if minutes < 10:
        return f"{minutes:.1f} minutes"
    whole = round(minutes)
    return f"{whole} minutes" if whole < 90 else f"{whole // 60} h {whole % 60:02d} min"


def count_noun(n: int, noun: str) -> str:
    """1 seed, 2 seeds."""
    return f"{format_count(n)} {noun}{'' if n == 1 else 's'}"
