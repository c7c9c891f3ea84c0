"""Configuration parameters that a client brings along when it connects."""

from __future__ import annotations

from dsql_server.processor.errors import SqlError
from dsql_server.statements import SqlSyntaxError, classify, is_utf8

#: Names the cluster for clients that reach it by another host name; no parameter of the session.
CLUSTER_ID_OPTION = "amzn-cluster-id"
#: How PostgreSQL spells the names of parameters that it reports.
_REPORTED_NAMES = {name.lower(): name for name in ("DateStyle", "TimeZone", "IntervalStyle", "client_encoding")}


def parse_options(options: str) -> dict[str, str]:
    """``-c name=value`` and ``--name=value`` of the startup packet's ``options``; a backslash escapes a space.

    Raises SqlError for words that are neither.
    """
    found: dict[str, str] = {}
    words = iter(_words(options))
    for word in words:
        if word == "-c":
            assignment = next(words, "")
        elif word.startswith(("-c", "--")):
            assignment = word[2:]
        else:
            assignment = ""
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise SqlError("42601", f'invalid command-line argument for server process: "{word}"', severity="FATAL")
        found[name if name == CLUSTER_ID_OPTION else name.replace("-", "_")] = value
    return found


def _words(options: str) -> list[str]:
    words, word, escaped, inside = [], "", False, False
    for character in options:
        if escaped or not (character.isspace() or character == "\\"):
            word, escaped, inside = word + character, False, True
        elif character == "\\":
            escaped = inside = True
        elif inside:
            words.append(word)
            word, inside = "", False
    return [*words, word] if inside else words


def check_settings(settings: dict[str, str]) -> dict[str, str]:
    """The settings that an engine is given. Raises SqlError for those that no session may have.

    What SET refuses is refused here too.
    """
    kept: dict[str, str] = {}
    for name, value in settings.items():
        name = name.lower()
        if name == "client_encoding":
            if not is_utf8(value):
                raise SqlError("22023", f'invalid value for parameter "client_encoding": "{value}"', severity="FATAL")
            value = "SQL_ASCII" if "ASCII" in value.upper() else "UTF8"
        quoted = name.replace('"', '""')
        literal = value.replace("'", "''")
        try:
            (statement,) = classify(f"SET \"{quoted}\" TO '{literal}'")
        except (SqlSyntaxError, ValueError):
            raise SqlError("42704", f'unrecognized configuration parameter "{name}"', severity="FATAL") from None
        for refusal in statement.refusals:
            raise SqlError(
                refusal.sqlstate, refusal.message, detail=refusal.detail, hint=refusal.hint, severity="FATAL"
            )
        if statement.engine_sql:
            kept[name] = value
    return kept


def needs_lookup(settings: dict[str, str]) -> dict[str, str]:
    """Those settings whose values only an engine can judge and spell as PostgreSQL reports them."""
    return {
        name: value
        for name, value in settings.items()
        if name != "client_encoding" and not (name == "application_name" and value.isascii() and value.isprintable())
    }


def reported(settings: dict[str, str]) -> dict[str, str]:
    """What ParameterStatus messages say of ``settings``, under PostgreSQL's spelling of the names."""
    found = {_REPORTED_NAMES[name]: value for name, value in settings.items() if name in _REPORTED_NAMES}
    if "application_name" in settings:
        found["application_name"] = settings["application_name"]
    return found
