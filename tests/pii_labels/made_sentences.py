"""Made sentences with labelled values, and look-alikes without any.

Phone numbers are of ranges kept for drama and tests (555-01xx; Ofcom's 020 7946 0xxx, 0161 496 0xxx and 07700 900xxx;
the Bundesnetzagentur's 030 23125xxx, 089 99998xxx and 0152 28817386; ARCEP's 01 99 00 xx xx and 06 39 98 xx xx; ACMA's
(02) 5550 xxxx) or of no subscriber that anybody looked up; card numbers are the test numbers that payment services
publish; IBANs and keys are drawn at random, keys from parts, so that nothing here looks like a key to a scanner.
"""

from __future__ import annotations

import random
import string

Span = tuple[int, int, str]
BASE62 = string.ascii_letters + string.digits
BASE64URL = BASE62 + "-_"
HEX = string.hexdigits[:16]

EMAIL_SENTENCES = (
    "Write to {} if the date does not suit you.",
    "Contact: {}",
    "From: Anna Berg <{}>",
    "mailto:{}?subject=Order",
    "Fragen bitte an {}, wir antworten am selben Tag.",
    "E-mail : {}\nSite : www.moulin.fr",
    "correo: {}.",
    "连络邮箱：{}。",
    "メールは{}まで",
    "Почта: {}; склад закрыт.",
    'author_email="{}",',
    "* @author {}",
    "({})",
    "- {}\n- next",
    '"{}";"Oslo"',
    "email={}&page=2",
    "البريد: {}",
    "Send {}'s invoice again.",
)
EMAILS = (
    "anna.berg@millrace.no",
    "j.smith@mail.uni-halle.de",
    "office@water-works.co.uk",
    "o_neil+news@gmx.net",
    "x@q.io",
    "Kundendienst@Stadtwerke-Muster.de",
    "first.last@sub.dept.univ.edu",
    "info@moulin-de-l-eau.fr",
    "a1b2c3@ya.ru",
    "ventas2024@molino.com.ar",
    "maria_garcia@correo.es",
    "r2d2@robots.museum",
    "ops@cloud.app",
    "kontakt@mühle.de",
    "9876543@qq.com",
    "sato@suisha.co.jp",
    "no-reply@notify.mill.dev",
    "PRESS@NEWSROOM.ORG",
    "lee%dept@host.kr",
    "peter.olsen@kommune.oslo.no",
    "webmaster@xn--mhle-1ra.de",
    "hanna@firma.com.pl",
    "jose.perez@empresa.mx",
    "b.o@bbc.co.uk",
    "team-42@start.up.cloud",
    "giulia.rossi@posta.it",
    "support@help.desk.support",
    "e.e@ee.ee",
    "long.local.part.with.many.dots@example-mill.org",
    "tom@t.co",
    "karl@mail.example-shop.at",
    "dev@lists.mill.org",
    "zoe@zoe.paris",
    "joan@obrador.cat",
    "n.n@berlin.de",
    "rivers@hydrology.ac.uk",
)
IP_SENTENCES = (
    "The request came from {}.",
    "Host {} does not answer.",
    '{} - - [10/Oct/2020:13:55:36] "GET / HTTP/1.1" 200',
    "Last login: Mon from {}",
    "Zugriff von der IP-Adresse {} gesperrt",
    "http://{}/index.html",
    "ssh root@{}",
    "X-Forwarded-For: {}, 10.0.0.7",
    "iptables -A INPUT -s {} -j DROP",
    "(ip: {})",
    "remote_addr={}",
    "{}\n",
)
IPS = (
    "81.169.145.66",
    "52.230.17.59",
    "203.0.112.17",
    "172.32.10.11",
    "100.128.33.20",
    "11.22.33.44",
    "193.99.144.80",
    "64.233.160.12",
    "223.255.255.254",
    "151.101.65.69",
    "198.20.99.130",
    "192.169.13.14",
    "169.253.77.21",
    "2a00:1450:4001:81b::200e",
    "2606:4700:4700::1111",
    "2001:4860:4860:0:0:0:0:8888",
    "2620:fe::fe",
    "2a01:4f8:c17:b8f::2",
    "2400:cb00:2048:1::c629:d7a2",
    "2003:e8:2f0d:5a00:1c2f:88ff:fe3a:9d01",
    "45.33.32.156",
    "185.199.108.153",
    "212.227.15.41",
    "5.135.140.155",
    "91.198.174.192",
    "77.88.55.60",
    "36.110.213.49",
    "122.248.10.230",
    "139.59.210.17",
    "23.215.0.136",
)
PHONES = (
    ("Call {} today.", "212-555-0123"),
    ("Phone: {}", "(415) 555-0142"),
    ("Reach us at {}, ask for Jo.", "646.555.0177"),
    ("dial {} toll free", "1-800-555-0199"),
    ("Fax {}", "312/555-0110"),
    ("mobile: {}", "7025550188"),
    ("{} is the front desk", "+1 303 555 0156"),
    ("tel={}", "+12065550134"),
    ("Office {} | Fax", "(617) 555-0121"),
    ("Tel. {}", "030 23125 014"),
    ("Telefon: {}", "030/23125-099"),
    ("Fon {}", "089 99998-12"),
    ("Fax: {}", "089-99998 345"),
    ("Rufen Sie uns an: {}", "0152 28817386"),
    ("Mobil {}", "0152/28817386"),
    ("Hotline {}", "(030) 23125 222"),
    ("Kontakt {}", "+49 30 23125 111"),
    ("T {}", "+49 (0)89 99998-0"),
    ("Handy: {}", "+4915228817386"),
    ("Sie erreichen uns unter {}.", "+49 (0) 221 / 47 10 112"),
    ("Telefonnummer {}", "022147101234"),
    ("Call our office on {}", "020 7946 0018"),
    ("Telephone {}", "(020) 7946 0958"),
    ("Ring {}", "0161 496 0234"),
    ("Text {} with your postcode", "07700 900461"),
    ("Mob: call {}", "+44 7700 900077"),
    ("Tel: {}", "+44 (0)20 7946 0991"),
    ("Tél. : {}", "01 99 00 12 34"),
    ("Téléphone {}", "06.39.98.45.67"),
    ("Appelez le téléphone {}", "+33 1 99 00 56 78"),
    ("Fax : {}", "+33 (0)6 39 98 11 22"),
    ("Portable {}", "06 39 98 77 01"),
    ("Teléfono: {}", "+34 910 550 123"),
    ("Tel. {}", "910 55 01 23"),
    ("Móvil {}", "655 550 199"),
    ("Telefono {}", "+39 06 5550 1234"),
    ("Tel {}", "06 5550 1299"),
    ("Fax {}", "0473 555 012"),
    ("Telefon {}", "+41 44 555 01 23"),
    ("Tel. {}", "044 555 01 77"),
    ("Tel. {}", "+43 1 5550 123"),
    ("Telefoon: {}", "+31 20 555 0134"),
    ("Tel: {}", "020-5550187"),
    ("Tlf. {}", "+47 22 55 50 12"),
    ("Tlf {}", "+45 33 55 50 19"),
    ("Telefon {}", "08-465 004 12"),
    ("Puhelin {}", "+358 9 5550 123"),
    ("Telefon: {}", "+48 22 555 01 23"),
    ("tel. {}", "22 555 01 99"),
    ("Тел.: {}", "+7 (495) 555-01-23"),
    ("Телефон {}", "8 (812) 555-01-44"),
    ("факс {}", "+380 44 555 0123"),
    ("电话：{}", "010-55501234"),
    ("联系电话 {}", "0755-55501299"),
    ("手机 {}", "13855501234"),
    ("传真：{}", "+86 10 5550 1234"),
    ("電話 {}", "03-5550-0123"),
    ("電話番号：{}", "+81 3-5550-0199"),
    ("전화 {}", "02-555-0123"),
    ("전화: {}", "+82 2-555-0188"),
    ("هاتف: {}", "+966 11 555 0123"),
    ("فاكس {}", "011 555 0199"),
    ("टेलीफोन फोन {}", "+91 11 5555 0123"),
    ("Phone {}", "022 5550 1234"),
    ("Contact {}", "(02) 5550 1234"),
    ("Mobile {}", "0491 570 156"),
    ("Phone: {}", "+61 2 5550 4321"),
    ("Ph: {}", "07 5550 9876"),
    ("Phone {}", "+64 9 555 0123"),
    ("Telefone: {}", "+55 11 5550-1234"),
    ("Tel: {}", "(11) 5550-0199"),
    ("Teléfono {}", "+52 55 5550 1234"),
    ("Tel {}", "+54 11 5550-0123"),
    ("Call {}", "+27 21 555 0123"),
    ("WhatsApp {}", "+234 803 555 0123"),
    ("☎ {}", "0555 123456"),
    ("📞 {}", "040 5550123"),
    ("GSM {}", "+32 470 55 01 23"),
    ("Tel. {}", "+420 222 555 012"),
    ("Telefon: {}", "+36 1 555 0123"),
    ("Tel: {}", "+30 21 0555 0123"),
    ("Tel {}", "+90 212 555 01 23"),
    ("Phone: {}", "+65 6555 0123"),
    ("Hotline: {}", "+852 2555 0123"),
    ("SMS {}", "+353 20 915 5501"),
    ('phone_number: "{}"', "555-867-5309"),
    ("customer phone => '{}'", "+1-404-555-0167"),
)
IBAN_SENTENCES = (
    "IBAN: {}",
    "Please pay to {} by Friday.",
    "Spendenkonto {} bei der Sparkasse",
    "iban={}",
    "Compte {} (BIC ABCDFRPP)",
    "Überweisung auf\n{}\nVerwendungszweck: Spende",
    '{{"iban": "{}"}}',
    "Conto corrente {}.",
    "To: {}, amount 12.50 EUR",
)
CARD_SENTENCES = (
    "Card {} expires 04/27.",
    "cc={}",
    "Kreditkarte: {}",
    "My number is {} and the code is on the back.",
    '"pan": "{}",',
    "Visa {}\n",
    "Tarjeta {}.",
    "payment with {}, declined",
    "({})",
)
CARDS = (
    "4242 4242 4242 4242",
    "4000056655665556",
    "5555-5555-5555-4444",
    "2223003122003222",
    "5200 8282 8282 8210",
    "5105105105105100",
    "3782 822463 10005",
    "371449635398431",
    "6011 1111 1111 1117",
    "6011000990139424",
    "3056 9309 0259 04",
    "36227206271667",
    "3566002020360505",
    "6200 0000 0000 0005",
    "4111 1111 1111 1111",
    "4012-8888-8888-1881",
    "5431111111111111",
    "3714 496353 98431",
    "3530111333300000",
    "6205500000000000004",
    "4917 6100 0000 0000",
    "4484070000000000",
    "5500 0000 0000 0004",
    "2222 4000 7000 0005",
    "6799990100000000019",
    "4005519200000004",
    "4009348888881881",
    "4012000033330026",
    "4217-6511-1111-1119",
    "4500600000000061",
    "5555341244441115",
    "2223 0000 4840 0011",
    "3787 344936 71000",
    "6011000991300009",
    "3530 1113 3330 0000",
)
SECRET_SENTENCES = (
    "export API={}",
    "The key is {} - do not share it.",
    '"key": "{}",',
    "curl -H 'Authorization: Bearer {}'",
    "# old: {}",
    "--token {}",
    "https://host.mill.org/?t={}",
    "x = '{}'",
    "{}\n",
    "`{}`",
)
LOOK_ALIKES = (
    "Version 1.2.3.4 fixes 10 bugs; upgrade from v2.17.101.22.",
    "See section 4.2.1.3 of the report.",
    "build 10.15.7.21",
    "ISBN 978-3-16-148410-0 and ISBN-10 0-306-40615-2, ISSN 2049-3630",
    "EAN 4006381333931",
    "From 1997-2003 and 2010/2011",
    "2024-02-29 12:30:45, 29.02.2024, 02/29/2024, 20240229T123045Z",
    "It cost $1,250,000.00 or 1.250.000,00 EUR, about £99.99",
    "52.520008, 13.404954 and 48\u00b012'30\"N 16\u00b022'23\"E",
    "id 123e4567-e89b-12d3-a456-426614174000",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "commit 3f5c2a1b9d8e7f60123456789abcdef012345678",
    "integrity sha512-9NET910DNaIPngYnLLPeg+Ogzqsi9uM4mSboU5y6p8S5DzMTVEsJZrawi+BoDNUVBa2DhJqQYUFvMDfgU062LQ==",
    "Order no. 4711-0815-2024 was sent.",
    "Routes 10.0.0.0/8, 172.16.0.0/12, 192.168.1.17 and 127.0.0.1 stay inside.",
    "MAC 00:1B:44:11:3A:B7, time 12:34:56, ratio 16:9:4",
    "fe80::1ff:fe23:4567:890a, ::1, fc00::17, ff02::1, 2001:db8::42",
    "docs use 192.0.2.10, 198.51.100.7 and 203.0.113.99; 255.255.255.0 is a mask, 224.0.0.251 multicast",
    "@millrace and @water_wheel replied",
    "user@host and root@localhost",
    "git clone git@github.com:mill/race.git",
    "@app.route('/x')\ndef f(): ...",
    "a@b if a @ b else matrix@vector",
    "npm install left-pad@1.3.0 react@18.2.0 @types/node@20.1.1",
    "Message-ID: <20240229123045.GA12345@mail.mill.org>",
    "write to someone@example.com or you@mail.example.org",
    "scp user@backup.example.net:/srv/a .",
    "test@server.invalid, a@b.test",
    "https://user:pw@ftp.mill.org/x",
    "icon@2x.png",
    "password = getpass.getpass()",
    "token: str | None = None",
    "secret=os.environ['SECRET']",
    "PASSWORD=changeme",
    "api_key = YOUR_API_KEY",
    'tokenizer = AutoTokenizer("bert-base-uncased")',
    "The secret: 3 eggs, 2 cups of flour",
    'password: "password123"',
    "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK\n-----END PUBLIC KEY-----",
    "startswith('-----BEGIN RSA PRIVATE KEY-----')",
    "sk-learn and hf_hub are names, so is AKIA",
    "AKIAIOSFODNN7EXAMPLE is a sample",
    "1234567890123456 is no card, 4242424242424241 neither",
    "DE00 1234 5678 9012 3456 78 has a wrong checksum",
    "GB29 is a room",
    "3.14159265358979 2.718281828459045",
    "1,234,567,890 people",
    "phone model 3310 of 2000",
    "call f(1, 2, 3)",
    "The telephone was shown in 1876 and 1877-1880.",
    "100-200-300 units; pp. 104-111",
    "-1234567890 + 9876543210 = 8641975320",
    "zip 94129-0244",
    "lot 12-345-678",
    "Tel Aviv 2023-2024",
    "0.30000000000000004",
    "Decimal('+35236450.6')",
    "chapter 12.10.14.16 verse",
    "SELECT 192 . 168",
    "1.2.3.4.5.6",
    "openssl-1.10.12.14.tar.gz",
    "x=0x4111111111111111",
    "© 1999-2013",
)


