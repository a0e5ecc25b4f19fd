# GitHub's workflows prove who they are by GitHub's own tokens; only those of main's branch may push images.
resource "google_iam_workload_identity_pool" "github" {
  count = var.github_repository == null ? 0 : 1

  workload_identity_pool_id = "${local.name}-github"
  description               = "Workflows of ${var.github_repository}"

  depends_on = [google_project_service.used]
}

resource "google_iam_workload_identity_pool_provider" "github" {
  count = var.github_repository == null ? 0 : 1

  workload_identity_pool_id          = google_iam_workload_identity_pool.github[0].workload_identity_pool_id
  workload_identity_pool_provider_id = "github"
  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
    "attribute.ref"        = "assertion.ref"
  }
  attribute_condition = "assertion.repository == '${var.github_repository}' && assertion.ref == 'refs/heads/main'"

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account_iam_member" "github" {
  count = var.github_repository == null ? 0 : 1

  service_account_id = google_service_account.of["code"].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github[0].name}/attribute.repository/${var.github_repository}"
}

# The same on Cloud Build, for those who do without GitHub's runners.
resource "google_cloudbuild_trigger" "code" {
  count = var.cloud_build_trigger ? 1 : 0

  name            = "${local.name}-code"
  description     = "Tests what comes to main, and pushes the image of the pipeline's code"
  location        = var.region
  filename        = "deploy/cloudbuild/cloudbuild.yaml"
  service_account = google_service_account.of["code"].id

  github {
    owner = split("/", var.github_repository)[0]
    name  = split("/", var.github_repository)[1]
    push {
      branch = "^main$"
    }
  }

  substitutions = {
    _REPOSITORY = "${local.registry}/user-code"
  }

  lifecycle {
    precondition {
      condition     = var.github_repository != null
      error_message = "A trigger needs github_repository, the repository that it builds."
    }
  }
}
