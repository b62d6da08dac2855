"""The meaning of an event type as a text. Equal code gives equal text in every process.

The text changes with everything that decides about a record: types, constraints, defaults, options of the Struct, the
code of checks and everything that the checks use. Docstrings, descriptions and comments are left out.
"""

import inspect
import re
import types
from enum import Enum
from functools import cached_property, partial
from typing import Annotated, Any, get_args, get_origin

import msgspec

from .fields import AsJson
from .time_forms import TimeForm

_CONSTRAINTS = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")
_OPTIONS = ("tag", "tag_field", "forbid_unknown_fields", "array_like", "omit_defaults")
_CODE = ("co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_code", "co_names", "co_varnames", "co_freevars")
_FUNCTIONS = (types.FunctionType, classmethod, staticmethod, property, cached_property)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_CONTAINERS = (tuple, list, set, frozenset, dict)


def described(item: Any) -> str:
    """The text of a Struct or a function and all that it uses, without addresses and the order of hashes."""
    return _Description(str(getattr(item, "__module__", ""))).text(item)


class _Description:
    """Describes a class or function the first time and only names it later, so a recursive class ends.

    Args:
        module: of the event. Code of the same top-level package is described, other code is only named.
    """

    def __init__(self, module: str) -> None:
        self._package = module.partition(".")[0]
        self._seen: set[int] = set()

    def text(self, value: Any) -> str:
        if isinstance(value, Enum):
            return f"{type(value).__qualname__}.{value.name} {self.text(value.value)}"
        if isinstance(value, _CONTAINERS):
            return self._container(value)
        if isinstance(value, msgspec.Meta):
            return repr(_limits(value))
        if (origin := get_origin(value)) is not None:
            return self._generic(value, origin)
        if isinstance(value, types.CodeType):
            return self._code(value, None)
        if isinstance(value, msgspec.Struct):
            return self._all([type(value), *(getattr(value, name) for name in value.__struct_fields__)])
        if isinstance(value, partial):
            return self._all([value.func, value.args, value.keywords])
        if isinstance(value, (type, *_FUNCTIONS, types.MethodType)):
            return self._once(value)
        if isinstance(value, re.Pattern):
            return repr((value.pattern, value.flags))
        if isinstance(value, types.ModuleType):
            return value.__name__
        if (wrapped := getattr(value, "__wrapped__", None)) is not None:
            return self.text(wrapped)
        return _ADDRESS.sub("", str(getattr(value, "__qualname__", None) or repr(value)))

    def _all(self, values: Any) -> str:
        return f"[{', '.join(map(self.text, values))}]"

    def _container(self, value: Any) -> str:
        if isinstance(value, dict):
            return self._all(value.items())
        texts = map(self.text, value)
        return f"{type(value).__name__} {sorted(texts) if isinstance(value, set | frozenset) else list(texts)}"

    def _generic(self, value: Any, origin: Any) -> str:
        if origin is not Annotated:
            return f"{getattr(origin, '__qualname__', origin)} {self._all(get_args(value))}"
        declared, *extras = get_args(value)
        kept = [
            extra
            for extra in extras
            if extra is AsJson or isinstance(extra, TimeForm) or (isinstance(extra, msgspec.Meta) and _limits(extra))
        ]
        return self._all([declared, *kept]) if kept else self.text(declared)

    def _once(self, value: Any) -> str:
        name = str(getattr(value, "__qualname__", type(value).__name__))
        if id(value) in self._seen or not (self._is_own(value) or isinstance(value, _FUNCTIONS[1:])):
            return name
        self._seen.add(id(value))
        return f"{name} {self._body(value)}"

    def _body(self, value: Any) -> str:
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, property):
            return self._all([value.fget, value.fset])
        if isinstance(value, cached_property):
            return self.text(value.func)
        if not isinstance(value, types.FunctionType):
            return self.text(value.__func__)
        parts = [value.__defaults__, value.__kwdefaults__, *inspect.getclosurevars(value).nonlocals.items()]
        parts += self._used(value)
        return f"{self._code(value.__code__, value.__doc__)} {self._all(parts)}"

    def _class(self, kind: type) -> str:
        """Options and fields of a Struct, members of an Enum, and the attributes of the class and its own bases."""
        texts = [self.text([(member.name, member.value) for member in kind])] if issubclass(kind, Enum) else []
        if issubclass(kind, msgspec.Struct):
            config = kind.__struct_config__
            texts.append(self._all([getattr(config, name) for name in _OPTIONS]))
            for field in msgspec.structs.fields(kind):
                texts.append(
                    self._all([field.name, field.encode_name, field.type, field.default, field.default_factory])
                )
        for base in kind.__mro__:
            if self._is_own(base):
                for name, value in sorted(vars(base).items()):
                    constant = not (callable(value) or name.startswith("_") or inspect.isdatadescriptor(value))
                    if isinstance(value, _FUNCTIONS) or constant:
                        texts.append(f"{name} {self.text(value)}")
        return "\n".join(texts)

    def _code(self, code: types.CodeType, doc: str | None) -> str:
        constants = code.co_consts
        if doc is not None and constants and constants[0] == doc:
            constants = constants[1:]
        return f"{[getattr(code, name) for name in _CODE]} {self._all(constants)}"

    def _used(self, function: types.FunctionType) -> list[Any]:
        """Global names that the function and its inner functions use, with their values."""
        names, codes = set[str](), [function.__code__]
        while codes:
            code = codes.pop()
            names.update(code.co_names)
            codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        used = {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}
        modules = [value for value in used.values() if isinstance(value, types.ModuleType) and self._is_own(value)]
        inside = [(name, vars(module)[name]) for module in modules for name in sorted(names) if name in vars(module)]
        return [*used.items(), *inside]

    def _is_own(self, value: Any) -> bool:
        module = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        return str(module).partition(".")[0] == self._package


def _limits(meta: msgspec.Meta) -> list[tuple[str, Any]]:
    return [(name, limit) for name in _CONSTRAINTS if (limit := getattr(meta, name)) is not None]
