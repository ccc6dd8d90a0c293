"""How each type is read when an object is turned into plain data.

Types are recognised by name along the bases of the class: that imports no
library, runs no code of the object, and a lying ``__class__`` deceives nobody.
A reader may raise; `attempt` is where that ends.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping
from itertools import islice
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, TypeAlias

from drytrack.core._secrets import MASK, is_secret_key

if TYPE_CHECKING:
    from drytrack.core._plain import Plain, Walk

Reader: TypeAlias = "Callable[[Walk, Any], Plain]"

# Arrays up to this size are settings and are listed; larger ones are data.
_MAX_ARRAY = 100
# Objects without a structure of their own lead far away (a trainer's loader's
# dataset's …), so they nest less deeply than containers.
_MAX_OBJECTS = 3
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
_DEFAULT_REPR: object = object.__repr__
_get_class_name: Callable[[type], str] = type.__dict__["__name__"].__get__


class Unreadable:
    """Stands for an answer of a user's object that raised."""

    def __init__(self, error: BaseException) -> None:
        self.text = f"<unreadable: {class_name(type(error))}>"


def attempt(function: Callable[..., Any], *arguments: object) -> Any:
    """Call a function that may run users' code; never raises what that raises."""
    try:
        return function(*arguments)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  # the code belongs to the object
        return Unreadable(error)


def class_name(kind: type) -> str:
    """Get a class's name, past any property of its metaclass."""
    return str.__getitem__(_get_class_name(kind), slice(None))


def convert(walk: Walk, value: Any) -> Plain:
    """Turn a value into plain data by the reader of its type."""
    kind = type(value)
    if kind is Unreadable:
        return walk.text(value.text)
    names = _names(kind)
    if any(name in _SECRET_CLASSES for _, name in names):
        return MASK
    if ("enum", "Enum") in names:  # Before the int or str that it may also be.
        return _enum(walk, value)
    for name in names:
        if reader := _READERS.get(name):
            return reader(walk, value)
    return _reader_by_structure(kind)(walk, value)


def read_instance(walk: Walk, value: Any) -> Plain:
    """Read the class name and the public attributes that are no functions."""
    if walk.objects_open >= _MAX_OBJECTS:
        return walk.text(f"<{class_name(type(value))}>")
    walk.objects_open += 1
    try:
        attributes = _public_attributes(value)
        pairs = [("class", class_name(type(value))), *attributes.items()]
        return walk.mapping(value, pairs, len(pairs))
    finally:
        walk.objects_open -= 1