def documents() -> list[tuple[str, tuple[Span, ...]]]:
    """Return texts with their spans (byte start, byte end, kind), the same in every run."""
    draw = random.Random(6)
    made = [
        *_filled("email", EMAIL_SENTENCES, EMAILS),
        *_filled("ip_address", IP_SENTENCES, IPS),
        *(_with_value("phone_number", sentence, number) for sentence, number in PHONES),
        *_filled("iban", IBAN_SENTENCES, _ibans(draw)),
        *_filled("card_number", CARD_SENTENCES, CARDS),
        *_filled("secret", SECRET_SENTENCES, _keys(draw)),
        *(_with_value("secret", sentence, value) for sentence, value in _assignments(draw)),
    ]
    return made + [(text, ()) for text in LOOK_ALIKES]


def _filled(kind: str, sentences: tuple[str, ...], values: tuple[str, ...] | list[str]) -> list:
    return [_with_value(kind, sentences[place % len(sentences)], value) for place, value in enumerate(values)]


def _with_value(kind: str, sentence: str, value: str) -> tuple[str, tuple[Span, ...]]:
    before, _, after = sentence.partition("{}")
    before, after = before.replace("{{", "{"), after.replace("}}", "}")
    start = len(before.encode())
    return before + value + after, ((start, start + len(value.encode()), kind),)


