"""Audit a data set or a source: what is damaged, doubled, leaking, unbalanced or odd."""

from pipeline.data.audit.checking import audit, count_images, open_subject
from pipeline.data.audit.looks import NEAR_DISTANCE
from pipeline.data.audit.report import AuditReport, Finding, Kind, Severity

__all__ = ["NEAR_DISTANCE", "AuditReport", "Finding", "Kind", "Severity", "audit", "count_images", "open_subject"]
