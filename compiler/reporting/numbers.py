"""Figures as people read them. Units are powers of ten; one sample's work, milliseconds, bytes."""

from __future__ import annotations

NOT_MEASURED = "not measured"
TIMES = "×"  # noqa: RUF001 - it is meant


def count(number: float) -> str:
    """1234567 as 1.23 M."""
    for unit in ("", " K", " M", " G"):
        if abs(number) < 999.5:
            return f"{number:.3g}{unit}" if unit else str(int(number))
        number /= 1000
    return f"{number:.3g} T"


def size(number: float) -> str:
    """Bytes as KiB or MiB."""
    if number < 2**20:
        return f"{number / 2**10:.1f} KiB"
    return f"{number / 2**20:.1f} MiB"


def milliseconds(number: float | None) -> str:
    """Three digits at least, and microseconds where there are none before the point."""
    if number is None:
        return NOT_MEASURED
    if number < 0.1:
        return f"{1e3 * number:.3g} µs"
    return f"{number:.3g} ms" if number < 100 else f"{number:.0f} ms"


def percent(share: float) -> str:
    """Shares with one digit behind the point; what is not quite nothing or all does not look so."""
    text = f"{100 * share:.1f}%"
    if text == "0.0%" and share > 0:
        return "< 0.1%"
    if text == "100.0%" and share < 1:
        return "> 99.9%"
    return text


def share_of(after: float, before: float) -> str:
    return percent(after / before) if before else "none before"


def shape(sizes: list[int] | tuple[int, ...]) -> str:
    return TIMES.join(map(str, sizes))


def error(number: float) -> str:
    return f"{number:.1e}"


def many(number: int, thing: str) -> str:
    """1 layer, 2 layers."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
