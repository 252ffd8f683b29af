#!/usr/bin/env python3
"""Makes core/data/unicode_classes.cpp: which characters are letters, numbers and white space to Hugging Face's tokenizers.

Needs the package tokenizers, whose regular expressions decide (\\p{L}, \\p{N}, \\s):

    python3 tests/reference/make_unicode_classes.py            # writes the file
    python3 tests/reference/make_unicode_classes.py --check    # compares with the file there
"""

import argparse
import pathlib
import sys

from tokenizers import Regex, pre_tokenizers

FILE = pathlib.Path(__file__).parents[2] / "core" / "data" / "unicode_classes.cpp"
CLASSES = {"letter": r"\p{L}", "number": r"\p{N}", "space": r"\s"}
WIDTH = 120


def members(pattern, block):
    """The characters of a block that the pattern takes."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    left = "".join(text for text, _ in split.pre_tokenize_str("".join(block)))
    return set(block) - set(left)


def ranges():
    """(first, last, class) in order."""
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    kinds = {}
    for name, pattern in CLASSES.items():
        for begin in range(0, len(characters), 4096):
            for character in members(pattern, characters[begin : begin + 4096]):
                assert ord(character) not in kinds, f"{ord(character):x} is of two classes"
                kinds[ord(character)] = name
    found = []
    for code in sorted(kinds):
        if found and found[-1][1] == code - 1 and found[-1][2] == kinds[code]:
            found[-1][1] = code
        else:
            found.append([code, code, kinds[code]])
    return found


def text():
    rows, line = [], "   "
    for first, last, name in ranges():
        item = f" {{0x{first:x}, 0x{last:x}, {name}}},"
        if len(line) + len(item) > WIDTH:
            rows.append(line)
            line = "   "
        line += item
    rows.append(line.rstrip(","))
    body = "\n".join(rows)
    return f"""// Made by tests/reference/make_unicode_classes.py.
#include "core/data/unicode.hpp"

namespace weft::detail {{
namespace {{

constexpr CharacterClass letter = CharacterClass::letter, number = CharacterClass::number, space = CharacterClass::space;

// clang-format off
constexpr CharacterRange ranges[] = {{
{body}}};
// clang-format on

}}  // namespace

std::span<const CharacterRange> character_ranges() {{ return ranges; }}

}}  // namespace weft::detail
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        FILE.write_text(text())
    elif FILE.read_text() != text():
        sys.exit(f"{FILE} differs")


if __name__ == "__main__":
    main()
