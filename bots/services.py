"""Cloud recognisers and voices, under the path that `bots/cloud.py` names; they live in `cloud_services`."""

from .cloud_services import prepare as prepare
from .cloud_services import recognisers as recognisers
from .cloud_services import voices as voices
