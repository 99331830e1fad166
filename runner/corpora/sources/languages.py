"""The language of a file by its name, as Pygments knows them, and which languages are data or prose."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import PurePath

from mixlaw.errors import InputError

#: Suffixes that Pygments gives to several languages, and the language of nearly all such files.
USUAL = {
    **{".pl": "perl", ".pm": "perl", ".t": "perl", ".r": "r", ".sql": "sql", ".fs": "fsharp", ".m": "objective-c"},
    **{".h": "c", ".v": "verilog", ".inc": "php", ".cls": "tex", ".md": "markdown", ".cl": "opencl"},
}

#: Languages that are data or prose, by Pygments' names: not code unless requested, as on GitHub, whose
#: statistics of languages leave both out.
NO_CODE = {
    *("JSON", "JSON-LD", "JSON5", "JSONBareObject", "YAML", "TOML", "INI", "XML", "Properties", "Gettext Catalog"),
    *("Diff", "Darcs Patch", "Text only", "Markdown", "reStructuredText", "Text output", "MIME", "Debian Control file"),
    *("Tera Term macro", "Desktop file", "E-mail", "LDIF", "Tap", "NumPy", "HTTP", "Debian Sourcelist", "Org Mode"),
}


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    """File names and patterns that Pygments knows whole, such as Makefile, in lower case."""
    from pygments.lexers import get_all_lexers

    patterns = {pattern.lower() for _, _, names, _ in get_all_lexers(plugins=False) for pattern in names}
    return frozenset(pattern for pattern in patterns if not pattern.startswith("*"))


def language(name: str) -> str | None:
    """Pygments' name of the language of a file, None where it knows none."""
    path = PurePath(name)
    if path.name.lower() in _names():
        return _by_name(path.name)
    return _by_suffix(path.suffix.lower()) if path.suffix else None


@lru_cache(maxsize=4096)
def _by_suffix(suffix: str) -> str | None:
    from pygments.lexers import find_lexer_class_by_name

    if suffix in USUAL:
        return str(find_lexer_class_by_name(USUAL[suffix]).name)
    return _by_name(f"x{suffix}")


@lru_cache(maxsize=4096)
def _by_name(name: str) -> str | None:
    from pygments.lexers import find_lexer_class_for_filename

    lexer = find_lexer_class_for_filename(name)
    return None if lexer is None else str(lexer.name)


def named_languages(aliases: Iterable[str], source: str) -> frozenset[str]:
    """Pygments' names of languages given by any of their aliases.

    Raises:
        InputError: one is unknown.
    """
    from pygments.lexers import find_lexer_class_by_name
    from pygments.util import ClassNotFound

    names = set()
    for alias in aliases:
        try:
            names.add(str(find_lexer_class_by_name(alias).name))
        except ClassNotFound as error:
            raise InputError(
                f"{source!r} asks for the unknown language {alias!r}: write python, cpp, javascript, ...; "
                "`pygmentize -L lexers` lists all"
            ) from error
    return frozenset(names)


#: Third-party files, by their folder or name.
VENDORED = re.compile(
    r"(^|/)(node_modules|bower_components|vendors?|_vendor|third[_-]?party|3rd[_-]?party|externals?|site-packages|"
    r"dist-packages|__pycache__|Godeps|Carthage|Pods|jspm_packages|\.[^/]+)/|"
    r"(^|/)(jquery|bootstrap|modernizr|angular|react|d3|require)[^/]*\.(js|css)$|"
    r"(^|/)(gradlew|mvnw)(\.bat|\.cmd)?$|(^|/)(configure|config\.(guess|sub)|aclocal\.m4|ltmain\.sh)$",
    re.IGNORECASE,
)

#: Files that programs write, by name: lock files, minified code, compilers of interfaces, form designers.
WRITTEN = re.compile(
    r"(^|/)([^/]*\.lock|package-lock\.json|npm-shrinkwrap\.json|pnpm-lock\.yaml|go\.sum)$|"
    r"[.-]min\.(js|css)$|\.(js|css|ts)\.map$|\.bundle\.js$|"
    r"(_pb2(_grpc)?\.pyi?|\.pb\.(go|cc|h|swift)|\.pb-c\.[ch]|_pb\.(js|rb)|\.g\.dart|\.freezed\.dart|"
    r"\.designer\.(cs|vb)|\.g\.(cs|i\.cs)|_generated\.(go|h|rs)|\.generated\.(cs|ts|js)|bindata\.go)$",
    re.IGNORECASE,
)