def _names(kind: type) -> list[tuple[str, str]]:
    return [(base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__]


def _reader_by_structure(kind: type) -> Reader:
    if type(getattr(kind, "__dataclass_fields__", None)) is dict:
        return _dataclass
    if issubclass(type(getattr(kind, "__attrs_attrs__", None)), tuple):
        return _attrs
    if issubclass(kind, Mapping):
        return _mapping
    if hasattr(kind, "__next__"):
        return _iterator
    if hasattr(kind, "shape") and hasattr(kind, "dtype"):
        return _array_text  # JAX, CuPy, TensorFlow, h5py, xarray …
    return _object


# Single values


def _int(walk: Walk, value: int) -> Plain:
    number = int.__index__(value)
    if -(2**63) <= number < 2**64:
        return number
    # Longer ones may exceed sys.get_int_max_str_digits(), which counts from 640.
    if number.bit_length() <= 2_000:
        return walk.text(str(number))
    return f"<int of {number.bit_length()} bits>"


def _float(walk: Walk, value: float) -> Plain:
    return float.__float__(value)


def _text(walk: Walk, value: Any) -> Plain:
    return walk.text(str(value))


def _enum(walk: Walk, value: Any) -> Plain:
    # The member, not its value: that may be auto(), and "Mode.FAST" still says
    # what was chosen when the members have been renumbered.
    name = value._name_
    label = f".{name}" if type(name) is str else f"({value._value_!r})"
    return walk.text(class_name(type(value)) + label)


def _bytes(walk: Walk, value: Any) -> Plain:
    size = value.nbytes if type(value) is memoryview else len(value)
    return f"<{class_name(type(value))} of length {size}>"


def _time(walk: Walk, value: Any) -> Plain:
    return walk.text(value.isoformat())


def _path(walk: Walk, value: Any) -> Plain:
    return walk.text(value.as_posix())


def _error(walk: Walk, value: BaseException) -> Plain:
    return walk.text(f"{class_name(type(value))}: {value}")


# Containers


def _mapping(walk: Walk, value: Any) -> Plain:
    if issubclass(type(value), dict):
        return walk.mapping(value, dict.items(value), dict.__len__(value))
    size = attempt(len, value)
    pairs = ((key, attempt(value.__getitem__, key)) for key in value)
    return walk.mapping(value, pairs, size if type(size) is int else None)


def _list(walk: Walk, value: list[object]) -> Plain:
    return walk.sequence(value, list.__iter__(value), list.__len__(value))


def _tuple(walk: Walk, value: tuple[object, ...]) -> Plain:
    items, size = tuple.__iter__(value), tuple.__len__(value)
    fields = getattr(type(value), "_fields", None)
    if type(fields) is tuple and len(fields) == size:
        return walk.mapping(value, zip(fields, items, strict=True), size)
    return walk.sequence(value, items, size)


def _sized(walk: Walk, value: Any) -> Plain:
    return walk.sequence(value, value, len(value))


def _set(walk: Walk, value: Any) -> Plain:
    plain = _sized(walk, value)
    if isinstance(plain, list) and len(value) <= walk.max_items:
        # The order of a set changes from one process to the next.
        plain.sort(key=_set_order)
    return plain


def _set_order(item: Plain) -> tuple[str, float, str]:
    if isinstance(item, int | float):
        return "", item, ""
    return type(item).__name__, 0, str(item)


# Objects with fields


def _fields(walk: Walk, value: Any, names: list[str]) -> Plain:
    pairs = ((name, attempt(getattr, value, name)) for name in names)
    return walk.mapping(value, pairs, len(names))


def _dataclass(walk: Walk, value: Any) -> Plain:
    return _fields(walk, value, [field.name for field in dataclasses.fields(value)])


def _attrs(walk: Walk, value: Any) -> Plain:
    return _fields(walk, value, [field.name for field in type(value).__attrs_attrs__])


def _variables(walk: Walk, value: Any) -> Plain:
    variables = dict(object.__getattribute__(value, "__dict__"))
    extra = attempt(object.__getattribute__, value, "__pydantic_extra__")
    if type(extra) is dict:
        variables.update(extra)
    return walk.mapping(value, variables.items(), len(variables))


def _partial(walk: Walk, value: Any) -> Plain:
    call = {"class": "partial", "func": value.func}
    call |= {"args": value.args} if value.args else {}
    call |= {"keywords": value.keywords} if value.keywords else {}
    return walk.mapping(value, call.items(), len(call))


def _omegaconf(walk: Walk, value: Any) -> Plain:
    tools = sys.modules["omegaconf"].OmegaConf
    size = len(value)
    if not size:  # Empty, or as a whole None, missing or an interpolation.
        return walk.visit(tools.to_container(value, resolve=False))

    def read(key: Any) -> Any:
        raw = None
        if tools.is_interpolation(value, key):
            raw = tools.to_container(value, resolve=False)[key]
            # The secret of another name: ${oc.env:WANDB_API_KEY}, ${db.password}.
            if any(is_secret_key(name) for name in re.findall(r"[\w.]+", str(raw))):
                return MASK
        item = attempt(value.__getitem__, key)
        if type(item) is Unreadable:  # Missing ("???"), or it cannot be resolved.
            item = raw or tools.to_container(value, resolve=False)[key]
        return item

    if ("omegaconf", "ListConfig") in _names(type(value)):
        return walk.sequence(value, map(read, range(size)), size)
    return walk.mapping(value, ((key, read(key)) for key in value), size)


# Numbers, arrays and tables of other libraries


def _numpy_scalar(walk: Walk, value: Any) -> Plain:
    if value.dtype.kind in "mM":
        return walk.text(str(value))
    item = value.item()
    if type(item) is type(value):  # Extended precision has no Python type.
        item = complex(value) if value.dtype.kind == "c" else float(value)
    return walk.visit(item)


def _number_array(walk: Walk, value: Any) -> Plain:
    if len(value) > _MAX_ARRAY:
        kind = class_name(type(value))
        return walk.text(f"{kind}(shape=({len(value)},), dtype={value.typecode})")
    return walk.sequence(value, value, len(value))


def _numpy_array(walk: Walk, value: Any) -> Plain:
    if value.size > _MAX_ARRAY:
        return _array_text(walk, value)
    items = (value.astype(str) if value.dtype.kind in "mM" else value).tolist()
    return walk.sequence(value, items) if type(items) is list else walk.visit(items)


def _tensor(walk: Walk, value: Any) -> Plain:
    # A subclass (parameter, shard) is data; another device would be waited for.
    if class_name(type(value)) == "Tensor" and value.device.type == "cpu":
        items = attempt(value.tolist) if value.numel() <= _MAX_ARRAY else None
        if type(items) is list:
            return walk.sequence(value, items)
        if type(items) in {bool, int, float, complex}:
            return walk.visit(items)
    return _array_text(walk, value)


def _array_text(walk: Walk, value: Any) -> Plain:
    shape = attempt(lambda: str(tuple(value.shape)))
    parts = [f"shape={shape}"] if type(shape) is str else []
    parts.append(f"dtype={value.dtype}")
    if ("torch", "Tensor") in _names(type(value)):
        parts.append(f"device={value.device}")
    return walk.text(f"{class_name(type(value))}({', '.join(parts)})")


def _frame(walk: Walk, value: Any) -> Plain:
    some = walk.max_items + 1
    columns = list(islice(value.columns, some))
    dtypes = [str(dtype) for dtype in islice(value.dtypes, some)]
    # Not a mapping of the two: a column may come twice or be called "token".
    return _described(walk, value, columns=columns, dtypes=dtypes)


def _series(walk: Walk, value: Any) -> Plain:
    return _described(walk, value, name=value.name, dtype=str(value.dtype))


def _described(walk: Walk, value: Any, **facts: object) -> Plain:
    facts = {"class": class_name(type(value)), "shape": list(value.shape), **facts}
    return walk.mapping(value, facts.items(), len(facts))


# All others


def _dotted_name(walk: Walk, value: Any) -> Plain:
    name = getattr(value, "__qualname__", None) or value.__name__
    module = getattr(value, "__module__", None)
    return walk.text(name if module in {None, "builtins"} else f"{module}.{name}")


def _module(walk: Walk, value: Any) -> Plain:
    return walk.text(
        f"<module {object.__getattribute__(value, '__dict__')['__name__']}>"
    )


def _iterator(walk: Walk, value: Any) -> Plain:
    name = attempt(getattr, value, "__qualname__", "")
    label = f" {name}" if type(name) is str and name else ""
    return walk.text(f"<{class_name(type(value))}{label}>")


def _file(walk: Walk, value: Any) -> Plain:
    name = attempt(getattr, value, "name", None)
    label = f" {name}" if type(name) in {str, int} else ""
    return walk.text(f"<{class_name(type(value))}{label}>")


def _object(walk: Walk, value: Any) -> Plain:
    if callable(value) and type(attempt(getattr, value, "__qualname__")) is str:
        return _dotted_name(walk, value)  # A cached or compiled function.
    attributes = attempt(_public_attributes, value)
    if type(attributes) is dict and attributes:
        return read_instance(walk, value)
    return _repr(walk, value)


def _repr(walk: Walk, value: Any) -> Plain:
    if type(value).__repr__ is _DEFAULT_REPR:
        return walk.text(f"<{class_name(type(value))}>")
    text = attempt(repr, value)
    if type(text) is Unreadable:
        return walk.text(f"<{class_name(type(value))}, {text.text[1:]}")
    # Addresses say nothing, and make two records of one thing differ.
    return walk.text(_ADDRESS.sub("", text[: walk.max_text * 2]))


def _public_attributes(value: Any) -> dict[str, object]:
    found: dict[str, object] = {}
    for base in reversed(type(value).__mro__):
        if "__slots__" in base.__dict__:
            for name, member in base.__dict__.items():
                if type(member) is MemberDescriptorType:
                    item = attempt(member.__get__, value)
                    if type(item) is not Unreadable:  # A slot never set.
                        found[name] = item
    variables = attempt(object.__getattribute__, value, "__dict__")
    if issubclass(type(variables), dict):
        found.update(dict.copy(variables))
    return {
        name: item
        for name, item in found.items()
        if type(name) is str and not name.startswith("_") and not _is_function(item)
    }


def _is_function(item: object) -> bool:
    if isinstance(item, Unreadable):
        return False
    return any(_READERS.get(name) is _dotted_name for name in _names(type(item)))


_SECRET_CLASSES = frozenset({"Secret", "SecretStr", "SecretBytes", "_SecretBase"})

# The first part of the module that defines a class, a dot, and the class's name.
_READERS_BY_NAMES: dict[str, Reader] = {
    "builtins.int": _int,
    "builtins.float": _float,
    "builtins.str": lambda walk, value: walk.text(value),
    "builtins.complex builtins.range uuid.UUID decimal.Decimal fractions.Fraction "
    "datetime.timedelta torch.device torch.dtype": _text,
    "builtins.bytes builtins.bytearray builtins.memoryview": _bytes,
    "datetime.date datetime.time": _time,
    "pathlib.PurePath": _path,
    "builtins.BaseException": _error,
    "builtins.dict": _mapping,
    "builtins.list": _list,
    "builtins.tuple": _tuple,
    "builtins.set builtins.frozenset": _set,
    "collections.deque collections.UserList builtins.dict_keys builtins.dict_values "
    "builtins.dict_items": _sized,
    "argparse.Namespace types.SimpleNamespace pydantic.BaseModel": _variables,
    "functools.partial": _partial,
    "omegaconf.DictConfig omegaconf.ListConfig": _omegaconf,
    "numpy.generic": _numpy_scalar,
    "numpy.ndarray": _numpy_array,
    "array.array": _number_array,
    "torch.Tensor": _tensor,
    "torch.Module types.GenericAlias": _repr,
    "pandas.DataFrame polars.DataFrame": _frame,
    "pandas.Series pandas.Index polars.Series": _series,
    "builtins.type builtins.function builtins.method "
    "builtins.builtin_function_or_method builtins.method-wrapper "
    "builtins.method_descriptor builtins.wrapper_descriptor": _dotted_name,
    "builtins.module": _module,
    "_io._IOBase": _file,
}
_READERS = {
    (module, name): reader
    for names, reader in _READERS_BY_NAMES.items()
    for module, _, name in (name.partition(".") for name in names.split())
}
