"""The operations that an operator may launch from the UI."""

from .accept_loss import ACCEPT_LOSS
from .dead_letters import ACKNOWLEDGE, ALLOW, DISCARD, REDRIVE
from .pause import PAUSE, RESUME
from .replay import REPLAY

OPERATIONS = (PAUSE, RESUME, ACCEPT_LOSS, REDRIVE, DISCARD, ALLOW, ACKNOWLEDGE, REPLAY)
