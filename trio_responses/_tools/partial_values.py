"""Partial values: objects of a type, made of JSON that is still being written.

A *shape* knows how the values of one type are made. `shape_of` derives it from an annotation, so
that classes of msgspec, the standard library, attrs and pydantic may contain one another:

* An object of a class is made without validation: no ``__post_init__``, validator or converter
  runs, and no default applies. A field that is not written, or whose JSON does not fit, is `None`.
  A `TypedDict` lacks the key.
* A ``str`` grows. Any other value that JSON writes as one string, number or word, such as a date or
  a member of an enumeration, is decoded when it is finished, as ``parse()`` decodes it.
* Of a union, the value has the one type that its JSON can still belong to. Until a tag, a literal
  or the keys tell, the value is the plain data.

`PartialValue` keeps what it has made of the finished values in objects and arrays that are open. So
a partial value costs time for the new text, and a copy of each open object and array. The finished
values are shared by the partial values that follow.

Fast parsers that read the whole prefix at each delta need quadratic time. Seconds of CPU for a list
of Structs, with a value for every 4 characters (CPython 3.11; jiter 0.19 with
``partial_mode="trailing-strings"`` and msgspec 0.22 on whole JSON of the size of the prefix; the
last line of both from a sample of the prefixes):

==========  ==============  ======  =======
text        `PartialValue`  jiter   msgspec
==========  ==============  ======  =======
1 KB        0.002           0.001   0.001
10 KB       0.015           0.035   0.020
100 KB      0.19            4.5     4.5
1 MB        3.0             over 5 minutes
==========  ==============  ===============
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections import abc
from copy import deepcopy
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec

from trio_responses._errors import ResponsesError
from trio_responses._json_types.json_type import JSONType
from trio_responses._protocol.partial_json import OpenObject, PartialJSON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from trio_responses._protocol.partial_json import OpenArray

__all__ = ["PartialValue"]

UNSET: Final = msgspec.UNSET


class PartialValue:
    """A value of a type that is made of JSON while the JSON is being written.

    :param annotation: the type.
    :param wrapped: whether the JSON is ``{"value": ...}``.
    """

    def __init__(self, annotation: Any, *, wrapped: bool = False) -> None:
        self._json = PartialJSON()
        self._shape = _root_shape(annotation, wrapped=wrapped)
        self._levels: list[_Level] = []

    def feed(self, text: str) -> Any:
        """Read the next piece of the JSON, and return the value so far.

        :return: ``UNSET`` if the piece has added no data, or if there is no value yet.
        :raises ValueError: for a text that is not JSON; no further piece can be read.
        :raises RecursionError: for too many levels of nesting, likewise.
        """
        return self._value() if self._json.feed(text) else UNSET

    def _value(self) -> Any:
        """Return the value so far."""
        sources = self._json.levels
        same = 0
        for level, source in zip(self._levels, sources, strict=False):
            if level.source is not source:
                break
            same += 1
        closed = {id(level.source.data): level for level in self._levels[same:]}
        del self._levels[same:]
        shape = self._shape
        for depth, source in enumerate(sources):
            if depth == len(self._levels):
                self._levels.append(_Level(source, shape.container(source.data)))
            elif self._levels[depth].shape is PLAIN:  # the class may be known by now
                container = shape.container(source.data)
                if container is not PLAIN:
                    self._levels[depth] = _Level(source, container)
            level = self._levels[depth]
            level.take_finished(closed)
            shape = level.shape.child(level.open_key)
        if self._json.root is not UNSET:
            return _finished(shape, self._json.root, closed)
        text = self._json.text
        value = UNSET if text is None else shape.unfinished_text(text)
        for level in reversed(self._levels):
            value = level.make(value)
        return value


class _Level:
    """An object or array that is open, with the values that were made of its finished ones."""

    __slots__ = ("_count", "_made", "shape", "source")

    def __init__(self, source: OpenObject | OpenArray, shape: Shape) -> None:
        self.source = source
        self.shape = shape
        self._made: Any = {} if isinstance(source, OpenObject) else []
        self._count = 0
        """The number of finished values that were taken."""

    @property
    def open_key(self) -> str | int:
        """The key or index of the value that is being read."""
        source = self.source
        return source.key if isinstance(source, OpenObject) else len(source.data)

    def take_finished(self, closed: Mapping[int, _Level]) -> None:
        """Make the values of those that have been finished since the last call."""
        source, made, shape = self.source, self._made, self.shape
        if isinstance(source, OpenObject):
            for key in source.keys[self._count :]:
                made[key] = _finished(shape.child(key), source.data[key], closed)
            self._count = len(source.keys)
        else:
            for index in range(self._count, len(source.data)):
                made.append(_finished(shape.child(index), source.data[index], closed))
            self._count = len(source.data)

    def make(self, unfinished: Any = UNSET) -> Any:
        """Return the value of the level, with the value that is being read, if there is one."""
        made = self._made.copy()
        if unfinished is not UNSET and isinstance(self.source, OpenObject):
            made[self.source.key] = unfinished
        elif unfinished is not UNSET:
            made.append(unfinished)
        return self.shape.make(made)


def _finished(shape: Shape, data: Any, closed: Mapping[int, _Level]) -> Any:
    """Return the value of finished data.

    :param closed: levels that were open before, by the identity of their data. What was made of
        their values is used again.
    """
    if not issubclass(type(data), dict | list):
        return shape.scalar(data)
    level = closed.get(id(data))
    if level is not None and level.shape is not PLAIN:
        level.take_finished(closed)
        return level.make()
    container = shape.container(data)
    if container is PLAIN:
        return data
    if issubclass(type(data), dict):
        return container.make(
            {key: _finished(container.child(key), one, closed) for key, one in data.items()}
        )
    return container.make(
        [_finished(container.child(index), one, closed) for index, one in enumerate(data)]
    )


# --- Shapes --------------------------------------------------------------------------------


class Shape:
    """How the values of one type are made. The class itself is the shape that nothing fits."""

    def unfinished_text(self, text: str) -> Any:  # noqa: ARG002 - subclasses use it
        """Return the value for a string that is being read; ``UNSET`` if there is none yet."""
        return UNSET

    def scalar(self, value: Any) -> Any:  # noqa: ARG002 - likewise
        """Return the value for a finished string, number, boolean or `None`."""
        return None

    def container(self, data: Any) -> Shape:  # noqa: ARG002 - likewise
        """Return the shape of an object or array, whose finished values are given as data."""
        return NOTHING

    def child(self, key: str | int) -> Shape:  # noqa: ARG002 - likewise
        """Return the shape of the value at a key or an index."""
        return NOTHING

    def make(self, children: Any) -> Any:  # noqa: ARG002 - likewise
        """Return the value for the values of the children: a new dict or list."""
        return None

    def admits(self, data: Mapping[str, Any]) -> bool:  # noqa: ARG002 - likewise
        """Whether an object with these finished values may be one of the type."""
        return True


class _Plain(Shape):
    """The shape of any value: the data itself."""

    def unfinished_text(self, text: str) -> Any:
        return text

    def scalar(self, value: Any) -> Any:
        return value

    def container(self, data: Any) -> Shape:  # noqa: ARG002 - the base class
        return self

    def child(self, key: str | int) -> Shape:  # noqa: ARG002 - the base class
        return self

    def make(self, children: Any) -> Any:
        return children


NOTHING: Final = Shape()
PLAIN: Final = _Plain()


class _Text(Shape):
    """The shape of a ``str``, which grows."""

    def unfinished_text(self, text: str) -> Any:
        return text

    def scalar(self, value: Any) -> Any:
        return value if isinstance(value, str) else None


class _Scalar(Shape):
    """The shape of another type that JSON writes as a string, a number or a word."""

    def __init__(self, annotation: Any) -> None:
        self._annotation = annotation

    @cached_property
    def _type(self) -> JSONType[Any] | None:
        try:
            return JSONType[Any](self._annotation)
        except ResponsesError:  # a part of a type that has a decoder as a whole only
            return None

    def scalar(self, value: Any) -> Any:
        if type(value) is self._annotation:
            return value
        if self._type is None:
            return None
        try:
            return self._type.decode(
                msgspec.json.encode({"value": value} if self._type.wrapped else value)
            )
        except ResponsesError:
            return None


class _Object(Shape):
    """The shape of an object with known keys.

    :param fields: the name of the field and its annotation, by key.
    :param build: makes the object of the values of its fields, by name; fields may be missing.
    :param constants: the only values that a key may have, for the keys that have such values.
    """

    def __init__(
        self,
        fields: Mapping[str, tuple[str, Any]],
        build: Callable[[dict[str, Any]], Any],
        constants: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        self._fields = fields
        self._build = build
        self._constants = {**_constants(fields), **(constants or {})}
        self._shapes: dict[str | int, Shape] = {}

    def container(self, data: Any) -> Shape:
        return self if isinstance(data, dict) else NOTHING

    def child(self, key: str | int) -> Shape:
        shape = self._shapes.get(key)
        if shape is None and key in self._fields:  # now, and not before: a class may have itself
            shape = self._shapes[key] = shape_of(self._fields[str(key)][1])
        return shape or NOTHING

    def make(self, children: Any) -> Any:
        fields = self._fields
        return self._build({fields[key][0]: children[key] for key in children if key in fields})

    def admits(self, data: Mapping[str, Any]) -> bool:
        return all(
            value in self._constants[key] if key in self._constants else key in self._fields
            for key, value in data.items()
        )


class _Mapping(Shape):
    """The shape of an object with any keys."""

    def __init__(self, key: Any, value: Any) -> None:
        self._key = key
        self._value = value

    @cached_property
    def _shape(self) -> Shape:
        return shape_of(self._value)

    def container(self, data: Any) -> Shape:
        return self if isinstance(data, dict) else NOTHING

    def child(self, key: str | int) -> Shape:  # noqa: ARG002 - the base class
        return self._shape

    def make(self, children: Any) -> Any:
        if self._key in {str, Any}:
            return children
        try:
            wanted: Any = types.GenericAlias(dict, (self._key, None))
            keys: dict[Any, None] = msgspec.convert(dict.fromkeys(children), wanted, str_keys=True)
        except (msgspec.ValidationError, TypeError):
            return None
        return dict(zip(keys, children.values(), strict=False))


class _Array(Shape):
    """The shape of an array.

    :param items: the annotations of the first items.
    :param other: the annotation of further items.
    :param build: makes the value of the list of its items.
    """

    def __init__(
        self, build: Callable[[list[Any]], Any], items: Sequence[Any] = (), other: Any = None
    ) -> None:
        self._build = build
        self._items = items
        self._other = other
        self._shapes: dict[int, Shape] = {}

    def container(self, data: Any) -> Shape:
        return self if isinstance(data, list) else NOTHING

    def child(self, key: str | int) -> Shape:
        index = min(int(key), len(self._items))
        shape = self._shapes.get(index)
        if shape is None:
            annotation = self._items[index] if index < len(self._items) else self._other
            shape = self._shapes[index] = shape_of(annotation)
        return shape

    def make(self, children: Any) -> Any:
        return self._build(children)


class _Union(Shape):
    """The shape of a union of several types."""

    def __init__(self, options: Sequence[Any]) -> None:
        self._annotations = options

    @cached_property
    def _options(self) -> list[Shape]:
        return [shape_of(annotation) for annotation in self._annotations]

    def unfinished_text(self, text: str) -> Any:
        values = [option.unfinished_text(text) for option in self._options]
        return next((value for value in values if value is not UNSET), UNSET)

    def scalar(self, value: Any) -> Any:
        found = [option.scalar(value) for option in self._options]
        fitting = [one for one in found if one is not None]
        return next(
            (one for one in fitting if type(one) is not type(value)), next(iter(fitting), None)
        )

    def container(self, data: Any) -> Shape:
        found = [option.container(data) for option in self._options]
        fitting = [one for one in found if one is not NOTHING]
        if issubclass(type(data), dict) and len(fitting) > 1:
            fitting = [one for one in fitting if one.admits(data)]
            return fitting[0] if len(fitting) == 1 else PLAIN
        return fitting[0] if len(fitting) == 1 else PLAIN if fitting else NOTHING


class _Wrapped(Shape):
    """The shape of a class whose JSON is that of one value in it."""

    def __init__(self, inner: Shape, wrap: Callable[[Any], Any]) -> None:
        self._inner = inner
        self._wrap = wrap

    def unfinished_text(self, text: str) -> Any:
        value = self._inner.unfinished_text(text)
        return UNSET if value is UNSET else self._wrap(value)

    def scalar(self, value: Any) -> Any:
        return self._wrap(self._inner.scalar(value))

    def container(self, data: Any) -> Shape:
        container = self._inner.container(data)
        return NOTHING if container is NOTHING else _Wrapped(container, self._wrap)

    def child(self, key: str | int) -> Shape:
        return self._inner.child(key)

    def make(self, children: Any) -> Any:
        return self._wrap(self._inner.make(children))


# --- The shape of an annotation ------------------------------------------------------------


def _build_set(kind: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    try:
        return kind(items)
    except TypeError:  # a partial item that is not hashable
        return None


ARRAYS: Final[Mapping[Any, Callable[[list[Any]], Any]]] = {
    list: list,
    abc.Sequence: list,
    abc.MutableSequence: list,
    abc.Collection: list,
    abc.Iterable: list,
    tuple: tuple,
    set: partial(_build_set, set),
    abc.Set: partial(_build_set, set),
    abc.MutableSet: partial(_build_set, set),
    frozenset: partial(_build_set, frozenset),
}
BASIC: Final[Mapping[Any, Shape]] = {Any: PLAIN, object: PLAIN, str: _Text()}
MAPPINGS: Final = frozenset({dict, abc.Mapping, abc.MutableMapping})
QUALIFIERS: Final = frozenset({"Required", "NotRequired", "ReadOnly", "Final", "ClassVar"})


def _root_shape(annotation: Any, *, wrapped: bool) -> Shape:
    """Return the shape of a whole JSON text, which may be ``{"value": ...}``."""
    if wrapped:
        return _Object({"value": ("value", annotation)}, lambda values: values.get("value", UNSET))
    return shape_of(annotation)


def shape_of(annotation: Any) -> Shape:
    """Return the shape of a type."""
    try:
        return _cached_shape(annotation)
    except TypeError:  # not hashable, such as an annotation with a list in it
        return _make_shape(annotation)


@lru_cache(maxsize=1024)
def _cached_shape(annotation: Any) -> Shape:
    return _make_shape(annotation)


def _make_shape(annotation: Any) -> Shape:
    annotation = _bare(annotation)
    origin = typing.get_origin(annotation) or annotation
    args = typing.get_args(annotation)
    shape: Shape | None = BASIC.get(annotation)
    if origin in {typing.Union, types.UnionType}:
        options = [one for one in args if one is not type(None)]
        shape = shape_of(options[0]) if len(options) == 1 else _Union(options)
    elif origin in MAPPINGS:
        shape = _Mapping(*(args or (Any, Any)))
    elif origin is tuple and args and args[-1] is not ...:
        shape = _Array(tuple, args)
    elif origin in ARRAYS:
        shape = _Array(ARRAYS[origin], other=args[0] if args else Any)
    elif shape is None and isinstance(origin, type):
        shape = _class_shape(annotation, origin)
    return shape or _Scalar(annotation)


def _bare(annotation: Any) -> Any:
    """Return an annotation without metadata, qualifiers, aliases and type variables."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated or getattr(origin, "_name", None) in QUALIFIERS:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, _pydantic_class("TypeAdapter")):
            annotation = getattr(annotation, "_type", Any)
        elif isinstance(annotation, TypeVar):
            annotation = annotation.__bound__ or Any
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__"):  # an alias made by `type`, or one with arguments
            annotation = _substitute(annotation.__value__, _variables(annotation))
        else:
            return annotation


