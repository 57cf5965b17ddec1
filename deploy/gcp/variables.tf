variable "project" {
  description = "Id of the Google Cloud project."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project's id has 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "region" {
  description = "Where everything lies and runs."
  type        = string
  default     = "europe-west4"
}

variable "github" {
  description = "The repository, as OWNER/NAME, whose workflows may act here; empty for none."
  type        = string
  default     = ""

  validation {
    condition     = var.github == "" || can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github))
    error_message = "Give the repository as OWNER/NAME."
  }
}

variable "tag" {
  description = "Tag of the images with which service and drift job are made; later ones come by .github/workflows/deploy.yml."
  type        = string
  default     = "first"
}

variable "callers" {
  description = "Who may call the service besides needing an API key, such as user:ANN or domain:HOSPITAL; allUsers for anyone."
  type        = set(string)
  default     = []
}

variable "email" {
  description = "Where alerts go; empty for nowhere."
  type        = string
  default     = ""
}

variable "drift_schedule" {
  description = "When the drift job runs, as for cron, UTC."
  type        = string
  default     = "15 * * * *"
}
