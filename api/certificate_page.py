"""A certificate as one page to print and hand over: a PDF with the certificate's data attached.

It says what the data says, shorter; a long history is cut and says so. Letters that the font lacks
are put together from a letter and its accent (the Welsh ŵ and ŷ), or shown as a box; it never fails
for what a text holds. Signing is not done here.
"""

from __future__ import annotations

import io
import threading
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import reportlab
from reportlab.lib.pagesizes import A4
from reportlab.pdfbase import pdfdoc, pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from api.schemas import attempt_in_words

# Bitstream Vera comes with reportlab and may be embedded. It has the letters of Latin-1 and some
# more.
FONTS: Final = {"Vera": "Vera.ttf", "VeraBd": "VeraBd.ttf"}
PLAIN, BOLD = FONTS
MARGIN: Final = 50.0
WIDTH, HEIGHT = A4
INNER: Final = WIDTH - 2 * MARGIN
LABEL: Final = 92.0  # width of the column of labels
GREY: Final = 0.42
# Accents as letters of their own, by the combining ones; to be drawn over, or under, a letter.
ACCENTS: Final = dict(
    zip(
        "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327\u0328",
        "\u0060\u00b4\u02c6\u02dc\u00af\u02d8\u02d9\u00a8\u02da\u02dd\u02c7\u00b8\u02db",
        strict=True,
    )
)
BELOW: Final = {"\u00b8", "\u02db"}
MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)
HOW: Final = (
    "To verify this page, keep the file as it was sent and run `georouter verify FILE`, or follow "
    "docs/evidence.md of georouter, which needs none of its code. The whole certificate is "
    "attached to this PDF as certificate.json; what is said here in short is there in full. A box "
    "stands for a letter that the font of this page lacks."
)
_registering = threading.Lock()


def draw(document: Mapping[str, Any], data: bytes) -> bytes:
    """The page, not signed yet; `data` is attached to it as certificate.json."""
    _register()
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=A4, invariant=1, pageCompression=1)
    canvas.setTitle(f"Certificate of notice, report {document['report']['id']}")
    canvas.setAuthor("georouter")
    _Page(canvas).draw(document)
    _attach(canvas, data)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _register() -> None:
    folder = Path(reportlab.__file__).parent / "fonts"
    with _registering:
        for name, file in FONTS.items():
            if name not in pdfmetrics.getRegisteredFontNames():
                pdfmetrics.registerFont(TTFont(name, str(folder / file)))


def _attach(canvas: Canvas, data: bytes) -> None:
    document = canvas._doc  # noqa: SLF001 - it has no other way to a PDF's names
    name = pdfdoc.PDFString("certificate.json")
    stream = pdfdoc.PDFStream(
        pdfdoc.PDFDictionary(
            {"Type": pdfdoc.PDFName("EmbeddedFile"), "Filter": pdfdoc.PDFName("FlateDecode")}
        ),
        zlib.compress(data),
        filters=(),
    )
    file = pdfdoc.PDFDictionary(
        {
            "Type": pdfdoc.PDFName("Filespec"),
            "F": name,
            "UF": name,
            "EF": pdfdoc.PDFDictionary({"F": document.Reference(stream)}),
        }
    )
    names = pdfdoc.PDFDictionary({"Names": pdfdoc.PDFArray([name, document.Reference(file)])})
    document.Catalog.Names = pdfdoc.PDFDictionary({"EmbeddedFiles": names})


# --- the page -------------------------------------------------------------------------------------


