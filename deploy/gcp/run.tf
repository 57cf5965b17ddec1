# The service is the one of deploy/cloudrun/service.yaml: its figures stand there alone, and tests hold them. Terraform makes
# it once; afterwards `gcloud run services replace` brings revisions, so Terraform leaves them be.
locals {
  file      = yamldecode(file("${path.module}/../cloudrun/service.yaml"))
  revision  = local.file.spec.template.spec
  scaling   = local.file.spec.template.metadata.annotations
  serve     = one([for each in local.revision.containers : each if each.name == "serve"])
  collector = one([for each in local.revision.containers : each if each.name == "collector"])
  images    = "${var.region}-docker.pkg.dev/${var.project}/pneumo"
}

resource "google_cloud_run_v2_service" "serve" {
  name                = local.file.metadata.name
  location            = var.region
  ingress             = "INGRESS_TRAFFIC_ALL"
  deletion_protection = false

  template {
    service_account                  = google_service_account.account["pneumo-serve"].email
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"
    max_instance_request_concurrency = local.revision.containerConcurrency
    timeout                          = "${local.revision.timeoutSeconds}s"

    scaling {
      min_instance_count = tonumber(local.scaling["autoscaling.knative.dev/minScale"])
      max_instance_count = tonumber(local.scaling["autoscaling.knative.dev/maxScale"])
    }

    containers {
      name    = local.serve.name
      image   = "${local.images}/serve:${var.tag}"
      command = local.serve.command

      ports {
        container_port = local.serve.ports[0].containerPort
      }

      dynamic "env" {
        for_each = { for each in local.serve.env : each.name => each if can(each.value) }

        content {
          name  = env.key
          value = env.value.value
        }
      }

      dynamic "env" {
        for_each = { for each in local.serve.env : each.name => each.valueFrom.secretKeyRef if can(each.valueFrom) }

        content {
          name = env.key

          value_source {
            secret_key_ref {
              secret  = google_secret_manager_secret.secret[env.value.name].secret_id
              version = env.value.key
            }
          }
        }
      }

      resources {
        limits            = local.serve.resources.limits
        cpu_idle          = false
        startup_cpu_boost = true
      }

      startup_probe {
        period_seconds    = local.serve.startupProbe.periodSeconds
        timeout_seconds   = local.serve.startupProbe.timeoutSeconds
        failure_threshold = local.serve.startupProbe.failureThreshold

        http_get {
          path = local.serve.startupProbe.httpGet.path
          port = local.serve.startupProbe.httpGet.port
        }
      }

      liveness_probe {
        period_seconds    = local.serve.livenessProbe.periodSeconds
        timeout_seconds   = local.serve.livenessProbe.timeoutSeconds
        failure_threshold = local.serve.livenessProbe.failureThreshold

        http_get {
          path = local.serve.livenessProbe.httpGet.path
          port = local.serve.livenessProbe.httpGet.port
        }
      }

      dynamic "volume_mounts" {
        for_each = local.serve.volumeMounts

        content {
          name       = volume_mounts.value.name
          mount_path = volume_mounts.value.mountPath
        }
      }
    }

    containers {
      name       = local.collector.name
      image      = local.collector.image
      depends_on = [local.serve.name]
    }

    volumes {
      name = "models"

      gcs {
        bucket    = google_storage_bucket.models.name
        read_only = true
      }
    }

    volumes {
      name = "keys"

      secret {
        secret = google_secret_manager_secret.secret["pneumo-keys"].secret_id

        items {
          version = "latest"
          path    = "keys.yaml"
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [template, client, client_version]
  }

  depends_on = [google_secret_manager_secret_iam_member.reads, google_storage_bucket_iam_member.reads_models]
}

resource "google_cloud_run_v2_service_iam_member" "callers" {
  for_each = var.callers
  location = google_cloud_run_v2_service.serve.location
  name     = google_cloud_run_v2_service.serve.name
  role     = "roles/run.invoker"
  member   = each.value
}

# It compares the log's newest images with the reference, stores the check for /drift, and fails on drift, which an alert
# tells; too few images (exit 4) are no failure. Memory: twice what was measured (docs/deploy.md).
resource "google_cloud_run_v2_job" "drift" {
  name                = "pneumo-drift"
  location            = var.region
  deletion_protection = false

  template {
    task_count = 1

    template {
      service_account = google_service_account.account["pneumo-drift"].email
      timeout         = "900s"
      max_retries     = 0

      containers {
        image   = "${local.images}/drift:${var.tag}"
        command = ["sh", "-c"]
        args = [
          "pneumo drift report --models-dir /models --store --out /tmp/drift && { pneumo drift check --models-dir /models || [ $? -eq 4 ]; }"
        ]

        env {
          name = "PNEUMO_LOG_URL"

          value_source {
            secret_key_ref {
              secret  = google_secret_manager_secret.secret["pneumo-log-url"].secret_id
              version = "latest"
            }
          }
        }

        resources {
          limits = {
            cpu    = "1"
            memory = "1Gi"
          }
        }

        volume_mounts {
          name       = "models"
          mount_path = "/models"
        }
      }

      volumes {
        name = "models"

        gcs {
          bucket    = google_storage_bucket.models.name
          read_only = true
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [template[0].template[0].containers[0].image, client, client_version]
  }

  depends_on = [google_secret_manager_secret_iam_member.reads, google_storage_bucket_iam_member.reads_models]
}

resource "google_cloud_scheduler_job" "drift" {
  name        = "pneumo-drift"
  description = "Starts a drift check"
  region      = var.region
  schedule    = var.drift_schedule
  time_zone   = "Etc/UTC"

  http_target {
    http_method = "POST"
    uri         = "https://run.googleapis.com/v2/${google_cloud_run_v2_job.drift.id}:run"

    oauth_token {
      service_account_email = google_service_account.account["pneumo-clock"].email
    }
  }

  depends_on = [google_project_service.api]
}
