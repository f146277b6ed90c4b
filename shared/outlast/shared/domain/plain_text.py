"""Text of others as a terminal can be given it: a terminal obeys control characters, and bidi overrides hide words."""

from __future__ import annotations

_LINE_FEED, _TAB, _DELETE = 0x0A, 0x09, 0x7F
_PICTURES = 0x2400  # U+2400 is the picture of U+0000, and so on
_UNKNOWN = 0xFFFD
_UNPICTURED = (
    range(0x80, 0xA0),  # C1: on some terminals U+009B begins a sequence as ESC [ does
    range(0x2028, 0x202F),  # line and paragraph separators, then bidi embeddings and overrides
    range(0x2066, 0x206A),  # bidi isolates
    range(0xD800, 0xE000),  # lone surrogates, which no encoding takes
)
_ON_A_LINE = {
    **{code: _PICTURES + code for code in range(0x20)},
    _DELETE: 0x2421,
    **{code: _UNKNOWN for codes in _UNPICTURED for code in codes},
}
_VISIBLE = {code: shown for code, shown in _ON_A_LINE.items() if code not in (_LINE_FEED, _TAB)}


def visible(text: str) -> str:
    """Replace each control character by a picture of it. Line feeds and tabs stay, and CR LF is a line feed."""
    return text.replace("\r\n", "\n").translate(_VISIBLE)


def on_a_line(text: str) -> str:
    """As `visible`, of line feeds and tabs too: a name or a message cannot begin a line of its own."""
    return text.translate(_ON_A_LINE)