class _Page:
    """Draws from the top down; `self.y` is the line that is free next."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self.y = HEIGHT - MARGIN - 12

    def draw(self, document: Mapping[str, Any]) -> None:
        report = document["report"]
        self._say("Certificate of notice", size=19, font=BOLD)
        self.y -= 6
        self._say(f"Report {report['id']}, issued {when(document['issued_at'])}", grey=True)
        self._rule()
        for label, value, lines in _facts(document):
            self._fact(label, value, lines)
        foot = self._foot_height(document)
        self._rule()
        self._history(document["events"], down_to=MARGIN + foot)
        self.y = MARGIN + foot - 12
        self._foot(document)

    def _history(self, events: Sequence[Mapping[str, Any]], *, down_to: float) -> None:
        self._say("What became of it (times in UTC)", size=10, font=BOLD)
        self.y -= 3
        for place, event in enumerate(events):
            lines = wrap(in_words(event), INNER - 196, PLAIN, 8, most=2)
            room = self.y - down_to
            needed = 11.0 * len(lines) + (0 if place == len(events) - 1 else 11.0)
            if room < needed:
                left = len(events) - place
                self._say(f"... {left} more, see the attached data", size=8, grey=True)
                return
            y = self.y
            self._text(MARGIN, y, str(event["n"]), PLAIN, 8, grey=True)
            at = event["detail"].get("started_at") if event["kind"] == "attempted" else None
            self._text(MARGIN + 22, y, when(at or event["at"], brief=True), PLAIN, 8)
            self._text(MARGIN + 440, y, event["hash"][:10], PLAIN, 7, grey=True)
            for line in lines:
                self._text(MARGIN + 136, self.y, line, PLAIN, 8)
                self.y -= 11

    def _foot(self, document: Mapping[str, Any]) -> None:
        self._canvas.setStrokeGray(0.8)
        self._canvas.line(MARGIN, self.y + 10, WIDTH - MARGIN, self.y + 10)
        for label, value in _proof(document):
            self._text(MARGIN, self.y, label, BOLD, 7)
            self._text(MARGIN + LABEL, self.y, value, PLAIN, 7)
            self.y -= 10
        self.y -= 3
        for text in (document["proves"], HOW):
            for line in wrap(text, INNER, PLAIN, 7):
                self._text(MARGIN, self.y, line, PLAIN, 7, grey=True)
                self.y -= 9
            self.y -= 3

    def _foot_height(self, document: Mapping[str, Any]) -> float:
        texts = sum(len(wrap(text, INNER, PLAIN, 7)) for text in (document["proves"], HOW))
        return 10.0 * len(_proof(document)) + 9.0 * texts + 22

    def _fact(self, label: str, value: str, most: int) -> None:
        self._text(MARGIN, self.y, label, BOLD, 9)
        for line in wrap(value, INNER - LABEL, PLAIN, 9, most=most):
            self._text(MARGIN + LABEL, self.y, line, PLAIN, 9)
            self.y -= 12.5
        self.y -= 2

    def _say(self, text: str, *, size: float = 9, font: str = PLAIN, grey: bool = False) -> None:
        self._text(MARGIN, self.y, text, font, size, grey=grey)
        self.y -= size + 4

    def _rule(self) -> None:
        self._canvas.setStrokeGray(0.8)
        self._canvas.line(MARGIN, self.y + 2, WIDTH - MARGIN, self.y + 2)
        self.y -= 14

    def _text(
        self, x: float, y: float, text: str, font: str, size: float, *, grey: bool = False
    ) -> None:
        self._canvas.setFillGray(GREY if grey else 0)
        self._canvas.setStrokeGray(GREY)
        self._canvas.setFont(font, size)
        run = ""
        start = x
        for glyph in glyphs(text, font):
            width = glyph.width * size
            if glyph.letter and not glyph.accents:
                run += glyph.letter
                x += width
                continue
            self._canvas.drawString(start, y, run)
            if glyph.letter:
                self._canvas.drawString(x, y, glyph.letter)
                for accent in glyph.accents:
                    wide = pdfmetrics.stringWidth(accent, font, size)
                    # The accents stand as high as small letters need them.
                    up = 0.18 * size if glyph.letter.isupper() and accent not in BELOW else 0.0
                    self._canvas.drawString(x + (width - wide) / 2, y + up, accent)
            else:
                self._canvas.rect(x + 0.1 * size, y, 0.45 * size, 0.7 * size)
            x += width
            run, start = "", x
        self._canvas.drawString(start, y, run)


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Label, value, and how many lines it may take."""
    report, decision = document["report"], document["decision"]
    place = report["place"]
    accuracy = f", within {place['accuracy_m']:g} m" if place["accuracy_m"] is not None else ""
    yield "Received", when(report["received_at"]), 1
    if report["observed_at"]:
        yield "Seen", f"{when(report['observed_at'])}, by the reporter's device", 1
    yield "What", report["category"].replace("_", " "), 1
    yield "Where", f"{place['lat']:.6f}, {place['lon']:.6f} (latitude, longitude{accuracy})", 1
    yield "Description", report["description"] or "(erased)", 5
    who = decision["authority"]["name"] if decision["authority"] else "nobody"
    because = f"{who}: {decision['reason']} (rule {decision['rule']}, data {decision['dataset']})"
    yield "Responsible", because, 3
    for accepted in document["accepted"][:3]:
        yield "Accepted", _accepted(accepted), 2
    if not document["accepted"]:
        tried = len(document["attempts"])
        yield "Accepted", f"by nobody when this was issued, after {tried} attempts", 1
    elif len(document["accepted"]) > 3:
        yield "", f"... and {len(document['accepted']) - 3} more authorities", 1


