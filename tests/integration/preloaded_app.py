"""A WSGI application whose manager was used before its server forked its workers; for test_fork.

MSM_FAST_NODES names the nodes. The answer is JSON: who served it, and what the session held before.
"""

import json
import os

from msm_fast import SessionManager, Timeouts
from msm_fast.integrations.wsgi import SessionMiddleware

manager = SessionManager(os.environ["MSM_FAST_NODES"], timeouts=Timeouts(connect=5, operation=5, request=15))
with manager.request(None, "POST") as _session:
    _session["made_by"] = os.getpid()


def count_visits(environ, start_response):
    session = environ["msm_fast.session"]
    before = dict(session)
    session["name"] = environ["HTTP_X_NAME"]
    session["visits"] = session.get("visits", 0) + 1
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "before": before}).encode()]


app = SessionMiddleware(count_visits, manager)
