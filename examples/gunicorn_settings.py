"""Settings of gunicorn that a command line of an older one would not know.

Of its own accord it listens for commands at one place for all servers of a user; two of them must not meet there.
"""

control_socket_disable = True
