"""Audit a data set or a source: damage, duplicates, leaks between splits, unbalanced classes, unusual images."""

from pneumo.pipeline.data.audit.appearance import NEAR_DISTANCE
from pneumo.pipeline.data.audit.audit_report import AuditReport, Finding, Kind, Severity
from pneumo.pipeline.data.audit.subject import audit, count_images, open_subject

__all__ = ["NEAR_DISTANCE", "AuditReport", "Finding", "Kind", "Severity", "audit", "count_images", "open_subject"]
