"""What loads bot scripts, under the path that documentation names; it lives in `scripts`."""

from .scripts import load_bot as load_bot
from .scripts import set_up_log as set_up_log
