output "url" {
  description = "Where the service answers."
  value       = google_cloud_run_v2_service.serve.uri
}

output "images" {
  description = "Where images are pushed to."
  value       = local.images
}

output "models" {
  description = "The bucket of the registry."
  value       = "gs://${google_storage_bucket.models.name}"
}

output "data" {
  description = "The bucket of data sets, runs and sweeps."
  value       = "gs://${google_storage_bucket.data.name}"
}

output "workload_identity" {
  description = "The variable GCP_WORKLOAD_IDENTITY of the GitHub repository."
  value       = one(google_iam_workload_identity_pool_provider.github[*].name)
}
