"""The API's document (OpenAPI) as a page to read: without a script, and with nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

Part = Mapping[str, Any]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: the API</title>
<link rel="icon" href="page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="page/reference.css">
</head>
<body>
<h1>{title} {version}</h1>
<p>The same as an OpenAPI document: <a href="openapi.json">openapi.json</a>. To try it: <a href="./">the page</a>.</p>
<nav><ul>{contents}</ul></nav>
{operations}
<h2>Objects</h2>
{objects}
</body>
</html>
"""
_JSON = "application/json"
_CODE = re.compile("`+([^`]+)`+")


def page(document: Part) -> str:
    """HTML in which nothing of the document is markup."""
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return _PAGE.format(
        title=escape(document["info"]["title"]),
        version=escape(document["info"]["version"]),
        contents="".join(_entry(*operation) for operation in operations),
        operations="".join(_section(*operation) for operation in operations),
        objects="".join(map(_object, *zip(*document["components"]["schemas"].items(), strict=True))),
    )


def _entry(method: str, path: str, operation: Part) -> str:
    link = f'<a href="#{_anchor(method, path)}"><code>{method} {escape(path)}</code></a>'
    return f"<li>{link} {_text(operation, 'summary')}</li>"


def _section(method: str, path: str, operation: Part) -> str:
    parameters = [
        (given["name"], f"{given['in']}{', required' if given.get('required') else ''}", given["schema"], given)
        for given in operation.get("parameters", ())
    ]
    answers = "".join(
        f"<tr><td>{escape(status)}</td><td>{_text(answer, 'description')}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    return (
        f'<section id="{_anchor(method, path)}"><h2><code>{method} {escape(path)}</code></h2>'
        f"<p>{_text(operation, 'summary')}. {_text(operation, 'description')}</p>"
        f"{_fields(parameters)}{_body(operation)}<table>{answers}</table></section>\n"
    )


def _body(operation: Part) -> str:
    schema = operation.get("requestBody", {}).get("content", {}).get(_JSON, {}).get("schema")
    if schema is None:
        return ""
    return f"<p>Body: {_type(schema)}</p>{_properties(schema)}"


def _object(name: str, schema: Part) -> str:
    about = _text(schema, "description")
    shown = _properties(schema) if "properties" in schema else f"<p>{_type(schema)}</p>"
    return f'<section id="{escape(name)}"><h3>{escape(name)}</h3><p>{about}</p>{shown}</section>\n'


def _properties(schema: Part) -> str:
    needed = schema.get("required", ())
    return _fields(
        (name, "required" if name in needed else "", field, field)
        for name, field in schema.get("properties", {}).items()
    )


def _fields(rows: Iterable[tuple[str, str, Part, Part]]) -> str:
    """A table of names, what is said of each, its type and its description."""
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{said}</td><td>{_type(schema)}</td>"
        f"<td>{_text(about, 'description')}</td></tr>"
        for name, said, schema, about in rows
    )
    return f"<table>{cells}</table>" if cells else ""


def _type(schema: Part) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    branches: Sequence[Part] = schema.get("anyOf") or schema.get("oneOf") or ()
    if branches:
        return " or ".join(_type(branch) for branch in branches if branch.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "anything")))


def _text(of: Part, name: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(of.get(name, "")))


def _anchor(method: str, path: str) -> str:
    return escape(f"{method}{path.replace('/', '-')}".translate({ord("{"): None, ord("}"): None}).lower())
