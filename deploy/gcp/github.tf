# GitHub's workflows prove who they are by a token of the run; no key exists. What a workflow may depends on where it runs:
# any branch (pneumo-ci), main (pneumo-build), or the approved environment `production` (pneumo-deploy).
locals {
  trusted = var.github == "" ? {} : {
    pneumo-ci     = "principalSet://iam.googleapis.com/${one(google_iam_workload_identity_pool.github[*].name)}/attribute.repository/${var.github}"
    pneumo-build  = "principal://iam.googleapis.com/${one(google_iam_workload_identity_pool.github[*].name)}/subject/repo:${var.github}:ref:refs/heads/main"
    pneumo-deploy = "principal://iam.googleapis.com/${one(google_iam_workload_identity_pool.github[*].name)}/subject/repo:${var.github}:environment:production"
  }
}

resource "google_iam_workload_identity_pool" "github" {
  count                     = var.github == "" ? 0 : 1
  workload_identity_pool_id = "github"
  display_name              = "GitHub"

  depends_on = [google_project_service.api]
}

resource "google_iam_workload_identity_pool_provider" "github" {
  count                              = var.github == "" ? 0 : 1
  workload_identity_pool_id          = google_iam_workload_identity_pool.github[0].workload_identity_pool_id
  workload_identity_pool_provider_id = "pneumo"
  attribute_condition                = "assertion.repository == '${var.github}'"

  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
  }

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account_iam_member" "github" {
  for_each           = local.trusted
  service_account_id = google_service_account.account[each.key].name
  role               = "roles/iam.workloadIdentityUser"
  member             = each.value
}
