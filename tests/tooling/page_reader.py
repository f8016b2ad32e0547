"""Pages read back: a tree of elements, from text that must be well-formed."""

import base64
import itertools
from html.parser import HTMLParser

import cv2
import numpy as np

VOID = {"meta", "img", "br", "wbr"}


class Element:
    def __init__(self, tag, attributes=()):
        self.tag = tag
        self.attributes = dict(attributes)
        self.children = []

    @property
    def classes(self):
        return set((self.attributes.get("class") or "").split())

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag=None, *, of_class=None):
        """Every element below, in the page's order, of this tag and class."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if tag in (None, child.tag) and (of_class is None or of_class in child.classes):
                    found.append(child)
                found += child.all(tag, of_class=of_class)
        return found


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open = [Element("document")]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in <{tag}>"
        element = Element(tag, attrs)
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read_page(text):
    """Return the tree of a page or a piece of one, whose tags must all be closed in order."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].tag}> is never closed"
    return reader.open[0]


def picture_in(source):
    """Return the picture in a data URI, (H, W, 3) uint8 BGR."""
    head, data = source.split(",", 1)
    assert head in ("data:image/jpeg;base64", "data:image/png;base64")
    return cv2.imdecode(np.frombuffer(base64.b64decode(data, validate=True), np.uint8), cv2.IMREAD_COLOR)


def assert_sound(text):
    """Hold a whole page to what every page promises; return its tree."""
    page = read_page(text)
    assert page.children[1].attributes["lang"] == "en"
    assert "://" not in text
    assert not page.all("script")
    assert not page.all("link")
    assert all(not name.startswith("on") for element in page.all() for name in element.attributes)
    assert all(image.attributes["alt"] for image in page.all("img"))
    levels = [int(element.tag[1]) for element in page.all() if element.tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    assert {link.attributes["href"] for link in page.all("a")} <= {f"#{each}" for each in ids}
    return page