def _drawn(draw: random.Random, letters: str, num: int) -> str:
    return "".join(draw.choice(letters) for _ in range(num))


def _ibans(draw: random.Random) -> list[str]:
    """Two IBANs of each of 18 countries in changing notation; the account is drawn, the check digits computed."""
    plans = (
        *(
            ("DE", 18, ""),
            ("AT", 16, ""),
            ("CH", 17, ""),
            ("FR", 23, ""),
            ("IT", 22, "X"),
            ("ES", 20, ""),
            ("NL", 10, "BANK"),
        ),
        *(
            ("BE", 12, ""),
            ("GB", 14, "MILL"),
            ("IE", 14, "MILL"),
            ("PL", 24, ""),
            ("SE", 20, ""),
            ("NO", 11, ""),
            ("DK", 14, ""),
        ),
        *(("FI", 14, ""), ("PT", 21, ""), ("LU", 16, ""), ("MT", 23, "MILL")),
    )
    values = []
    for place, (country, digits, bank) in enumerate(plans * 2):
        account = bank + _drawn(draw, string.digits, digits)
        number = int("".join(str(int(letter, 36)) for letter in account + country + "00"))
        whole = f"{country}{98 - number % 97:02d}{account}"
        groups = [whole[start : start + 4] for start in range(0, len(whole), 4)]
        values.append((whole, " ".join(groups), "-".join(groups), whole.lower(), " ".join(groups))[place % 5])
    return values


