"""The names of a job and its sensor in Dagster. The argument is the `job` of the streams."""


def job_name(job: str) -> str:
    return f"drain_{job}"


def sensor_name(job: str) -> str:
    return f"{job}_sensor"