def _accepted(accepted: Mapping[str, Any]) -> str:
    who = accepted["authority"]["name"] if accepted["authority"] else "the authority"
    if accepted["channel"] == "mail":
        who = f"the mail server for {who}"
    status = f", answer {accepted['status']}" if accepted["status"] else ""
    number = f", their number {accepted['reference']}" if accepted["reference"] else ""
    at = when(accepted["at"]) if accepted["at"] else "at a time that is not known"
    return f"{at}, by {who}{status}{number}"


def _proof(document: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    signature = document["signature"]
    value = signature["value"]
    return (
        ("Head of the chain", document["head"]),
        ("Description", f"SHA-256 {document['report']['description_sha256']}"),
        ("Signed by", f"Ed25519 {signature['public_key']}"),
        ("Signature", value[:64]),
        ("", value[64:]),
    )


def in_words(event: Mapping[str, Any]) -> str:
    """An event for people to read."""
    who = event["authority"]["name"] if event["authority"] else "nobody"
    told = event["detail"]
    why = f": {told['reason']}" if told.get("reason") else ""
    note = f": {told['note']}" if told.get("note") else ""
    if event["kind"] == "attempted":
        return attempt_in_words(who, told)
    words = {
        "received": f"Received, and given to {who}",
        "rerouted": f"Given to {who}{why}",
        "not_ours": f"Not theirs, says {who}{note}",
        "with_operator": f"With an operator{why}",
        "answered": f"The reporter answered{why}",
        "me_too": f"Reported again; with that {told.get('reports')} reports of it",
        "status": f"{told.get('state', '').replace('_', ' ')}, says {who}{note}",
    }
    said: str = words.get(event["kind"], event["kind"].replace("_", " "))
    return said[:1].upper() + said[1:]


def when(at: str, *, brief: bool = False) -> str:
    """A time of a certificate's for people to read, to the second, in UTC."""
    moment = datetime.fromisoformat(at)
    if brief:
        return f"{moment:%Y-%m-%d %H:%M:%S}"
    return f"{moment.day} {MONTHS[moment.month - 1]} {moment.year}, {moment:%H:%M:%S} UTC"


# --- letters --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Glyph:
    """A letter as it is drawn; an empty one is a box. Widths are of size 1."""

    letter: str
    accents: str
    width: float


def glyphs(text: str, font: str) -> Iterator[Glyph]:
    """What is drawn for a text on one line."""
    for character in unicodedata.normalize("NFC", text):
        yield from _drawn(character, font)


@cache
def _has(font: str) -> frozenset[str]:
    return frozenset(chr(one) for one in pdfmetrics.getFont(font).face.charToGlyph)


def _drawn(character: str, font: str) -> Iterator[Glyph]:
    has = _has(font)
    if character.isspace():
        character = " "
    apart = unicodedata.normalize("NFD", character)
    base, marks = apart[0], apart[1:]
    accents = "".join(ACCENTS.get(mark, "?") for mark in marks)
    if character in has:
        yield Glyph(character, "", _width(character, font))
    elif base in has and marks and has.issuperset(accents) and "?" not in accents:
        yield Glyph(base, accents, _width(base, font))
    elif unicodedata.category(character) in {"Mn", "Me", "Cf", "Cc"}:
        return  # has no width of its own
    else:
        plain = unicodedata.normalize("NFKD", character)
        if plain != character and has.issuperset(plain):
            for one in plain:
                yield Glyph(one, "", _width(one, font))
        else:
            yield Glyph("", "", 0.65)


@cache
def _width(letter: str, font: str) -> float:
    return float(pdfmetrics.stringWidth(letter, font, 1))


def wrap(text: str, width: float, font: str, size: float, *, most: int = 99) -> list[str]:
    """The text in lines of this width, `most` at most; what is cut ends in dots."""
    limit = width / size
    lines, used = [""], 0.0
    for word in text.split():
        if len(lines) > most:
            break
        wide = _wide(word, font)
        gap = _wide(" ", font) if lines[-1] else 0.0
        if used + gap + wide <= limit:
            lines[-1] += f" {word}" if gap else word
            used += gap + wide
            continue
        for part in [word] if wide <= limit else _split(word, limit, font):
            if lines[-1]:
                lines.append("")
            lines[-1], used = part, _wide(part, font)
    if len(lines) > most:
        last = lines[most - 1]
        while last and _wide(f"{last} ...", font) > limit:
            last = last[:-1]
        lines = [*lines[: most - 1], f"{last} ..."]
    return lines


def _split(word: str, limit: float, font: str) -> Iterator[str]:
    """A word longer than a line, in parts that fit."""
    part = ""
    for letter in word:
        if part and _wide(part + letter, font) > limit:
            yield part
            part = ""
        part += letter
    yield part


def _wide(text: str, font: str) -> float:
    return sum(glyph.width for glyph in glyphs(text, font))
