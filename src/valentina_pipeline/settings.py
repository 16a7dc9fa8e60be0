"""Kedro's settings of this project: https://docs.kedro.org/en/stable/configure/settings/."""

from valentina_pipeline.config_loader import ProjectConfigLoader
from valentina_pipeline.hooks import InputHooks, ProcessHooks, ProjectHooks, TrackingHooks

CONFIG_LOADER_CLASS = ProjectConfigLoader
CONFIG_LOADER_ARGS = {"base_env": "base", "default_run_env": "local"}
HOOKS = (ProjectHooks(), ProcessHooks(), TrackingHooks(), InputHooks())