def _class_shape(annotation: Any, cls: Any) -> Shape | None:
    """Return the shape of a class with fields; `None` for other classes."""
    if issubclass(cls, msgspec.Struct):
        return _struct_shape(annotation, cls)
    if issubclass(cls, _pydantic_class("BaseModel")):
        return _pydantic_shape(cls)
    if hasattr(cls, "__total__"):  # a TypedDict
        return _Object(_fields(_hints(annotation)), dict)
    if hasattr(cls, "_make"):  # a NamedTuple
        hints = _hints(annotation)
        names = list(cls._fields)
        build = partial(_positional, names, partial(_build_tuple, cls, names))
        return _Array(build, [hints.get(name, Any) for name in names])
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
    elif hasattr(cls, "__attrs_attrs__"):
        names = [field.name for field in cls.__attrs_attrs__]
    else:
        return None
    hints = {name: hint for name, hint in _hints(annotation).items() if name in names}
    return _Object(_fields(hints, cls), partial(_build_instance, cls, names))


def _fields(hints: Mapping[str, Any], cls: Any = None) -> dict[str, tuple[str, Any]]:
    """Return the fields of an object by their keys: their names, or the aliases of pydantic.

    :param cls: the class, if it is a dataclass or an attrs class.
    """
    of_pydantic: Mapping[str, Any] = getattr(cls, "__pydantic_fields__", {})
    plain: Mapping[str, Any] = getattr(cls, "__dataclass_fields__", {})
    given: dict[str, tuple[Any, Any]] = {}
    for name, hint in hints.items():
        default = getattr(plain.get(name), "default", None)
        marks = (of_pydantic.get(name), default, *getattr(hint, "__metadata__", ()))
        infos = [mark for mark in marks if isinstance(mark, _pydantic_field_info())]
        given[name] = (infos[0] if infos else None, hint)
    return _fields_by_key(given, getattr(cls, "__pydantic_config__", {}))


