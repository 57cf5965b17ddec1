# One account for each thing that acts, with rights on single resources. None has a key: Cloud Run, Vertex AI and GitHub
# lend them.
locals {
  accounts = {
    pneumo-serve  = "The service: reads the registry and its secrets, writes metrics"
    pneumo-drift  = "The drift job: reads the registry and the address of the log"
    pneumo-clock  = "The scheduler: starts the drift job"
    pneumo-train  = "Trainings on Vertex AI: read data, write runs"
    pneumo-sweep  = "Sweeps on Vertex AI and Ray: the same"
    pneumo-ci     = "Workflows of any branch: read data and models, start the drift job"
    pneumo-build  = "The workflow that builds images on main: writes them"
    pneumo-deploy = "The workflow behind the approval: a new revision, and the registry that was reviewed"
  }

  reads_models = ["pneumo-serve", "pneumo-drift", "pneumo-ci"]
  writes_data  = ["pneumo-train", "pneumo-sweep"]
}

resource "google_service_account" "account" {
  for_each     = local.accounts
  account_id   = each.key
  display_name = each.value
}

resource "google_storage_bucket_iam_member" "reads_models" {
  for_each = toset(local.reads_models)
  bucket   = google_storage_bucket.models.name
  role     = "roles/storage.objectViewer"
  member   = google_service_account.account[each.value].member
}

resource "google_storage_bucket_iam_member" "publishes_models" {
  bucket = google_storage_bucket.models.name
  role   = "roles/storage.objectUser"
  member = google_service_account.account["pneumo-deploy"].member
}

resource "google_storage_bucket_iam_member" "writes_data" {
  for_each = toset(local.writes_data)
  bucket   = google_storage_bucket.data.name
  role     = "roles/storage.objectUser"
  member   = google_service_account.account[each.value].member
}

resource "google_storage_bucket_iam_member" "reads_data" {
  bucket = google_storage_bucket.data.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.account["pneumo-ci"].member
}

resource "google_secret_manager_secret_iam_member" "reads" {
  for_each = {
    serve-keys = { secret = "pneumo-keys", account = "pneumo-serve" }
    serve-log  = { secret = "pneumo-log-url", account = "pneumo-serve" }
    drift-log  = { secret = "pneumo-log-url", account = "pneumo-drift" }
  }
  secret_id = google_secret_manager_secret.secret[each.value.secret].id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.account[each.value.account].member
}

# The only rights on the project: there is no smaller place to write metrics to.
resource "google_project_iam_member" "writes_metrics" {
  project = var.project
  role    = "roles/monitoring.metricWriter"
  member  = google_service_account.account["pneumo-serve"].member
}

resource "google_artifact_registry_repository_iam_member" "writes_images" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.account["pneumo-build"].member
}

resource "google_artifact_registry_repository_iam_member" "reads_images" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.account["pneumo-deploy"].member
}

resource "google_cloud_run_v2_service_iam_member" "deploys" {
  location = google_cloud_run_v2_service.serve.location
  name     = google_cloud_run_v2_service.serve.name
  role     = "roles/run.developer"
  member   = google_service_account.account["pneumo-deploy"].member
}

resource "google_cloud_run_v2_job_iam_member" "drift" {
  for_each = {
    clock      = { role = "roles/run.invoker", account = "pneumo-clock" }
    ci-starts  = { role = "roles/run.invoker", account = "pneumo-ci" }
    ci-looks   = { role = "roles/run.viewer", account = "pneumo-ci" }
    deploy-new = { role = "roles/run.developer", account = "pneumo-deploy" }
  }
  location = google_cloud_run_v2_job.drift.location
  name     = google_cloud_run_v2_job.drift.name
  role     = each.value.role
  member   = google_service_account.account[each.value.account].member
}

# Whoever deploys hands the service its account.
resource "google_service_account_iam_member" "acts_as" {
  for_each           = toset(["pneumo-serve", "pneumo-drift"])
  service_account_id = google_service_account.account[each.value].name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.account["pneumo-deploy"].member
}
