"""Reading connection strings: URLs, ``key=value`` strings, a bare host, a bare cluster id."""

from __future__ import annotations

from urllib.parse import unquote

from dsql_connectors.core.errors import ConninfoError

#: What may stand before ``//``. The last two are those of the JDBC connector without ``jdbc:``, and libpq's short one.
URL_SCHEMES = ("aws-dsql", "postgresql", "aws-dsql:postgresql", "postgres")

_EXAMPLE = "aws-dsql://admin@<cluster endpoint>/postgres?region=us-east-1"


def parse_conninfo(conninfo: str) -> dict[str, str]:
    """The parameters that a connection string gives, percent-decoded, under the names that it uses.

    Accepted are ``aws-dsql://user@host:port/dbname?name=value``, the same after ``aws-dsql:postgresql://``,
    ``postgresql://`` and ``postgres://``; ``name=value name='quoted value'``; a bare host with or without a port; a
    bare cluster id; the empty string, which gives nothing.

    :raises ConninfoError: if it can't be read. The message doesn't repeat the string, which may hold a password.
    """
    text = conninfo.strip()
    if not text:
        return {}
    scheme, separator, rest = text.partition("://")
    if separator and "=" not in scheme and not any(character.isspace() for character in scheme):
        if scheme.lower() not in URL_SCHEMES:
            remedy = "leave out the leading 'jdbc:'" if scheme.lower().startswith("jdbc:") else f"write {_EXAMPLE}"
            raise ConninfoError(f"unknown URL scheme {scheme + '://'!r}; {remedy}")
        return _parse_url(rest)
    if "=" in text:
        return _parse_keywords(text)
    host, port = _split_host(text)
    return _without_empty(host=host, port=port)


def _parse_url(rest: str) -> dict[str, str]:
    rest, _, _fragment = rest.partition("#")
    location, _, query = rest.partition("?")
    authority, _, path = location.partition("/")
    userinfo, _, hostport = authority.rpartition("@")
    user, _, password = userinfo.partition(":")
    if "/" in path:
        raise ConninfoError(f"the URL's path must be one database name, as in {_EXAMPLE}")
    host, port = _split_host(hostport)
    found = _without_empty(
        user=_decode(user, "user"),
        password=_decode(password, "password"),
        host=_decode(host, "host"),
        port=port,
        dbname=_decode(path, "database name"),
    )
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.partition("=")
        name = _decode(name, "parameter name")
        if not equals:
            raise ConninfoError(f"URL parameter {name!r} has no value; write {name}=<value>")
        if name in found:
            raise ConninfoError(f"the URL gives {name!r} twice; keep one")
        found[name] = _decode(value, name)
    return found


def _split_host(hostport: str) -> tuple[str, str]:
    """Host and port (empty if not given); an IPv6 address stands in brackets."""
    if "," in hostport:
        raise ConninfoError("several hosts in one connection string: a token is signed for one cluster; give one host")
    if hostport.startswith("["):
        host, bracket, after = hostport[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise ConninfoError("the IPv6 address in the connection string lacks its closing bracket: [::1]:5432")
        port = after[1:]
    elif hostport.count(":") > 1:
        raise ConninfoError("more than one ':' after the host; put an IPv6 address in brackets: [::1]:5432")
    else:
        host, _, port = hostport.partition(":")
    if any(character.isspace() for character in host):
        raise ConninfoError(f"not a host name: {host!r}; a connection string is a URL such as {_EXAMPLE}")
    return host, port


def _decode(text: str, place: str) -> str:
    if "%" not in text:
        return text
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ConninfoError(f"the {place} in the URL is not percent-encoded UTF-8") from None
    if "\0" in decoded:
        raise ConninfoError(f"the {place} in the URL holds a zero byte (%00)")
    return decoded


def _parse_keywords(text: str) -> dict[str, str]:
    """libpq's ``name=value`` grammar: blanks around ``=``, single quotes, backslash escapes."""
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        equals = text.find("=", position)
        name = text[position:equals].strip() if equals >= 0 else ""
        if not name or any(character.isspace() for character in name):
            words = text[position:].split()
            raise ConninfoError(f"missing '=' after {words[0]!r} in the connection string (name=value name=value …)")
        position = equals + 1
        while position < len(text) and text[position].isspace():
            position += 1
        value, position = _keyword_value(text, position)
        found[name] = value
    return _without_empty(**found)


def _keyword_value(text: str, position: int) -> tuple[str, int]:
    quoted = position < len(text) and text[position] == "'"
    position += quoted
    characters: list[str] = []
    while position < len(text):
        character = text[position]
        if character == "\\" and position + 1 < len(text):
            position += 1
            character = text[position]
        elif quoted and character == "'":
            return "".join(characters), position + 1
        elif not quoted and character.isspace():
            break
        characters.append(character)
        position += 1
    if quoted:
        raise ConninfoError("unterminated quoted value in the connection string")
    return "".join(characters), position


def _without_empty(**parameters: str) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if value}
