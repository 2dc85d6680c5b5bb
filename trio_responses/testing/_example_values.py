"""Example values for JSON schemas: the arguments and the structured texts of default answers.

The same schema and words always give the same value. The value fits the schema, except for a
pattern that none of a few common texts matches, and for a schema that no finite value fits.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from trio_responses.testing._frames import Json
from trio_responses.testing._pattern_examples import pattern_examples

_MAX_DEPTH: Final = 8
_PREFERS_NULL: Final = 3
"""Below this depth, an optional value is null, so that recursive schemas give short values."""
_OPTIONS: Final = ("anyOf", "oneOf")
_FORMATS: Final[Mapping[str, str]] = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "decimal": "1.5",
    "duration": "P1D",
    "email": "user@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "time": "00:00:00Z",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_BASE64: Final = "AAAA"
_NEW_KEY: Final = "key"
_ORDER: Final = re.compile(r"\border: (\[[^\]]*\])")
_CONDITION: Final = re.compile(
    r'\b(?:(minLength|maxLength): (\d+)|(format|contentEncoding): "([\w-]+)")'
)
_COMMON_TEXTS: Final = ("1", "0.5", "12345", "a", "A", "aaa", "AAA", "A1", *_FORMATS.values())
"""Texts to try for a pattern."""


class _TooDeepError(Exception):
    """A schema asks for values inside values without an end."""


def make_example(schema: Json, words: Iterator[str], name: str) -> Any:
    """Return a value that fits a schema.

    :param words: The texts for strings, in order; when none is left, the name of the property.
    :param name: The name of the value.
    """
    try:
        return _ExampleMaker(schema, words).make(schema, name, 0)
    except _TooDeepError:
        return _ExampleMaker(schema, words, cut=True).make(schema, name, 0)


class _ExampleMaker:
    """A generator of example values for one JSON schema.

    :param cut: Whether values that are nested too deeply are null, in place of an error.
    """

    def __init__(self, root: Json, words: Iterator[str], *, cut: bool = False) -> None:
        self._root = root
        self._words = words
        self._cut = cut

    def make(self, schema: Any, name: str, depth: int) -> Any:
        """Return a value that fits ``schema``, the schema of the property ``name``.

        :raises _TooDeepError: If the value would be nested without an end.
        """
        if not isinstance(schema, dict):
            return None
        if depth > _MAX_DEPTH:
            if self._cut:
                return None
            raise _TooDeepError
        resolved = self._resolve(cast("Json", schema))
        for fixed in ("const", "default"):
            if fixed in resolved:
                return resolved[fixed]
        if "enum" in resolved:
            values: list[Any] = resolved["enum"]
            return next((value for value in values if value is not None), None)
        for key in _OPTIONS:
            if key in resolved:
                return self._make_option(resolved, key, name, depth)
        return self._make_plain(resolved, name, depth)

    def _resolve(self, schema: Json) -> Json:
        """Return a schema without a reference and without ``allOf``."""
        for _ in range(_MAX_DEPTH):
            reference = schema.get("$ref")
            if isinstance(reference, str):
                others = {key: value for key, value in schema.items() if key != "$ref"}
                schema = {**self._find(reference), **others}
            elif "allOf" in schema:
                parts: list[Json] = schema["allOf"]
                schema = {key: value for key, value in schema.items() if key != "allOf"}
                for part in parts:
                    schema = _merge(schema, self._resolve(part))
            else:
                break
        return schema

    def _find(self, reference: str) -> Json:
        target: Any = self._root
        for key in reference.removeprefix("#").strip("/").split("/"):
            target = target.get(key.replace("~1", "/").replace("~0", "~"), {}) if key else target
        return cast("Json", target)

    def _make_option(self, schema: Json, key: str, name: str, depth: int) -> Any:
        options: list[Json] = schema[key]
        others = {name: value for name, value in schema.items() if name != key}
        prefers_null = depth > _PREFERS_NULL
        ordered = sorted(options, key=lambda one: (one.get("type") == "null") != prefers_null)
        for number, option in enumerate(ordered):
            try:
                return self.make(_merge(others, option), name, depth + 1)
            except _TooDeepError:
                if number == len(ordered) - 1:
                    raise
        return None

    def _make_plain(self, schema: Json, name: str, depth: int) -> Any:
        match _type_of(schema):
            case "object":
                wanted = _wanted_keys(schema)
                return {key: self.make(_value_of(schema, key), key, depth + 1) for key in wanted}
            case "array":
                return self._make_array(schema, name, depth)
            case "string":
                return self._make_text(schema, name)
            case "boolean":
                return True
            case "null":
                return None
            case kind:
                return _make_number(schema, is_integer=kind == "integer")

    def _make_array(self, schema: Json, name: str, depth: int) -> list[Any]:
        first: list[Any] = schema.get("prefixItems", [])
        rest: Any = schema.get("items", {})
        least: int = schema.get("minItems", 0)
        size = min(max(least, len(first), 1), schema.get("maxItems", math.inf))
        kinds = [*first, *[rest] * (size - len(first))][:size]
        if kinds and isinstance(schema.get("contains"), dict):
            kinds[0] = {"allOf": [kinds[0] or {}, schema["contains"]]}
        for index, kind in enumerate(_described_order(schema)[: len(kinds)]):
            kinds[index] = _option_of_type(kinds[index], kind)
        made: list[Any] = []
        try:
            for kind in kinds:
                value = self.make(kind, name, depth + 1)
                if schema.get("uniqueItems") and value in made:
                    value = next(self._others(kind, value, made), value)
                made.append(value)
        except _TooDeepError:
            if least:
                raise
            return []
        return made

    def _others(self, schema: Any, value: Any, made: list[Any]) -> Iterator[Any]:
        """Yield values of the same schema that an array does not have yet."""
        resolved = self._resolve(cast("Json", schema)) if isinstance(schema, dict) else {}
        candidates: list[Any] = resolved.get("enum", [value] if "const" in resolved else [])
        if not candidates and isinstance(value, str):
            candidates = [f"{value}{number}" for number in range(2, len(made) + 2)]
        elif not candidates and isinstance(value, int | float):
            step = resolved.get("multipleOf", 1)
            candidates = [value + step * number for number in range(1, len(made) + 1)]
        return (one for one in candidates if one not in made)

    def _make_text(self, schema: Json, name: str) -> str:
        schema = {**_described_conditions(schema), **schema}
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        if schema.get("contentEncoding") == "base64":
            return _BASE64
        least: int = schema.get("minLength", 0)
        text = next(self._words, name).ljust(least, "x")[: schema.get("maxLength")]
        if "pattern" not in schema:
            return text
        examples = pattern_examples(schema["pattern"], least)
        candidates = itertools.chain((text,), _COMMON_TEXTS, examples)
        return next((each for each in candidates if _fits_pattern(schema, each)), text)


def _wanted_keys(schema: Json) -> list[str]:
    """Return the keys of an object: the required ones, and as many more as it needs."""
    properties: Json = schema.get("properties") or {}
    wanted: list[str] = list(schema.get("required", properties))
    free = (f"{_NEW_KEY}{number}" for number in itertools.count(1))
    more = (key for key in itertools.chain(properties, free) if key not in wanted)
    missing = schema.get("minProperties", 0) - len(wanted)
    return [*wanted, *itertools.islice(more, max(missing, 0))]


def _value_of(schema: Json, key: str) -> Any:
    """Return the schema of a property, which may be one for any name, or for names of a form."""
    properties: Json = schema.get("properties") or {}
    if key in properties:
        return properties[key]
    forms: Json = schema.get("patternProperties") or {}
    others = schema.get("additionalProperties")
    return next((one for form, one in forms.items() if re.search(form, key)), others)


def _described_order(schema: Json) -> list[str]:
    """Return the types of a tuple: strict schemas have their order only in the description."""
    found = _ORDER.search(str(schema.get("description", "")))
    return re.findall(r"\w+", found[1]) if found else []


def _option_of_type(schema: Any, kind: str) -> Any:
    """Return the option of a type, where a schema has options; else the schema."""
    options: list[Json] = cast("Json", schema).get("anyOf", []) if isinstance(schema, dict) else []
    return next((one for one in options if one.get("type") == kind), cast("Any", schema))


def _described_conditions(schema: Json) -> Json:
    """Return the conditions in a description: strict schemas have some of them only there."""
    conditions: Json = {}
    for length, number, key, text in _CONDITION.findall(str(schema.get("description", ""))):
        conditions |= {length: int(number)} if length else {key: text}
    return conditions


def _fits_pattern(schema: Json, text: str) -> bool:
    try:
        found = re.search(schema["pattern"], text)
    except (re.error, RecursionError):
        return False  # a pattern of another dialect, or nested too deeply
    longest: float = schema.get("maxLength", math.inf)
    return found is not None and schema.get("minLength", 0) <= len(text) <= longest


def _merge(schema: Json, other: Json) -> Json:
    """Return a schema with the conditions of both; the second one takes precedence."""
    merged = {**schema, **other}
    if "properties" in schema and "properties" in other:
        merged["properties"] = {**schema["properties"], **other["properties"]}
    if "required" in schema and "required" in other:
        merged["required"] = list(dict.fromkeys([*schema["required"], *other["required"]]))
    return merged


def _make_number(schema: Json, *, is_integer: bool) -> float:
    low: float = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    high: float = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    step: float = schema.get("multipleOf", 1 if is_integer else 0)
    value: float = 1 if low <= 1 <= high else (low if low > 1 else high)
    if step:
        value = math.ceil(value / step) * step
        value = value if value <= high else math.floor(high / step) * step
    if value == schema.get("exclusiveMinimum"):
        value = value + step if step else (value + min(high, value + 2)) / 2
    elif value == schema.get("exclusiveMaximum"):
        value = value - step if step else (value + max(low, value - 2)) / 2
    return int(value) if is_integer else value


def _type_of(schema: Json) -> str:
    kind: Any = schema.get("type")
    if isinstance(kind, list):
        kinds = cast("list[str]", kind)
        return next((name for name in kinds if name != "null"), "null")
    return kind or ("object" if "properties" in schema else "string")
