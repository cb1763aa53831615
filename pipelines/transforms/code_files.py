"""What the path of a source file says about it: groups of languages, and files that nobody wrote by hand.

The language of a file is known by the extension of its path alone (`origin_path` of a document). `GROUPS` holds the
extensions of those languages that a rule of `code_quality` asks about, under the names that GitHub's linguist gives
the languages. Lists of paths are regular expressions for RE2, which takes linear time on any path; they are matched by
Arrow for the whole column.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.transforms.code_comments import EXTENSIONS

MARKUP = "html", "htm", "xht", "xhtml"
JSON_YAML = "json", "geojson", "topojson", "jsonl", "webmanifest", "yaml", "yml"
TEXT = ("txt",)
XML = (
    *("xml", "xsd", "xsl", "xslt", "svg", "rss", "plist", "xaml", "xmi", "wsdl", "rdf", "kml", "gml", "gpx", "tei"),
    *("csproj", "vbproj", "vcxproj", "fsproj", "resx", "storyboard", "xib", "pom", "ui", "qrc", "dtml", "launch"),
)

GROUPS: dict[str, tuple[str, ...]] = {
    "html": MARKUP,
    "xml": (*XML, "xht", "xhtml"),
    "json_yaml": JSON_YAML,
    "text": TEXT,
    "many_lines": (*TEXT, *JSON_YAML, "owl", "dot", "gv"),
    "long_lines": (
        *(*MARKUP, *TEXT, *XML, "json", "geojson", "topojson", "jsonl", "webmanifest"),
        *("md", "markdown", "mdown", "mkd", "mkdn", "roff", "man", "mdoc", "nr", "smt", "smt2"),
        *("1", "2", "3", "4", "5", "6", "7", "8", "9", "1m", "3m", "1x", "3x", "3pm", "3in", "3qt"),
        *("tex", "ltx", "latex", "sty", "bib", "dtx"),
    ),
    "digits": ("x68", "wat", "wast"),
    "notebook": ("ipynb",),
    "commented": EXTENSIONS,
    "script": ("js", "mjs", "cjs", "css"),
    "data": (
        *("csv", "tsv", "psv", "dat", "arff", "libsvm", "svm", "parquet", "npy", "npz", "pkl", "pickle", "h5", "hdf5"),
        *("fasta", "fa", "fastq", "fq", "sam", "vcf", "pdb", "cif", "mol", "sdf", "xyz", "obj", "stl", "ply", "off"),
        *("srt", "vtt", "lrc", "log", "out", "dump", "ics", "pem", "crt", "cer", "asc", "sum", "sha256", "md5"),
        *("po", "pot", "xlf", "xliff", "snap", "tfstate", "har", "map", "pgm", "ppm", "pbm", "xpm", "eps"),
    ),
}
"""Extensions, in lower case and without the dot, of each group.

- html: HTML, whose visible text is measured.
- xml: XML and what is written in it: an XML declaration is in its place there.
- json_yaml, text, many_lines (Text, JSON, YAML, Web Ontology Language, Graphviz), long_lines (HTML, JSON, Markdown,
  Roff, SMT, TeX, Text, XML) and digits (Motorola 68K Assembly, WebAssembly) are the groups of the Stack v2 (arXiv
  2402.19173, section 2.1), with the extensions that are theirs alone.
- commented: languages whose comments can be counted.
- notebook: Jupyter; script: JavaScript and CSS, which are compiled and minified.
- data: tables, molecules, meshes, logs, certificates, catalogues of translations: no code, our own list.
"""

TEXT_NAMES = r"(?i)(?:requirement[^/]*|(?:^|/)(?:readme|notes|todo|description|cmakelists))\.txt$"
"""Of Text, the Stack v2 kept these: "requirement" in the name, or one of five names."""

VENDORED = (
    r"(?:^|/)(?:node_modules|bower_components|jspm_packages|_?vendor(?:ed|s)?|third[-_]?party|3rd[-_]?party"
    r"|Godeps|Pods|Carthage|site-packages|dist-packages|dist|\.yarn|\.bundle|\.venv|virtualenv)/"
    r"|(?:^|/)(?:jquery|bootstrap|angular|modernizr|d3|three|moment|underscore|prototype|mootools|raphael)"
    r"(?:[-.]\d[^/]*)?(?:\.slim|\.bundle)?\.(?:js|css)$"
    r"|(?:^|/)(?:gradlew|gradlew\.bat|mvnw|mvnw\.cmd|configure|config\.guess|config\.sub|ltmain\.sh|libtool\.m4"
    r"|install-sh|missing|depcomp|aclocal\.m4|ppport\.h)$"
)
"""Copies of what others wrote: folders of dependencies, well-known libraries, what build tools put beside the code.

A selection of linguist's vendor.yml, with Python's `_vendor` and build output in `dist/`.
"""

GENERATED = (
    r"(?:^|/)(?:package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|bun\.lock|deno\.lock|composer\.lock"
    r"|Cargo\.lock|Pipfile\.lock|poetry\.lock|pdm\.lock|uv\.lock|Gemfile\.lock|Podfile\.lock|Gopkg\.lock|glide\.lock"
    r"|go\.sum|flake\.lock|(?:\w+\.)?esy\.lock|mix\.lock|pubspec\.lock|\.pnp\.[^/]*|\.terraform\.lock\.hcl)$"
    r"|(?:^|/)(?:__generated__|__snapshots__|Carthage/Build)/"
    r"|(?i:\.designer\.(?:cs|vb))$|\.feature\.cs$|\.g\.(?:cs|dart)$|\.freezed\.dart$|\.zep\.(?:c|h|php)$"
    r"|\.pb(?:\.gw)?\.(?:go|cc|h|swift|dart)$|_pb2(?:_grpc)?\.pyi?$|_grpc\.pb\.go$|_pb\.(?:js|d\.ts)$"
    r"|\.(?:js|mjs|css)\.map$|\.(?:nib|xcworkspacedata|xcuserstate)$"
)
"""Lock files, compilers' output, snapshots: those that go-enry's `is_generated` knows by name, and later ones like
them."""

MINIFIED = r"[-._]min\.(?:js|mjs|cjs|css|html?)$|\.(?:bundle|chunk|packed)\.(?:js|css)$"
"""JavaScript and CSS written for machines."""


def extensions(paths: pa.Array) -> pa.Array:
    """Return the extension of every path (string, lower case, no dot); "" where there is none or the path is null."""
    found = pc.struct_field(pc.extract_regex(paths, r"[^/]\.(?P<extension>[^./]*)$"), "extension")
    return pc.utf8_lower(found.fill_null(""))


def in_group(extension: pa.Array, group: str) -> pa.Array:
    """Return which of the extensions belong to a group of `GROUPS`, boolean."""
    return pc.is_in(extension, pa.array(GROUPS[group], pa.string()))


def matched(paths: pa.Array, pattern: str) -> pa.Array:
    """Return which paths one of the patterns above is about, boolean; a null path is none."""
    return pc.match_substring_regex(paths, pattern).fill_null(False)
