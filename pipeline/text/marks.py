"""The marks that end, close and divide sentences, in the world's scripts: data.

From the Unicode property Sentence_Terminal (https://www.unicode.org/reports/tr29/#Sentence_Boundaries), with three
changes: the shads of Tibetan end too; the Burmese little section divides, as a comma does; the marks of ASCII and the
ellipsis stand apart, because a blank must follow them.
"""

from __future__ import annotations


def characters(ranges: str) -> str:
    """The characters of code points such as "3002 FF01-FF0F"."""
    pairs = (part.partition("-") for part in ranges.split())
    return "".join(chr(code) for low, _, high in pairs for code in range(int(low, 16), int(high or low, 16) + 1))


# End a sentence whatever follows.
STOPS = characters(
    "037E 0589 061D-061F 06D4 0700-0702 07F9 0837 0839 083D-083E 0964-0965 0F0D-0F11 104B 1362 1367-1368 166E "
    "1735-1736 17D4-17D5 1803 1809 1944-1945 1AA8-1AAB 1B4E-1B4F 1B5A-1B5B 1B5E-1B5F 1B7D-1B7F 1C3B-1C3C 1C7E-1C7F "
    "203C-203D 2047-2049 2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 "
    "AA5D-AA5F AAF0-AAF1 ABEB FE12 FE15-FE16 FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 "
    "11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 113D4-113D5 "
    "1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 "
    "11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 16D6E-16D6F 16E98 1BC9F 1DA88"
)
WIDE_DOTS = "\uff0e\ufe52"  # of STOPS, those that are decimal points between digits
SPACED_STOPS = ".!?\u2026"  # end a sentence if a blank follows
LINE_BREAKS = "\n\r\x0b\x0c\x85\u2028\u2029"

# The quotes and brackets that close, in any script; and the quotes that open in one language and close in another.
CLOSERS = ")]}" + characters(
    "00BB 0F3B 0F3D 169C 2019 201D 203A 2046 207E 208E 2309 230B 232A 2769 276B 276D 276F 2771 2773 2775 27C6 27E7 "
    "27E9 27EB 27ED 27EF 2984 2986 2988 298A 298C 298E 2990 2992 2994 2996 2998 29D9 29DB 29FD 2E03 2E05 2E0A 2E0D "
    "2E1D 2E21 2E23 2E25 2E27 2E29 2E56 2E58 2E5A 2E5C 3009 300B 300D 300F 3011 3015 3017 3019 301B 301E-301F FD3E "
    "FE18 FE36 FE38 FE3A FE3C FE3E FE40 FE42 FE44 FE48 FE5A FE5C FE5E FF09 FF3D FF5D FF60 FF63"
)
STRAIGHT_QUOTES = "\"'\uff02\uff07"
OPENING_QUOTES = "\u201c\u2018\u00ab\u2039"  # closing ones in German and Danish

# Divide a sentence that is too long: those that a blank follows, and those that need none.
SPACED_COMMAS = ",;:\u0387"
COMMAS = characters(
    "055D 060C 061B 07F8 0F0B 104A 1363-1366 1802 1808 3001 A4FE A60D A6F4-A6F5 FE10-FE11 FE13-FE14 FE50-FE51 "
    "FE54-FE55 FF0C FF1A-FF1B FF64"
)

# Letters of scripts that put no blank between sentences: a mark of ASCII ends one there, too.
UNSPACED = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
UNSPACED += "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"  # ranges, for a pattern
NO_STOPS = "\u0e00-\u0eff"  # Thai and Lao have no stop at all: a blank is theirs