def _keys(draw: random.Random) -> list[str]:
    """Keys in published formats: prefix and a random rest."""
    plans = (
        *(("AKIA", string.ascii_uppercase + "234567", 16), ("ASIA", string.ascii_uppercase + "234567", 16)),
        *(("ghp_", BASE62, 36), ("gho_", BASE62, 36), ("github_" + "pat_", BASE62, 82), ("gl" + "pat-", BASE64URL, 20)),
        *(
            ("xo" + "xb-", BASE62, 48),
            ("xo" + "xp-", BASE62, 60),
            ("AI" + "za", BASE62, 35),
            ("GOC" + "SPX-", BASE62, 28),
        ),
        *(
            ("sk_" + "live_", BASE62, 24),
            ("rk_" + "live_", BASE62, 24),
            ("sk" + "-", BASE62, 48),
            ("sk-" + "proj-", BASE62, 64),
        ),
        *(
            ("sk-" + "ant-", BASE62, 93),
            ("hf" + "_", string.ascii_letters, 34),
            ("npm" + "_", BASE62, 36),
            ("py" + "pi-AgE", BASE62, 150),
        ),
        *(
            ("S" + "K", HEX, 32),
            ("dop_" + "v1_", HEX, 64),
            ("sh" + "pat_", HEX, 32),
            ("gs" + "k_", BASE62, 52),
            ("da" + "pi", HEX, 32),
        ),
    )
    keys = [prefix + _drawn(draw, letters, num) for prefix, letters, num in plans]
    keys.append("SG" + "." + _drawn(draw, BASE62, 22) + "." + _drawn(draw, BASE62, 43))
    keys.append(
        "eyJ" + _drawn(draw, BASE62, 33) + ".eyJ" + _drawn(draw, BASE62, 60) + "." + _drawn(draw, BASE64URL, 42) + "A"
    )
    for kind in ("RSA ", "", "EC ", "OPENSSH ", "ENCRYPTED "):
        lines = [_drawn(draw, BASE62 + "+/", 64) for _ in range(draw.randrange(3, 20))]
        keys.append("\n".join([f"-----BEGIN {kind}PRIVATE KEY-----", *lines, f"-----END {kind}PRIVATE KEY-----"]))
    return keys


