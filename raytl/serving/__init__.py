"""A bundle behind an autoscaling HTTP endpoint: ``deploy``, ``undeploy`` and ``status`` on Ray Serve."""

from raytl.serving.deploy import Endpoint, deploy, status, undeploy

__all__ = ["Endpoint", "deploy", "status", "undeploy"]
