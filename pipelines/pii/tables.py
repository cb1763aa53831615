"""What the checks look up: classes of bytes, domains, number plans, formats of keys and words that give context."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

KINDS = ("email", "ip_address", "phone_number", "iban", "card_number", "secret")
"""The names of the kinds, in the order of their numbers."""
EMAIL, IP_ADDRESS, PHONE_NUMBER, IBAN, CARD_NUMBER, SECRET = range(6)

DIGIT, LETTER, HEX, TOKEN, LOCAL, DOMAIN, KEY, ANCHOR = 1, 2, 4, 8, 16, 32, 64, 128
"""Bits of a byte's class. `TOKEN` is a letter, a digit or "_" (which counts as a `LETTER`); `LOCAL` and `DOMAIN` may
stand in the two parts of an e-mail address; `KEY` in an identifier or base64url; a candidate may begin at `ANCHOR`."""

PHONE, VERSION, NETWORK, OTHER_NUMBER = 1, 2, 4, 8
"""What words before a number say about it: categories of `CONTEXT`."""

COUNTRY_CODE_DOMAINS = """
ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz ca cc cd cf cg
ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm fo fr ga gd ge gf gg gh gi
gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kh ki km kn kp kr kw
ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na nc ne nf ng
ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg sh si sj sk sl sm
sn so sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug uk us uy uz va vc ve vg vi vn vu wf
ws ye yt za zm zw
"""
GENERIC_DOMAINS = """
com net org info biz edu gov mil int name pro aero coop museum jobs mobi travel tel cat asia post xxx app dev cloud
online site xyz tech store shop club blog news media agency email live life world today social space website digital
network solutions services company group team studio design global health academy school university education
foundation church legal law bank finance money capital expert consulting support systems software link page wiki berlin
hamburg koeln cologne bayern ruhr saar nrw wien tirol swiss london scot wales cymru paris bzh corsica alsace amsterdam
brussels gent vlaanderen frl barcelona eus gal madrid moscow istanbul nyc vegas miami boston tokyo osaka kyoto nagoya
sydney melbourne quebec rio africa joburg capetown durban taipei krd art audio band bar beer best bike bio boutique
build business buzz cafe camera camp care careers cash center chat city clinic clothing coach codes coffee community
computer construction contractors cool country credit dance date dating deals delivery dental direct directory dog
earth energy engineer engineering enterprises equipment estate events exchange express family fan farm fashion film
fish fit fitness florist fm football forsale fun fund furniture futbol gallery games garden gift gifts gmbh gold golf
graphics green guide guru haus holiday holdings homes hospital hosting hotel house immo immobilien industries ink
institute insure international investments jetzt kaufen kitchen kiwi land lat lawyer lease limited llc loans ltd lgbt
management market marketing mba menu moda mom movie name ngo ninja one ong org partners parts pet pharmacy photo
photography photos physio pictures pizza place plus poker press productions properties property pub racing radio
realty recipes rehab reise reisen rent rentals repair report rest restaurant reviews rip rocks run sale salon sarl
science security select sexy show singles ski soccer solar style sucks supply surf surgery tax taxi tennis theater
tickets tips tires tools top tours town toys trade training vet ventures versicherung video villas vip vision vote
voyage watch webcam wedding win wine work works wtf yoga zone
"""
"""Top-level domains of the root zone that addresses are seen in; country codes are ISO 3166 with ac, eu, su and uk."""

LONGEST_DOMAIN = 13
"""Letters of a top-level domain that one integer holds."""

IBAN_LENGTHS = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18
FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20
LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24
SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
"""Country and length of its IBANs in characters (ISO 13616 registry)."""

CALLING_CODES = """
1:10-10 7:10-10 20:8-10 27:9-9 30:10-10 31:8-10 32:8-9 33:9-9 34:9-9 36:8-9 39:6-12 40:9-9 41:9-9 43:7-13 44:9-10
45:8-8 46:7-10 47:8-8 48:9-9 49:6-13 51:8-9 52:10-11 53:6-8 54:10-11 55:10-11 56:9-9 57:8-10 58:10-10 60:8-10 61:9-9
62:8-12 63:8-10 64:8-10 65:8-8 66:8-9 81:9-10 82:8-10 84:9-10 86:10-12 90:10-10 91:10-10 92:9-10 93:9-9 94:9-9 95:7-10
98:10-10 350:8-8 351:9-9 352:6-11 353:7-9 354:7-7 355:8-9 356:8-8 357:8-8 358:6-11 359:8-9 370:8-8 371:8-8 372:7-8
373:8-8 374:8-8 375:9-9 376:6-6 377:8-9 378:6-10 380:9-9 381:8-9 382:8-8 383:8-9 385:8-9 386:8-8 387:8-8 389:8-8
420:9-9 421:9-9 423:7-9 852:8-8 853:8-8 855:8-9 856:8-10 880:8-10 886:8-9 960:7-7 961:7-8 962:8-9 963:8-9 964:8-10
965:8-8 966:8-9 967:7-9 968:8-8 970:8-9 971:8-9 972:8-9 973:8-8 974:7-8 975:7-8 976:8-8 977:8-10 992:9-9 993:8-8 994:9-9
995:9-9 996:9-9 998:9-9
"""
"""Country calling code and digits of its national numbers (ITU E.164 national number plans, rounded outwards)."""
OTHER_CALLING_CODES = (
    *(211, 212, 213, 216, 218, *range(220, 270), 290, 291, 297, 298, 299, *range(500, 510), *range(590, 600)),
    *(670, 672, *range(673, 693), 800, 808, 850, 870, 878, 881, 882, 883, 888, 979),
)
OTHER_LENGTHS = (6, 10)
"""Digits of the national numbers of the others."""

ALNUM, BASE64URL, LOWER_HEX, UPPER, DOTTED = range(5)
"""Alphabets of keys: letters and digits; with "_" and "-"; 0-9a-f; 0-9A-Z; base64url with "."."""

KEY_FORMATS: tuple[tuple[str, int, int, int], ...] = (
    *(("AKIA", UPPER, 16, 16), ("ASIA", UPPER, 16, 16), ("ABIA", UPPER, 16, 16), ("ACCA", UPPER, 16, 16)),  # AWS
    *(("ghp_", ALNUM, 36, 251), ("gho_", ALNUM, 36, 251), ("ghu_", ALNUM, 36, 251), ("ghs_", ALNUM, 36, 251)),  # GitHub
    *(("ghr_", ALNUM, 36, 251), ("github_pat_", BASE64URL, 22, 251)),
    *(("glpat-", BASE64URL, 20, 300), ("gldt-", BASE64URL, 20, 300), ("glrt-", BASE64URL, 20, 300)),  # GitLab
    *(("glptt-", BASE64URL, 20, 300), ("glcbt-", BASE64URL, 20, 300), ("gloas-", BASE64URL, 20, 300)),
    *(("xoxb-", BASE64URL, 16, 255), ("xoxp-", BASE64URL, 16, 255), ("xoxa-", BASE64URL, 16, 255)),  # Slack
    *(("xoxr-", BASE64URL, 16, 255), ("xoxs-", BASE64URL, 16, 255), ("xapp-", BASE64URL, 16, 255)),
    *(("AIza", BASE64URL, 35, 35), ("GOCSPX-", BASE64URL, 28, 28), ("ya29.", BASE64URL, 20, 400)),  # Google
    *(("sk_live_", ALNUM, 16, 251), ("rk_live_", ALNUM, 16, 251), ("sk_test_", ALNUM, 16, 251)),  # Stripe
    *(("rk_test_", ALNUM, 16, 251), ("whsec_", ALNUM, 24, 251)),
    *(("sk-ant-", BASE64URL, 32, 251), ("sk-proj-", BASE64URL, 32, 251), ("sk-svcacct-", BASE64URL, 32, 251)),
    *(
        ("sk-admin-", BASE64URL, 32, 251),
        ("sk-or-v1-", LOWER_HEX, 64, 64),
        ("sk-", ALNUM, 32, 251),
    ),  # OpenAI and others
    *(("gsk_", ALNUM, 40, 251), ("xai-", ALNUM, 60, 251), ("pplx-", ALNUM, 40, 251), ("r8_", ALNUM, 37, 37)),
    *(("hf_", ALNUM, 30, 251), ("api_org_", ALNUM, 30, 251)),  # Hugging Face
    *(("npm_", ALNUM, 36, 36), ("pypi-AgE", BASE64URL, 50, 400), ("dckr_pat_", BASE64URL, 27, 60)),
    *(("SG.", DOTTED, 66, 66), ("SK", LOWER_HEX, 32, 32), ("key-", LOWER_HEX, 32, 32)),  # SendGrid, Twilio, Mailgun
    *(("dop_v1_", LOWER_HEX, 64, 64), ("doo_v1_", LOWER_HEX, 64, 64), ("dapi", LOWER_HEX, 32, 32)),
    *(("shpat_", LOWER_HEX, 32, 32), ("shpss_", LOWER_HEX, 32, 32), ("shpca_", LOWER_HEX, 32, 32)),  # Shopify
    *(("sq0atp-", BASE64URL, 22, 22), ("sq0csp-", BASE64URL, 43, 43), ("EAAA", BASE64URL, 60, 60)),  # Square
    *(("lin_api_", ALNUM, 40, 40), ("glsa_", BASE64URL, 41, 41), ("hvs.", BASE64URL, 24, 200)),
    *(("ATATT3", BASE64URL, 60, 300), ("NRAK-", UPPER, 27, 27), ("PMAK-", BASE64URL, 59, 59)),
    *(("AGE-SECRET-KEY-1", UPPER, 58, 58), ("pk.eyJ", DOTTED, 40, 400), ("sk.eyJ", DOTTED, 40, 400)),  # age, Mapbox
    ("eyJ", DOTTED, 40, 8_192),  # JSON Web Token (RFC 7519)
)
"""Published formats of keys: prefix, alphabet and length (at least, at most) of what follows."""

SECRET_NAMES = (
    *("password", "passwd", "passphrase", "passwort", "pwd", "secret", "token", "credential", "apikey", "secretkey"),
    *("accesskey", "accountkey", "privatekey", "authkey", "encryptionkey", "signingkey", "sharedkey"),
)
"""How names of secrets end, "_" and "-" aside."""
PASSWORD_NAMES = 5
"""The first of them, which name what people type."""

CONTEXT: tuple[tuple[int, bool, str], ...] = (
    *((PHONE, False, word) for word in ("phone", "telefon", "telefax", "telephon", "fono", "téléphone", "telef")),
    *((PHONE, False, word) for word in ("hotline", "whatsapp", "cellular", "celular", "cellulare", "puhelin")),
    *((PHONE, False, word) for word in ("anruf", "switchboard", "toll free", "toll-free", "tollfree")),
    *((PHONE, True, word) for word in ("tel", "tlf", "telf", "tél", "ph", "cell", "fon", "fax", "gsm", "sms", "tfno")),
    *((PHONE, True, word) for word in ("call", "calls", "calling", "dial", "dialing", "dialling", "mobil", "mobile")),
    *((PHONE, True, word) for word in ("handy", "natel", "móvil", "movil", "portable", "text", "ring", "contact")),
    *((PHONE, True, word) for word in ("rufen sie uns an", "direct line", "t/f", "komórka", "kom")),
    *(
        (PHONE, False, word)
        for word in (
            "тел",
            "факс",
            "моб",
            "звон",
            "Тел",
            "ТЕЛ",
            "Факс",
            "Моб",
            "τηλ",
            "Τηλ",
            "φαξ",
            "Φαξ",
            "電話",
            "电话",
            "手机",
            "手機",
        )
    ),
    *(
        (PHONE, False, word)
        for word in ("传真", "傳真", "热线", "熱線", "携帯", "전화", "팩스", "휴대", "هاتف", "فاكس")
    ),
    *((PHONE, False, word) for word in ("جوال", "تلفن", "טלפון", "नंबर", "फोन", "फ़ोन", "โทร", "điện thoại")),
    *((PHONE, False, word) for word in ("☎", "📞", "✆", "📱", "📠", "☏", "℡")),
    *((VERSION, False, word) for word in ("version", "release", "firmware", "software", "revision")),
    *((VERSION, True, word) for word in ("v", "ver", "build", "rev", "section", "chapter", "clause", "kapitel")),
    *((VERSION, True, word) for word in ("abschnitt", "bagian", "sektion", "rfc", "oid", "assembly")),
    *((VERSION, False, word) for word in ("§", "версия", "版本", "バージョン")),
    *((NETWORK, True, word) for word in ("ip", "ips", "ipv4", "dns", "ping", "address", "addresses", "gateway")),
    *((NETWORK, True, word) for word in ("host", "server", "nameserver", "resolver", "adresse", "whois", "traceroute")),
    *((OTHER_NUMBER, True, word) for word in ("isbn", "issn", "konto", "kto", "blz", "bankleitzahl", "postkonto")),
    *((OTHER_NUMBER, True, word) for word in ("account", "order", "invoice", "zvr", "doi", "pmid", "ean", "upc", "id")),
    *(
        (OTHER_NUMBER, True, word)
        for word in ("zip", "p.o. box", "po box", "serial", "patent", "uid", "vat", "zoom", "icp")
    ),
    *((OTHER_NUMBER, False, word) for word in ("備案", "备案", "许可证")),
)
"""Category, whether the word must end where a letter does not follow, and the word in lower case. Words in ASCII begin
where no ASCII letter precedes, unless their category is `PHONE` and the word need not end ("Bürgertelefon")."""


class KeyTables(NamedTuple):
    """Formats of keys, names of secrets, and what entropies are made of."""

    pairs: np.ndarray
    """bool, (65536,): the first two bytes of some format."""
    prefixes: np.ndarray
    formats: np.ndarray
    """int64, (formats, 5): first and last byte of the prefix in `prefixes`, alphabet, least and most length."""
    names: np.ndarray
    name_offsets: np.ndarray
    entropies: np.ndarray
    """int64, (513,): n log2 n in 1/64 bit, rounded down."""


class WordTables(NamedTuple):
    """The words that give context."""

    letters: np.ndarray
    rows: np.ndarray
    """int64, (words, 5): first and last byte in `letters`, category, must begin, must end; ordered by first byte."""
    firsts: np.ndarray
    """int64, (257,): where the words that begin with a byte are."""


class Tables(NamedTuple):
    """The tables as arrays, as the compiled checks take them."""

    classes: np.ndarray
    """uint8, (256,): bits of a byte."""
    domains: np.ndarray
    """int64, sorted: top-level domains, each packed into an integer."""
    iban_lengths: np.ndarray
    """int64, (676,): by the two letters; 0 = no IBANs."""
    calling_codes: np.ndarray
    """int64, (1000, 2): least and most digits of national numbers; 0 = no such code."""
    keys: KeyTables
    words: WordTables


@cache
def tables() -> Tables:
    """Return the tables."""
    key_bytes, key_bounds = _joined([prefix for prefix, *_ in KEY_FORMATS])
    pairs = np.zeros(65536, bool)
    for prefix, *_ in KEY_FORMATS:
        pairs[ord(prefix[0]) << 8 | ord(prefix[1])] = True
    formats = [[*bounds, *rest] for bounds, (_, *rest) in zip(key_bounds, KEY_FORMATS, strict=True)]
    name_bytes, name_bounds = _joined(list(SECRET_NAMES))
    words = sorted(CONTEXT, key=lambda entry: entry[2].encode())
    word_bytes, word_bounds = _joined([word for *_, word in words])
    rows = [
        [*bounds, category, word.isascii() and (category != PHONE or must_end), must_end]
        for bounds, (category, must_end, word) in zip(word_bounds, words, strict=True)
    ]
    firsts = np.searchsorted([word.encode()[0] for *_, word in words], np.arange(257)).astype(np.int64)
    # n log2 n without a float: floor(64 n log2 n) = floor(log2(n^(64 n)))
    entropies = np.array([0, *((n ** (64 * n)).bit_length() - 1 for n in range(1, 513))], np.int64)
    name_offsets = np.array([0, *(stop for _, stop in name_bounds)], np.int64)
    keys = KeyTables(pairs, key_bytes, np.array(formats, np.int64), name_bytes, name_offsets, entropies)
    context = WordTables(word_bytes, np.array(rows, np.int64), firsts)
    return Tables(_classes(), _domains(), _iban_lengths(), _calling_codes(), keys, context)


def _joined(words: list[str]) -> tuple[np.ndarray, list[tuple[int, int]]]:
    encoded = [word.encode() for word in words]
    bounds = np.cumsum([0, *map(len, encoded)]).tolist()
    return np.frombuffer(b"".join(encoded), np.uint8), list(zip(bounds, bounds[1:], strict=False))


def _classes() -> np.ndarray:
    classes = np.zeros(256, np.uint8)
    for byte in range(256):
        character = chr(byte)
        if character.isascii() and (character.isalnum() or character == "_"):
            digit = character.isdigit()
            classes[byte] |= (DIGIT if digit else LETTER) | TOKEN | LOCAL | KEY | (0 if character == "_" else DOMAIN)
            classes[byte] |= HEX if character in "0123456789abcdefABCDEF" else 0
    for character in ".%+-":
        classes[ord(character)] |= LOCAL
    classes[ord("-")] |= DOMAIN | KEY
    for character in "@+(:=-":
        classes[ord(character)] |= ANCHOR
    return classes


def packed(label: str) -> int:
    """Return a top-level domain as an integer, base 27."""
    value = 0
    for letter in label:
        value = value * 27 + ord(letter) - ord("a") + 1
    return value


def _domains() -> np.ndarray:
    return np.array(sorted({packed(label) for label in (COUNTRY_CODE_DOMAINS + GENERIC_DOMAINS).split()}), np.int64)


def _iban_lengths() -> np.ndarray:
    lengths = np.zeros(676, np.int64)
    for entry in IBAN_LENGTHS.split():
        lengths[(ord(entry[0]) - 65) * 26 + ord(entry[1]) - 65] = int(entry[2:])
    return lengths


def _calling_codes() -> np.ndarray:
    codes = np.zeros((1000, 2), np.int64)
    codes[list(OTHER_CALLING_CODES)] = OTHER_LENGTHS
    for entry in CALLING_CODES.split():
        code, _, lengths = entry.partition(":")
        codes[int(code)] = [int(length) for length in lengths.split("-")]
    return codes
