"""Every policy, as generators that never see a socket, a thread or a clock.

A flow yields effects (`effects`), a driver carries them out and sends back what came of them. One driver does so over
blocking sockets; the tests have one over a simulated cluster with virtual time, and both run these same lines.
"""
