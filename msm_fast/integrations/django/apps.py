"""The application to name in INSTALLED_APPS."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from msm_fast.integrations.django.checks import check_cookie, check_nodes, check_settings

__all__ = ["MsmFastConfig"]


class MsmFastConfig(AppConfig):
    """Checks the settings; its commands are found by its place."""

    name = "msm_fast.integrations.django"
    label = "msm_fast"
    verbose_name = "msm_fast sessions"

    def ready(self) -> None:
        """Let manage.py check look at the settings."""
        checks.register(check_settings, checks.Tags.security)
        checks.register(check_nodes, checks.Tags.security, deploy=True)
        checks.register(check_cookie, checks.Tags.security, deploy=True)
