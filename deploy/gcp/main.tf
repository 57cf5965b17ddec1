locals {
  apis = [
    "aiplatform.googleapis.com",
    "artifactregistry.googleapis.com",
    "cloudscheduler.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "monitoring.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
  ]
}

resource "google_project_service" "api" {
  for_each           = toset(local.apis)
  service            = each.value
  disable_on_destroy = false
}

# Data sets (DVC), runs and sweeps.
resource "google_storage_bucket" "data" {
  name                        = "${var.project}-pneumo"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # What trials leave to be resumed is of no use after a month.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 30
      matches_prefix = ["sweeps/"]
    }
  }
}

# The registry and its bundles, mounted by the service. Versions keep what a mistake overwrote.
resource "google_storage_bucket" "models" {
  name                        = "${var.project}-pneumo-models"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = true
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      num_newer_versions = 10
      with_state         = "ARCHIVED"
    }
  }
}

resource "google_artifact_registry_repository" "images" {
  repository_id = "pneumo"
  description   = "Images of pneumo: serve, drift, train"
  location      = var.region
  format        = "DOCKER"

  cleanup_policies {
    id     = "keep-the-newest"
    action = "KEEP"

    most_recent_versions {
      keep_count = 10
    }
  }

  cleanup_policies {
    id     = "delete-after-a-quarter"
    action = "DELETE"

    condition {
      older_than = "7776000s"
    }
  }

  depends_on = [google_project_service.api]
}

# Containers of secrets: `gcloud secrets versions add` puts the values in, so that none is in Terraform's state.
resource "google_secret_manager_secret" "secret" {
  for_each  = toset(["pneumo-keys", "pneumo-log-url"])
  secret_id = each.value

  replication {
    auto {}
  }

  depends_on = [google_project_service.api]
}
