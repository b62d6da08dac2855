"""Dagster's entry point. Loading this module reads the environment."""

import dagster as dg

from .orchestration.build import build_definitions
from .settings.streams import load_streams

defs = dg.Definitions.merge(build_definitions(load_streams()), dg.Definitions(executor=dg.in_process_executor))
