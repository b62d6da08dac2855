"""X_FILE: the file that holds the secret X, as Docker and Kubernetes mount secrets."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from .kafka import PROPERTIES, has_secret_name, property_variable
from .shared_settings import SharedSettings
from .values import is_secret
from .variables import variable

SUFFIX = "_FILE"


def secret_variables() -> Iterator[str]:
    yield from (variable(name) for name, field in SharedSettings.model_fields.items() if is_secret(field))
    yield from (property_variable(name) for name in PROPERTIES if has_secret_name(name))


def with_files_read(variables: Mapping[str, str], problems: dict[str, str]) -> dict[str, str]:
    """The variables, with the content of its file for each secret that has one. Other texts are added to `problems`."""
    own_names = {property_variable(name) for name in PROPERTIES}
    texts = dict(variables)
    for name in secret_variables():
        key = name + SUFFIX
        if key not in texts or key in own_names:
            continue
        path = texts.pop(key)
        if name in texts:
            problems[key] = f"is set together with {name}: set one of them"
            continue
        try:
            text = Path(path).read_text("utf-8")
        except OSError as error:
            problems[key] = f"names a file that cannot be read: {error.strerror}"
        except ValueError:  # UnicodeDecodeError, or a NUL in the path
            problems[key] = "names a file that is not UTF-8 text"
        else:
            texts[name] = text.removesuffix("\n").removesuffix("\r")
            if not texts[name].strip():
                problems[key] = "names an empty file"
    return texts
