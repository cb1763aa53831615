"""Charsets: the order of what names one, labels that lie, detection measured on real texts, and hostile bytes."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.transforms import charset as module
from pipelines.transforms.charset import decode, is_utf8, to_utf8

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"
LEGACY = SHARED / "langid/udhr_legacy_encodings"
ODD = SHARED / "warc/odd/encodings_html"

CODECS = {
    "Latin1": "cp1252", "Amahuaca": "cp1252", "UTF8": "utf-8", "UTF8~": "utf-8", "Latin2": "cp1250", "err": "cp1250",
    "Cyrillic": "cp1251", "Cyrillic+Abkh": "cp1251", "Greek": "cp1253", "Hebrew": "cp1255", "Arabic": "cp1256",
    "Turkish": "cp1254", "Baltic": "iso8859-4", "SJIS": "cp932", "EUC": "euc_jp", "JIS": "iso2022_jp",
    "GB2312": "gb18030", "Unicode": "utf-16",
}  # fmt: skip
"""Of the suffixes that name an encoding; the others name fonts, or are not on the web (HZ, VIQR, TCVN, T61).

What they name is read in the sense of the web: the files of suffix Latin2 hold bytes that only windows-1250 has.
"""
MISNAMED = {
    "Mongolian_Khalkha-Cyrillic": "iso8859-5",
    "Czech_Cesky-UTF8": "cp1250",
    "Hungarian_Magyar-Latin1": "cp1250",
    "Latvian-Latin1": "cp1257",
}
"""By their bytes, and by the words of the same texts in UTF-8 (../shared/data/langid/udhr2)."""

CASES = [
    # payload, HTTP charset -> text. First the byte order mark ...
    (b"\xef\xbb\xbf\xc3\xa9", "iso-8859-1", "é"),
    (b"\xff\xfeh\0i\0", "utf-8", "hi"),
    (b"\xfe\xff\0h\0i", None, "hi"),
    # ... then the header: ISO-8859-1 is windows-1252, in which 0x80 is the euro sign
    (b"<meta charset=utf-8>\x80", "ISO-8859-1", "<meta charset=utf-8>€"),
    (b"\xc7\xd1\xb1\xdb \x8c\x63", "ks_c_5601-1987", "한글 똠"),
    (b"\x87\x40", "shift_jis", "①"),
    (b"\x81\x30\x81\x30", "gb2312", "\x80"),
    (b"\xa1\xe3", "gbk", "°"),
    (b"h\0\xe9\0", "utf-16", "hé"),
    (b"hi \xc3\xa9", "utf-16", "hi é"),  # no byte of it is 0
    (b"\x1b$B?e\x1b(B", "iso-2022-jp", "水"),
    # ... then the page, unless the header's label is unknown or the page's is in a comment
    (b"<meta charset=koi8-r>\xd4", "x-unknown", "<meta charset=koi8-r>т"),
    (b"<meta charset=koi8-r>\xd4", "utf-7", "<meta charset=koi8-r>т"),
    (b"<!-- <meta charset=koi8-r> -->\xc3\xa9", None, "<!-- <meta charset=koi8-r> -->é"),
    # what was read as ASCII is not UTF-16, but this is
    (b"<meta charset=utf-16>\xc3\xa9", None, "<meta charset=utf-16>é"),
    ('<?xml version="1.0" encoding="utf-16"?>é'.encode("utf-16-le"), None, '<?xml version="1.0" encoding="utf-16"?>é'),
    ("<?xml?>é".encode("utf-16-be"), None, "<?xml?>é"),
    # ... then UTF-8 if valid
    ("Äpfel — 日本".encode(), None, "Äpfel — 日本"),
    (b"\x1b$B?e\x1b(B", None, "水"),
    (b"plain", None, "plain"),
    (b"", "utf-8", ""),
    # UTF-7 is no encoding of the web
    (b"+ADw-script+AD4-", "utf-7", "+ADw-script+AD4-"),
]


@pytest.mark.parametrize(("payload", "label", "text"), CASES)
def test_the_order(payload, label, text):
    assert decode(payload, label) == text


DECLARATIONS = [
    b'<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">',
    b"<META HTTP-EQUIV=content-type CONTENT='text/html;charset = \"windows-1251\"'>",
    b"<html lang=ru><head><meta\ncharset='windows-1251' />",
    b"<meta/charset=windows-1251>",
    b'<meta name=x content=y><meta charset="windows-1251">',
    b'<meta charset="no-such"><meta charset=windows-1251>',
    b'<p title="<meta charset=koi8-r>"><meta charset=windows-1251>',
    b"<!-- <meta charset=koi8-r> --><meta charset=windows-1251>",
    b"<?php <meta charset=koi8-r ?><meta charset=windows-1251>",
    b"<meta name=description content='charset=koi8-r'><meta charset=windows-1251>",
    b'<?xml version="1.0" encoding="windows-1251"?><html>',
    b" \n<?xml version='1.0' encoding = 'windows-1251'?>",
]


@pytest.mark.parametrize("declaration", DECLARATIONS)
def test_declarations(declaration):
    """As the prescan of the HTML standard (13.2.3.2) reads them."""
    assert decode(declaration + "Вода".encode("cp1251")) == declaration.decode() + "Вода"


@pytest.mark.parametrize(
    "text",
    [
        b"<meta name=description content='charset=windows-1251'>",
        b"<!-- <meta charset=windows-1251>",
        b"<metacharset=windows-1251>",
        b" " * 1024 + b"<meta charset=windows-1251>",
    ],
)
def test_what_declares_nothing(text):
    """One byte that says nothing of its encoding: what is left is windows-1252."""
    assert decode(text + b" \x93 x") == text.decode() + " “ x"


@pytest.mark.parametrize("label", ["iso-8859-1", "windows-1251", "koi8-r", "utf-8", None])
def test_utf8_under_any_label_of_one_byte_characters(label):
    assert decode("Ein Gebäude".encode(), label) == "Ein Gebäude"


def test_utf8_under_a_label_of_many_byte_characters():
    """Two such characters may be chance ("聽" is E8 81 BD, which Chinese has too), four are not."""
    assert decode("水は高い所から".encode(), "shift_jis") == "水は高い所から"
    assert decode(b"\xc4\xa3", "gbk") == "模"


@pytest.mark.parametrize("label", [None, "utf-8", "iso-8859-1"])
@pytest.mark.parametrize(
    ("stray", "text"),
    [
        (b"don\x92t", "don’t"),
        (b"gr\xf6\xdfer", "größer"),
        (b"\xa7\xa7 1280", "§§ 1280"),
        (b"\x93quoted\x94", "“quoted”"),
        # an end that was cut off, first of a character that the text has
        (b"premi\xc3...", "premi\ufffd..."),
        (b"so \xe2\x80.", "so \ufffd."),
        # a lone surrogate, a pair of them (CESU-8), overlong forms, beyond Unicode: one of each
        (b"a\xed\xa0\x80b", "a\ufffdb"),
        (b"a\xed\xa0\xbd\xed\xb8\x80b", "a\ufffd\ufffdb"),
        (b"a\xc0\xafb\xe0\x80\xafc", "a\ufffdb\ufffdc"),
        (b"a\xf4\x90\x80\x80b", "a\ufffdb"),
    ],
)
def test_stray_bytes_in_utf8(label, stray, text):
    around = "Für Äpfel, Öl und Übermut, große Mühen: ".encode()
    assert decode(around + stray, label) == around.decode() + text


@pytest.mark.parametrize("codec", ["cp1252", "cp1251", "euc_jp", "cp949"])
def test_a_label_that_lies(codec):
    """What is not UTF-8 at all is detected, although a header says that it is."""
    text = {
        "cp1252": "Der Kanal führt das Wasser zum Mühlrad, und der Müller prüft täglich die Böschung.",
        "cp1251": "Вода течёт по каналу к колесу мельницы, и мельник каждое утро проверяет берега.",
        "euc_jp": "水は水路を通って水車に流れ、粉屋は毎朝土手を見回る。カタカナもひらがなもある。",
        "cp949": "물은 수로를 따라 물레방아로 흐르고 방앗간 주인은 매일 아침 둑을 살펴본다.",
    }[codec]
    assert decode(text.encode(codec), "utf-8") == text


def test_the_domain_helps():
    """Four bytes say little, the country says more."""
    payload = "<p>汉字</p>".encode("gb2312")
    assert to_utf8(payload, "utf-8", "cn") == "<p>汉字</p>".encode()
    assert to_utf8(payload, "utf-8", "not a.domain\xe9") == to_utf8(payload, "utf-8")


def test_no_copy_of_what_is_utf8():
    """The hot path: declared or not, the same object comes back."""
    payload = memoryview("<meta charset=utf-8>Äpfel".encode())
    assert to_utf8(payload) is payload
    assert to_utf8(payload, "utf-8") is payload


@settings(max_examples=500, deadline=None)
@given(
    payload=st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.sampled_from(
                [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0", b"\xed\xa0\x80", b"\xc0\x80", b"<meta charset=",
                 b">", b"utf-16", b"gbk", b"<?xml ", b"encoding='", b"\x1b$B", b"+AD4-", b"\xc3\xa9", b"\xe9", b"x",
                 b"\xf8\x88"]
            )
        ).map(b"".join),
    ),
    label=st.sampled_from(
        [None, "utf-8", "utf-16", "utf-16be", "utf-7", "gb18030", "big5", "iso-2022-jp", "hz-gb-2312", "x-user-defined",
         "windows-874", "\ud800", "a" * 999, "", "koi8-u", "euc-kr", "replacement", "\0"]
    ),
    domain=st.sampled_from([None, "cn", "RU", "é", "", "a.b", "1", "xn--p1ai", "x" * 99]),
)  # fmt: skip
def test_any_bytes_under_any_label(payload, label, domain):
    """Always valid UTF-8, the same twice, and the same again from what came out (but for a further byte order mark)."""
    page = bytes(to_utf8(payload, label, domain))
    page.decode("utf-8")
    assert bytes(to_utf8(memoryview(payload), label, domain)) == page
    assert len(page) <= 4 * len(payload) + 4


@given(st.binary(max_size=200))
def test_validity_is_that_of_python(payload):
    try:
        payload.decode("utf-8")
        expected = True
    except UnicodeDecodeError:
        expected = False
    assert is_utf8(payload) is expected


@pytest.mark.parametrize(
    "payload", [b"\xe9" * (4 << 20), b"\xc3\xa9\x92" * (1 << 20), b"<meta " * 200 + b"\xff" * 99, b"<!--" * 1_000_000]
)
def test_large_and_hostile_payloads_take_linear_time(payload):
    """Four megabytes of each, in CPU seconds."""
    started = time.process_time()
    decode(payload)
    assert time.process_time() - started < 5


def texts() -> list[tuple[str, bytes, str]]:
    """Return name, bytes and codec of every text whose encoding is known."""
    found = []
    for file in sorted(LEGACY.iterdir()):
        codec = MISNAMED.get(file.name) or CODECS.get(file.name.rpartition("-")[2])
        if codec:
            found.append((file.name, file.read_bytes(), codec))
    return found


@pytest.mark.skipif(not LEGACY.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize("label", [None, "utf-8"])
def test_detection_on_real_texts(label):
    """With no label, and under one of UTF-8. All texts in UTF-8 and ASCII are right, also those cut in a character."""
    right, wrong = 0, []
    for name, payload, codec in texts():
        expected = payload.decode(codec, "replace").removeprefix("\ufeff").rstrip("\ufffd")
        is_right = decode(payload, label).rstrip("\ufffd") == expected
        if (payload.isascii() and codec != "iso2022_jp") or codec.startswith("utf"):
            assert is_right, name
        elif is_right:
            right += 1
        else:
            wrong.append(name)
    print(f"\nlabel {label}: {right} of {right + len(wrong)} texts in legacy encodings; not {', '.join(wrong)}")
    assert right + len(wrong) == 176
    assert right >= (168 if label is None else 167)


@pytest.mark.skipif(not ODD.exists(), reason="needs ../shared/data")
def test_real_pages_with_wrong_charsets():
    """Strings that a person found in the pages (openZIM)."""
    assert "simplified chinese characters: 汉字" in decode((ODD / "file06.html").read_bytes())
    assert "simplified chinese characters: 汉字" in decode((ODD / "file07.html").read_bytes(), "gb2312")
    assert re.search("pour une premi\ufffd\\.\\.\\.", decode((ODD / "file03.html").read_bytes()))
    torn = decode((ODD / "bad-encoding.html").read_bytes(), "utf-8")
    assert torn.count(module.REPLACEMENT) == 0
