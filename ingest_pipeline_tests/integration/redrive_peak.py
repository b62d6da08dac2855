"""Redrives the first COUNT letters of a stream without changing anything, and prints the peak memory in kB.

python -m ingest_pipeline_tests.integration.redrive_peak DATABASE_URL COUNT
"""

import re
import sys
from pathlib import Path

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.ledger import LetterFilter, Redriven
from ingest_pipeline.core.rows import RecordRules
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline_tests.samples import READING


def main(url: str, count: int) -> None:
    database = Database(sqlalchemy_url(url))
    letter_filter = LetterFilter(ids=list(range(1, count + 1)))
    rules = RecordRules(max_record_bytes=64 << 20)
    done = DeadLetters(database, READING).redrive(letter_filter, JsonDecoder(READING).decode, rules, dry_run=True)
    database.dispose()
    assert done == Redriven(stored=count), done
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert peak is not None
    print(peak[1])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
