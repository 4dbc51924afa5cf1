"""Django: SESSION_ENGINE = "msm_fast.integrations.django", with the settings MSM_FAST.

Named in INSTALLED_APPS too, it checks the settings (manage.py check) and has commands (manage.py msm).
"""

from msm_fast.integrations.django.managers import process_manager
from msm_fast.integrations.django.middleware import SessionMiddleware
from msm_fast.integrations.django.sessions import SessionStore

__all__ = ["SessionMiddleware", "SessionStore", "process_manager"]
