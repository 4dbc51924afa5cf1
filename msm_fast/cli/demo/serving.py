"""Settings of the demo's gunicorn servers.

A module and not command-line options, so that a gunicorn.conf.py in the user's directory is not read, and a setting
that the installed gunicorn does not know is passed over.
"""

import os

bind = [f"fd://{fd}" for fd in os.environ.get("MSM_FAST_DEMO_SOCKETS", "").split(",") if fd]
workers = 1
worker_class = "gthread"
threads = 8
# Longer than the demo's pauses: a connection that the balancer keeps is not closed under it.
keepalive = 75
graceful_timeout = 2
control_socket_disable = True
