# pneumo on Google Cloud (docs/deploy.md): what a service and its trainings need, and no more.
#
#   terraform init && terraform apply -var project=PROJECT
#
# State stays beside these files. A team keeps it in a bucket of its own: add `backend "gcs" {}` and give
# `terraform init -backend-config=bucket=NAME`. Neither files nor state hold a secret: secrets get their values by hand.
terraform {
  required_version = ">= 1.5"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}
