# The policies of alerts/, which tests hold equal to Prometheus' rules, and one for the drift job. The service's metrics come
# by the container `collector`.
locals {
  policies = { for name in fileset("${path.module}/alerts", "*.json") : trimsuffix(name, ".json") => jsondecode(file("${path.module}/alerts/${name}")) }
  told     = [for channel in google_monitoring_notification_channel.email : channel.id]
}

resource "google_monitoring_notification_channel" "email" {
  count        = var.email == "" ? 0 : 1
  display_name = "pneumo"
  type         = "email"

  labels = {
    email_address = var.email
  }
}

resource "google_monitoring_alert_policy" "prometheus" {
  for_each              = local.policies
  display_name          = each.value.displayName
  combiner              = each.value.combiner
  severity              = each.value.severity
  enabled               = each.value.enabled
  user_labels           = each.value.userLabels
  notification_channels = local.told

  documentation {
    content   = each.value.documentation.content
    mime_type = each.value.documentation.mimeType
  }

  dynamic "conditions" {
    for_each = each.value.conditions

    content {
      display_name = conditions.value.displayName

      condition_prometheus_query_language {
        query               = conditions.value.conditionPrometheusQueryLanguage.query
        duration            = conditions.value.conditionPrometheusQueryLanguage.duration
        evaluation_interval = conditions.value.conditionPrometheusQueryLanguage.evaluationInterval
        rule_group          = conditions.value.conditionPrometheusQueryLanguage.ruleGroup
        alert_rule          = conditions.value.conditionPrometheusQueryLanguage.alertRule

        # A series that nobody has written yet is no mistake: some come with the first event.
        disable_metric_validation = true
      }
    }
  }

  depends_on = [google_project_service.api]
}

resource "google_monitoring_alert_policy" "drift_job" {
  display_name          = "PneumoDriftJobFailed"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = local.told

  documentation {
    content   = "The drift job found drift, or could not check. Runbook: docs/drift.md#alerts"
    mime_type = "text/markdown"
  }

  conditions {
    display_name = "PneumoDriftJobFailed"

    condition_threshold {
      filter          = "resource.type = \"cloud_run_job\" AND resource.labels.job_name = \"${google_cloud_run_v2_job.drift.name}\" AND metric.type = \"run.googleapis.com/job/completed_execution_count\" AND metric.labels.result = \"failed\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"

      aggregations {
        alignment_period   = "3600s"
        per_series_aligner = "ALIGN_SUM"
      }
    }
  }
}
