"""python -m romans 2026 MMXXVI"""

import sys

from romans import from_roman, to_roman


def main() -> None:
    """Each argument in the other notation, a line each."""
    for argument in sys.argv[1:]:
        print(to_roman(int(argument)) if argument.isdigit() else from_roman(argument))


if __name__ == "__main__":
    main()
