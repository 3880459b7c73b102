"""The endpoint reconciler in virtual time: random stories, faults at every call, and what must hold all the while.

    python -m control.simulator 100000 --jobs 4     # in the folder `tests`

One story: an endpoint is created, updated with every strategy, given other numbers and deleted (`users`), while
instances come up or die, versions are good or bad, alarms come and go (`world`), and every call out of the reconciler
may fail before it did anything, or end the process after it did (`faults`). Then everything is calm, and it has to
converge (`stories`). What is checked is in `laws`, mostly where the reconciler calls out (`outside`). `guarantees`
takes one of the reconciler's away: then the laws must be seen broken.
"""

from control.simulator.guarantees import GUARANTEES, Guarantee
from control.simulator.stories import Report, Summary, run, run_many

__all__ = ["GUARANTEES", "Guarantee", "Report", "Summary", "run", "run_many"]
