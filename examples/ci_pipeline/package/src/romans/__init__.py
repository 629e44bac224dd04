"""Roman numerals from 1 to 3999."""

SIGNS = {
    "M": 1000, "CM": 900, "D": 500, "CD": 400, "C": 100, "XC": 90, "L": 50, "XL": 40, "X": 10, "IX": 9, "V": 5, "IV": 4,
    "I": 1,
}  # fmt: skip


def to_roman(number: int) -> str:
    """`number` as the Romans wrote it. Raises ValueError for what they could not write."""
    if not 1 <= number <= 3999:
        raise ValueError(f"{number} is not between 1 and 3999")
    text = ""
    for sign, value in SIGNS.items():
        count, number = divmod(number, value)
        text += sign * count
    return text


def from_roman(text: str) -> int:
    """The number that `text` means. Raises ValueError for what is no Roman numeral."""
    number, rest = 0, text
    for sign, value in SIGNS.items():
        while rest.startswith(sign):
            number, rest = number + value, rest.removeprefix(sign)
    if rest or not text or to_roman(number) != text:
        raise ValueError(f"{text!r} is no Roman numeral")
    return number
