locals {
  # As in matching_platform/environment.py: production bears the plain name.
  name    = var.environment == "production" ? "matching" : "matching-${var.environment}"
  dataset = replace(local.name, "-", "_")

  raw         = split(".", var.raw_dataset)
  raw_project = length(local.raw) == 2 ? local.raw[0] : var.project
  raw_dataset = element(local.raw, length(local.raw) - 1)

  registry = "${google_artifact_registry_repository.images.location}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

# Nothing below can be made before its service is on.
resource "google_project_service" "used" {
  for_each = toset([
    "artifactregistry.googleapis.com",
    "bigquery.googleapis.com",
    "bigquerystorage.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "cloudscheduler.googleapis.com",
    "compute.googleapis.com",
    "container.googleapis.com",
    "dns.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "pubsub.googleapis.com",
    "secretmanager.googleapis.com",
    "servicenetworking.googleapis.com",
    "serviceusage.googleapis.com",
    "sqladmin.googleapis.com",
    "storage.googleapis.com",
    "sts.googleapis.com",
  ])

  service            = each.value
  disable_on_destroy = false
}
