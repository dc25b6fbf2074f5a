"""What a picture says of how it came to be: that a model made it, in the words of the press.

An XMP packet with the International Press Telecommunications Council's properties (IPTC Photo
Metadata Standard 2025.1): DigitalSourceType, AISystemUsed, AISystemVersionUsed. It holds no time
and no number of its own, so that the same picture is the same file.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from sdcore.a1111 import bare
from sdcore.errors import InputError, one_line, printable
from sdcore.settings import Settings

_CODES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TRAINED = f"{_CODES}trainedAlgorithmicMedia"  # a model made all of it
COMPOSITE = f"{_CODES}compositeWithTrainedAlgorithmicMedia"  # it began with something else

SOURCE, SYSTEM, VERSION = "DigitalSourceType", "AISystemUsed", "AISystemVersionUsed"
KEY = "sdcore"  # under which a picture holds its settings as JSON
_SPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "sdcore": "urn:sdcore:1",
}
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
# The properties that are read of a picture, and the list that XMP wants each in.
_PROPERTIES = {
    **dict.fromkeys((SOURCE, SYSTEM, VERSION), ("Iptc4xmpExt", None)),
    "creator": ("dc", "Seq"),
    "rights": ("dc", "Alt"),
    "Credit": ("photoshop", None),
}
_MOST_BYTES, _MOST_LETTERS = 1 << 20, 300  # of a packet that is read, of a property that is kept
_TOOLS = ("parameters", "prompt", "workflow")  # texts that A1111's and ComfyUI's pictures hold


def source_type(settings: Settings) -> str:
    """TRAINED, or COMPOSITE where it began with a picture that is not known to be a model's."""
    if settings.image is None or _marks(settings).get(SOURCE) == TRAINED:
        return TRAINED
    return COMPOSITE


def packet(settings: Settings | None, mark: bool = True, whole: str | None = None) -> str:
    """The XMP packet of a picture; "" where nothing is to be said.

    settings: None for a sheet of several. mark: say that a model made it. whole: the settings as
    JSON, for the formats that have no place for it elsewhere.
    """
    said = (_said(settings) if mark else []) + ([] if whole is None else [(KEY, whole)])
    if not said:
        return ""
    lines = [_element(name, text) for name, text in said]
    used = dict.fromkeys(line[1:].partition(":")[0] for line in lines)
    spaces = "".join(f' xmlns:{name}="{_SPACES[name]}"' for name in used)
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">\n'
        f'<rdf:Description rdf:about=""{spaces}>\n{"".join(lines)}</rdf:Description>\n'
        '</rdf:RDF></x:xmpmeta>\n<?xpacket end="r"?>'
    )


def _said(settings: Settings | None) -> list[tuple[str, str]]:
    from sdcore.version import VERSION as TODAY

    if settings is None:
        return [(SOURCE, TRAINED), (SYSTEM, "sdcore"), (VERSION, TODAY)]
    old = _marks(settings)
    systems = [old.get(SYSTEM), f"sdcore with {bare(settings.model)}"]
    versions = [old.get(VERSION), settings.version]
    return [
        (SOURCE, source_type(settings)),
        (SYSTEM, "; ".join(filter(None, systems))),
        (VERSION, "; ".join(filter(None, versions))),
        *((name, old[name]) for name in ("creator", "rights", "Credit") if name in old),
    ]


def _marks(settings: Settings) -> dict[str, str]:
    """What the picture that it began with says, by property."""
    pairs = (each.partition("=") for each in settings.image_marks)
    return {name: text for name, _, text in pairs}


def _element(name: str, text: str) -> str:
    space, kind = _PROPERTIES.get(name, ("sdcore", None))
    tag = f"{space}:{'settings' if name == KEY else name}"
    words = html.escape(printable(text), quote=False)
    if kind is not None:
        language = ' xml:lang="x-default"' if kind == "Alt" else ""
        words = f"<rdf:{kind}><rdf:li{language}>{words}</rdf:li></rdf:{kind}>"
    return f"<{tag}>{words}</{tag}>\n"


def read(xmp: bytes | str) -> dict[str, str]:
    """The properties of a packet that are known here, and sdcore's settings under KEY.

    {} for what is no packet, or declares entities, which a stranger can make endless.
    """
    try:
        text = xmp.decode("utf-8") if isinstance(xmp, bytes) else xmp
        if len(text) > _MOST_BYTES or re.search("<!(?:DOCTYPE|ENTITY)", text):
            return {}
        tree = ElementTree.fromstring(text.strip("\0 \r\n"))
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError):
        return {}
    values: dict[str, str] = {}
    names = {f"{{{_SPACES[s]}}}{name}": name for name, (s, _) in _PROPERTIES.items()}
    names[f"{{{_SPACES['sdcore']}}}settings"] = KEY
    for about in tree.iter(f"{{{_RDF}}}Description"):
        found = [*about.attrib.items(), *((each.tag, _text(each)) for each in about)]
        for tag, words in found:
            if tag in names and words:
                values.setdefault(names[tag], words)
    return values


def _text(element: Any) -> str:
    """The words of a property: its own, or those of its list."""
    items = [each.text.strip() for each in element.iter(f"{{{_RDF}}}li") if each.text]
    return ", ".join(items) if items else (element.text or "").strip()


def carried(texts: Mapping[str, str], xmp: bytes | str | None) -> tuple[str, ...]:
    """What a picture that is started from says of itself, as `Settings.image_marks` holds it.

    texts: what else is in it: the settings of sdcore, of A1111 or of ComfyUI.
    """
    marks = {} if xmp is None else read(xmp)
    ours = texts.get(KEY, marks.pop(KEY, None))
    if SOURCE not in marks and ours is not None:
        try:
            marks = dict(_said(Settings.from_json(ours))) | marks
        except InputError:
            marks[SOURCE] = TRAINED
    elif SOURCE not in marks and any(name in texts for name in _TOOLS):
        marks[SOURCE] = TRAINED
    if SOURCE in marks:  # written with https, too
        marks[SOURCE] = marks[SOURCE].strip().replace("https:", "http:", 1)
    known = (name for name in _PROPERTIES if name in marks)
    return tuple(f"{name}={one_line(marks[name])[:_MOST_LETTERS]}" for name in known)
