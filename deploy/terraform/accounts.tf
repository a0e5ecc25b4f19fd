# Who acts, each with what it needs and no more. None has a key: pods by Workload Identity, GitHub by its own tokens.
locals {
  accounts = {
    runs     = "Dagster's code server, runs and steps"
    dagster  = "Dagster's daemon and web server"
    service  = "The matching service: it adds to its log, and reads what it may book"
    examined = "The matching service in staging; it has no rights at all"
    desk     = "The review desk: it reads what was proposed, and adds decisions, bookings and imports"
    builds   = "Cloud Build, where it makes the service's image"
    code     = "What pushes the pipeline's image from main"
    nodes    = "The cluster's nodes"
  }

  # Which pod acts as which account: namespace/name of its service account.
  workloads = {
    "dagster/dagster"                      = "runs"
    "dagster/dagster-control"              = "dagster"
    "matching-staging/matching-service"    = "examined"
    "matching-production/matching-service" = "service"
    "desk-${var.environment}/desk"         = "desk"
  }

  project_roles = {
    "runs asks BigQuery" = { account = "runs", role = "roles/bigquery.user" }
    "runs reads results" = { account = "runs", role = "roles/bigquery.readSessionUser" }
    "runs starts builds" = { account = "runs", role = "roles/cloudbuild.builds.editor" }
    "desk asks BigQuery" = { account = "desk", role = "roles/bigquery.user" }
    "desk reads results" = { account = "desk", role = "roles/bigquery.readSessionUser" }
    "builds writes logs" = { account = "builds", role = "roles/logging.logWriter" }
    "code writes logs"   = { account = "code", role = "roles/logging.logWriter" }
    "nodes are nodes"    = { account = "nodes", role = "roles/container.defaultNodeServiceAccount" }
  }

  bucket_roles = {
    "runs keeps versions"    = { account = "runs", bucket = google_storage_bucket.store.name, role = "roles/storage.objectUser", folder = null }
    "runs writes its output" = { account = "runs", bucket = google_storage_bucket.logs.name, role = "roles/storage.objectUser", folder = null }
    "runs finds its logs"    = { account = "runs", bucket = google_storage_bucket.logs.name, role = "roles/storage.legacyBucketReader", folder = null }
    "dagster shows output"   = { account = "dagster", bucket = google_storage_bucket.logs.name, role = "roles/storage.objectUser", folder = null }
    "dagster finds the logs" = { account = "dagster", bucket = google_storage_bucket.logs.name, role = "roles/storage.legacyBucketReader", folder = null }
    # What is logged once, the service can neither read nor change.
    "service adds to its log"        = { account = "service", bucket = google_storage_bucket.store.name, role = "roles/storage.objectCreator", folder = "store/predictions/requests/" }
    "service says how it stands"     = { account = "service", bucket = google_storage_bucket.store.name, role = "roles/storage.objectUser", folder = "store/predictions/servers/" }
    "service reads what it may book" = { account = "service", bucket = google_storage_bucket.store.name, role = "roles/storage.objectViewer", folder = "store/records/unattended/" }
    "service finds both"             = { account = "service", bucket = google_storage_bucket.store.name, role = "roles/storage.legacyBucketReader", folder = null }
    "desk reads what was proposed"   = { account = "desk", bucket = google_storage_bucket.store.name, role = "roles/storage.objectViewer", folder = "store/" }
    "desk records what came in"      = { account = "desk", bucket = google_storage_bucket.store.name, role = "roles/storage.objectCreator", folder = "store/records/imports/" }
    "desk takes its turn"            = { account = "desk", bucket = google_storage_bucket.store.name, role = "roles/storage.objectCreator", folder = "store/records/turns/" }
    "desk finds them"                = { account = "desk", bucket = google_storage_bucket.store.name, role = "roles/storage.legacyBucketReader", folder = null }
    # Archives and logs of builds; versions and records are nothing to them.
    "builds takes and tells" = { account = "builds", bucket = google_storage_bucket.store.name, role = "roles/storage.objectUser", folder = "builds/" }
    "builds finds its log"   = { account = "builds", bucket = google_storage_bucket.store.name, role = "roles/storage.legacyBucketReader", folder = null }
    # What somebody submits to Cloud Build by hand, as cloudbuild.yaml says; the trigger takes GitHub's.
    "code takes its source" = { account = "code", bucket = google_storage_bucket.store.name, role = "roles/storage.objectViewer", folder = "builds/code/" }
  }

  registry_roles = {
    "runs promotes by a tag" = { account = "runs", role = "roles/artifactregistry.writer" }
    "builds pushes"          = { account = "builds", role = "roles/artifactregistry.writer" }
    "code pushes"            = { account = "code", role = "roles/artifactregistry.writer" }
    "nodes pull"             = { account = "nodes", role = "roles/artifactregistry.reader" }
  }
}