def _assignments(draw: random.Random) -> list[tuple[str, str]]:
    """Random strings given to names of secrets, as code and settings write it."""
    printable = BASE62 + "!#%&*+?^~"
    return [
        ('password = "{}"', _drawn(draw, printable, 16)),
        ("DB_PASSWORD={}\n", _drawn(draw, printable, 20)),
        ("api_key: '{}'", _drawn(draw, BASE62, 32)),
        ('{{"client_secret": "{}"}}', _drawn(draw, BASE62, 40)),
        ("const apiKey = `{}`;", _drawn(draw, BASE62, 39)),
        ("AWS_SECRET_ACCESS_KEY={}\n", _drawn(draw, BASE62 + "+/", 40)),
        ("token: {}", _drawn(draw, HEX, 40)),
        ("secret_key => '{}',", _drawn(draw, BASE62, 50)),
        ("auth_token='{}'", _drawn(draw, HEX, 32)),
        ("AccountKey={}", _drawn(draw, BASE62 + "+/", 86) + "=="),
        ("?access_token={}&v=2", _drawn(draw, BASE62, 43)),
        ('SECRET: "{}"', _drawn(draw, BASE62, 24)),
        ("my password is: set password: {}.", _drawn(draw, BASE62, 14)),
        ("passwd: {}\n", _drawn(draw, printable, 12)),
        ("self.token = b'{}'", _drawn(draw, BASE62, 36)),
        ('ENCRYPTION_KEY = "{}"', _drawn(draw, HEX, 64)),
    ]
