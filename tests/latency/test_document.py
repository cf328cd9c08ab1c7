"""Documents: what was written is read, and whatever was changed since is noticed."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latkit.devices.errors import DamagedFileError, UsageError
from latkit.latency.document import parse_document, read_document, write_document

BODY = {"name": "a b", "values": [1, 2.5, -0.0, 1e300], "none": None, "text": 'é ☃ " \\'}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "document.json"
    write_document(path, "thing", 3, BODY)
    return path


@given(body=JSON_VALUES)
def test_any_body_reads_back_the_same(body, tmp_path_factory):
    path = tmp_path_factory.mktemp("body") / "document.json"
    write_document(path, "thing", 1, body)
    assert read_document(path, "thing", 1) == body


def test_older_versions_are_read(path):
    assert read_document(path, "thing", 4) == BODY


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n ", "\n  ", 1),
        lambda text: text.replace("\n ", "\n\t", 1),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.removesuffix("\n"),
        lambda text: text + "\n",
        lambda text: json.dumps(json.loads(text)),
        lambda text: json.dumps(dict(reversed(json.loads(text).items())), indent=1) + "\n",
        lambda text: text.replace("2.5", "2.50"),
        lambda text: text.replace('"a b"', '"a\\u0020b"'),
        lambda text: text.replace('"version": 3', '"version": 3.0'),
        lambda text: text.replace('"version": 3', '"version": true'),
        lambda text: text.replace('"version": 3', '"version": 0'),
        lambda text: text.replace('"version": 3', '"version": "3"'),
        lambda text: text.replace('"version": 3', '"version": []'),
        lambda text: text.replace("latkit.thing", "latkit.thong"),
        lambda text: text.replace("latkit.thing", "Latkit.thing"),
        lambda text: text.replace('"sha256": "', '"sha256": "0'),
        lambda text: text.replace('"none": null', '"none": NaN'),
        lambda text: "[" * 100_000,
        lambda text: "[]",
        lambda text: "",
    ],
)
def test_a_document_that_was_changed_is_damaged(path, change):
    text = path.read_text()
    changed = change(text)
    assert changed != text
    path.write_text(changed, newline="")
    with pytest.raises(DamagedFileError, match=r"is damaged: .*Make it again"):
        read_document(path, "thing", 3)


def test_bytes_that_are_no_text_are_damaged(path):
    path.write_bytes(path.read_bytes().replace(b"a b", b"a\xffb"))
    with pytest.raises(DamagedFileError, match="no complete latkit document"):
        read_document(path, "thing", 3)


def test_a_newer_version_is_refused_with_the_version_needed(path):
    with pytest.raises(DamagedFileError, match=r"version 3 .*up to 2.*newer latkit") as error:
        read_document(path, "thing", 2)
    assert "damaged" not in str(error.value)


def test_a_version_that_was_raised_by_hand_is_refused_and_doubted(path):
    path.write_text(path.read_text().replace('"version": 3', '"version": 7'))
    with pytest.raises(DamagedFileError, match=r"version 7 .*up to 3.*newer latkit.*or it is dam"):
        read_document(path, "thing", 3)


def test_another_kind_is_no_damage(path):
    with pytest.raises(UsageError, match=r"latkit\.thing .*latkit\.search"):
        read_document(path, "search", 1)


def test_a_file_that_is_not_there_is_no_damage(tmp_path):
    with pytest.raises(UsageError, match="can't read"):
        read_document(tmp_path / "nothing.json", "thing", 1)


def body_only(kind, version):
    """A document as the first latkit wrote it: its checksum is that of the body alone."""
    checksum = hashlib.sha256(json.dumps(BODY, sort_keys=True).encode()).hexdigest()
    document = {"format": f"latkit.{kind}", "version": version, "sha256": checksum, "body": BODY}
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def test_a_checksum_of_the_body_alone_is_enough_for_the_first_documents_only():
    assert parse_document(body_only("search", 1), "it", "search", 2) == BODY
    for kind, version in (("search", 2), ("thing", 1)):
        with pytest.raises(DamagedFileError, match="checksum"):
            parse_document(body_only(kind, version), "it", kind, 2)