resource "google_service_account" "of" {
  for_each = local.accounts

  account_id   = "${local.name}-${each.key}"
  display_name = "${local.name}: ${each.key}"
  description  = each.value

  depends_on = [google_project_service.used]
}

resource "google_service_account_iam_member" "workload" {
  for_each = local.workloads

  service_account_id = google_service_account.of[each.value].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${google_container_cluster.this.workload_identity_config[0].workload_pool}[${each.key}]"
}

resource "google_project_iam_member" "of" {
  for_each = local.project_roles

  project = var.project
  role    = each.value.role
  member  = google_service_account.of[each.value.account].member
}

resource "google_storage_bucket_iam_member" "of" {
  for_each = local.bucket_roles

  bucket = each.value.bucket
  role   = each.value.role
  member = google_service_account.of[each.value.account].member

  dynamic "condition" {
    for_each = each.value.folder == null ? [] : [each.value.folder]
    content {
      title      = "only in ${condition.value}"
      expression = "resource.name.startsWith('projects/_/buckets/${each.value.bucket}/objects/${condition.value}')"
    }
  }
}

resource "google_artifact_registry_repository_iam_member" "of" {
  for_each = local.registry_roles

  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = each.value.role
  member     = google_service_account.of[each.value.account].member
}

# Flux brings its own service account, which acts by itself: no annotation ties it to one of Google's.
resource "google_artifact_registry_repository_iam_member" "flux_looks_for_tags" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = "principal://iam.googleapis.com/projects/${data.google_project.this.number}/locations/global/workloadIdentityPools/${google_container_cluster.this.workload_identity_config[0].workload_pool}/subject/ns/flux-system/sa/image-reflector-controller"
}

resource "google_bigquery_dataset_iam_member" "edits" {
  for_each = { made = google_bigquery_dataset.made.dataset_id, scratch = google_bigquery_dataset.scratch.dataset_id }

  dataset_id = each.value
  role       = "roles/bigquery.dataEditor"
  member     = google_service_account.of["runs"].member
}

# Decisions and bookings are added to what was made; keys lie in the scratch dataset meanwhile.
resource "google_bigquery_dataset_iam_member" "desk_edits" {
  for_each = { made = google_bigquery_dataset.made.dataset_id, scratch = google_bigquery_dataset.scratch.dataset_id }

  dataset_id = each.value
  role       = "roles/bigquery.dataEditor"
  member     = google_service_account.of["desk"].member
}

# In another project, whoever owns the raw dataset must be the one who applies this.
resource "google_bigquery_dataset_iam_member" "reads_raw_tables" {
  project    = local.raw_project
  dataset_id = local.raw_dataset
  role       = "roles/bigquery.dataViewer"
  member     = google_service_account.of["runs"].member
}

# Files are taken at the desk only where whoever owns the raw dataset grants roles/bigquery.dataEditor there instead.
resource "google_bigquery_dataset_iam_member" "desk_reads_raw_tables" {
  project    = local.raw_project
  dataset_id = local.raw_dataset
  role       = "roles/bigquery.dataViewer"
  member     = google_service_account.of["desk"].member
}

resource "google_pubsub_subscription_iam_member" "takes_requests" {
  subscription = google_pubsub_subscription.training_requests.name
  role         = "roles/pubsub.subscriber"
  member       = google_service_account.of["runs"].member
}

resource "google_pubsub_topic_iam_member" "buries_requests" {
  topic  = google_pubsub_topic.dead_letters.id
  role   = "roles/pubsub.publisher"
  member = google_service_account.of["runs"].member
}

# A run may hand its build to the account of builds, and to no other.
resource "google_service_account_iam_member" "runs_builds" {
  service_account_id = google_service_account.of["builds"].name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.of["runs"].member
}
