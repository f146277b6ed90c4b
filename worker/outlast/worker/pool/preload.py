"""What the fork server loads before it forks: everything of ours that a child needs, and no agent.

Never to be imported elsewhere: it makes its process deaf to SIGTERM. A service manager that stops a worker signals all
its processes; a fork server that obeyed would take its children along in the middle of their runs.
"""

import signal

from . import child as child

signal.signal(signal.SIGTERM, signal.SIG_IGN)
