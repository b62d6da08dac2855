"""The environment variables of the fields: BATCH_SIZE for `batch_size`, PRICE_BATCH_SIZE for the stream `price`."""

from .job_settings import JobSettings
from .shared_settings import SharedSettings
from .stream_settings import StreamSettings


def variable(field: str) -> str:
    return "BATCH_TIMEOUT" if field == "batch_timeout_seconds" else field.upper()


def prefix(name: str) -> str:
    """The prefix of a stream's or job's own variables."""
    return f"{name.upper()}_"


STREAM_VARIABLES = {variable(name): name for name in StreamSettings.model_fields}
JOB_VARIABLES = {variable(name): name for name in JobSettings.model_fields}
SHARED_VARIABLES = {variable(name): name for name in SharedSettings.model_fields}
