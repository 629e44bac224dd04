import unittest

from romans import from_roman, to_roman


class TestRomans(unittest.TestCase):
    def test_every_number_comes_back(self):
        for number in range(1, 4000):
            self.assertEqual(from_roman(to_roman(number)), number)

    def test_known_years(self):
        self.assertEqual(to_roman(1994), "MCMXCIV")
        self.assertEqual(to_roman(2026), "MMXXVI")

    def test_what_is_no_numeral_is_refused(self):
        for text in ("", "IIII", "VX", "MMMM", "x"):
            with self.assertRaises(ValueError):
                from_roman(text)
        for number in (0, 4000):
            with self.assertRaises(ValueError):
                to_roman(number)