def _constants(fields: Mapping[str, tuple[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Return the values that the fields of literal types may have, by key."""
    bare = {key: _bare(hint) for key, (_, hint) in fields.items()}
    literals = {key: one for key, one in bare.items() if typing.get_origin(one) is Literal}
    return {key: typing.get_args(literal) for key, literal in literals.items()}


def _hints(annotation: Any) -> dict[str, Any]:
    """Return the annotations of a class, with the arguments of a generic one in their places."""
    hints = typing.get_type_hints(typing.get_origin(annotation) or annotation, include_extras=True)
    variables = _variables(annotation)
    return {name: _substitute(hint, variables) for name, hint in hints.items()}


def _variables(annotation: Any) -> dict[Any, Any]:
    """Return the arguments of a generic class, and of its generic bases, by type variable."""
    origin = typing.get_origin(annotation) or annotation
    parameters = getattr(origin, "__parameters__", ()) or getattr(origin, "__type_params__", ())
    found = dict(zip(parameters, typing.get_args(annotation), strict=False))
    for base in getattr(origin, "__orig_bases__", ()):
        for variable, argument in _variables(base).items():
            found.setdefault(variable, _substitute(argument, found))
    return found


def _substitute(hint: Any, variables: Mapping[Any, Any]) -> Any:
    if isinstance(hint, TypeVar):
        return variables.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if not variables or not parameters or isinstance(hint, type):
        return hint
    return hint[tuple(variables.get(one, one) for one in parameters)]


# --- Objects without validation --------------------------------------------------------------


def _struct_shape(annotation: Any, cls: type[msgspec.Struct]) -> Shape:
    fields = msgspec.structs.fields(annotation)
    names = [field.name for field in fields]
    build = partial(_build_struct, _without_post_init(cls), names)
    config = cls.__struct_config__
    tagged = config.tag_field is not None
    if config.array_like:
        hints = [field.type for field in fields]
        first = [Literal[config.tag]] if tagged else []
        names = ["", *names] if tagged else names
        return _Array(partial(_positional, names, build), [*first, *hints])
    return _Object(
        {field.encode_name: (field.name, field.type) for field in fields},
        build,
        {config.tag_field: (config.tag,)} if config.tag_field is not None else {},
    )


def _without_post_init(cls: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return a Struct, or a subclass of the same name that has no ``__post_init__``."""
    if not hasattr(cls, "__post_init__"):
        return cls
    namespace: dict[str, Any] = {"__module__": cls.__module__, "__post_init__": _do_nothing}
    return msgspec.defstruct(cls.__name__, (), bases=(cls,), namespace=namespace)


def _do_nothing(_struct: object) -> None:
    """Take the place of a ``__post_init__``."""


def _build_struct(
    cls: type[msgspec.Struct], names: Iterable[str], values: Mapping[str, Any]
) -> msgspec.Struct:
    return cls(**{name: values.get(name) for name in names})


def _build_instance(cls: Any, names: Iterable[str], values: Mapping[str, Any]) -> Any:
    made = cls.__new__(cls)
    for name in names:
        object.__setattr__(made, name, values.get(name))  # also of a frozen class
    return made


def _build_tuple(cls: Any, names: Iterable[str], values: Mapping[str, Any]) -> Any:
    return cls._make(map(values.get, names))


def _positional(
    names: Iterable[str], build: Callable[[dict[str, Any]], Any], items: Iterable[Any]
) -> Any:
    """Build an object whose JSON is an array."""
    return build(dict(zip(names, items, strict=False)))


# --- pydantic, of whose modules none is imported here ------------------------------------------


def _pydantic_class(name: str) -> Any:
    """Return a class of pydantic; ``()``, which has no instances, if pydantic was not imported."""
    return getattr(sys.modules.get("pydantic"), name, ())


def _pydantic_field_info() -> Any:
    """Return the class of ``pydantic.Field(...)``, as `_pydantic_class` does."""
    return getattr(sys.modules.get("pydantic.fields"), "FieldInfo", ())


def _pydantic_shape(cls: Any) -> Shape:
    fields: Mapping[str, Any] = cls.model_fields
    build = partial(_build_model, cls, list(fields))
    if getattr(cls, "__pydantic_root_model__", False):
        root = shape_of(fields["root"].annotation)
        return _Wrapped(root, lambda value: build({"root": value}))
    given = {name: (field, field.annotation) for name, field in fields.items()}
    return _Object(_fields_by_key(given, cls.model_config), build)


def _fields_by_key(
    fields: Mapping[str, tuple[Any, Any]], config: Mapping[str, Any]
) -> dict[str, tuple[str, Any]]:
    """Return the names and annotations of fields, by the keys that pydantic reads them from.

    An alias counts before the name of another field.

    :param fields: the `FieldInfo` and the annotation, by name; a field without aliases needs none.
    :param config: the configuration of the class.
    """
    names: dict[str, tuple[str, Any]] = {}
    aliases: dict[str, tuple[str, Any]] = {}
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    for name, (info, annotation) in fields.items():
        alias = getattr(info, "validation_alias", None) or getattr(info, "alias", None)
        if by_name or alias is None:
            names[name] = (name, annotation)
        if config.get("validate_by_alias") is not False:
            keys = getattr(alias, "choices", [alias])
            aliases |= {key: (name, annotation) for key in keys if isinstance(key, str)}
    return names | aliases


def _build_model(cls: Any, names: Iterable[str], values: Mapping[str, Any]) -> Any:
    """Return a model as ``model_construct`` does, without ``model_post_init``.

    Its private attributes have their defaults, and its fields do not.
    """
    made = cls.__new__(cls)
    extra: dict[str, Any] | None = {} if cls.model_config.get("extra") == "allow" else None
    object.__setattr__(made, "__dict__", {name: values.get(name) for name in names})
    object.__setattr__(made, "__pydantic_fields_set__", set(values))
    object.__setattr__(made, "__pydantic_extra__", extra)
    object.__setattr__(made, "__pydantic_private__", _private_defaults(cls))
    return made


def _private_defaults(cls: Any) -> dict[str, Any] | None:
    """Return the private attributes of a new model, which are not in the JSON.

    Those without a default are missing, and those whose factory takes the validated fields.
    """
    attributes: Mapping[str, Any] = cls.__private_attributes__
    if not attributes:
        return None
    undefined = sys.modules["pydantic_core"].PydanticUndefined
    made: dict[str, Any] = {}
    for name, attribute in attributes.items():
        if attribute.default_factory is None:
            value = deepcopy(attribute.default)
        elif getattr(attribute, "default_factory_takes_validated_data", False):
            value = undefined
        else:
            value = attribute.default_factory()
        if value is not undefined:
            made[name] = value
    return made
