output "environment" {
  description = "The settings of matching_platform/environment.py for this environment, as the ConfigMap `matching-platform` holds them"
  value = {
    MATCHING_PLATFORM_ENVIRONMENT       = var.environment
    MATCHING_PLATFORM_PROJECT           = var.project
    MATCHING_PLATFORM_LOCATION          = var.location
    MATCHING_PLATFORM_RAW_DATASET       = var.raw_dataset
    MATCHING_PLATFORM_DATASET           = google_bigquery_dataset.made.dataset_id
    MATCHING_PLATFORM_STORE             = "gs://${google_storage_bucket.store.name}/store"
    MATCHING_PLATFORM_HOME              = "/tmp/matching-platform"
    MATCHING_PLATFORM_FIRST_MONTH       = var.first_month
    MATCHING_PLATFORM_TRAINING_REQUESTS = google_pubsub_subscription.training_requests.id
    MATCHING_PLATFORM_DEAD_LETTERS      = google_pubsub_topic.dead_letters.id
    MATCHING_PLATFORM_IMAGE_REPOSITORY  = "${local.registry}/matching-service"
    MATCHING_PLATFORM_BUILD_REGION      = var.region
    MATCHING_PLATFORM_BUILD_ACCOUNT     = google_service_account.of["builds"].email
    MATCHING_PLATFORM_PREDICTIONS__DAYS = var.prediction_days
    DAGSTER_LOGS_BUCKET                 = google_storage_bucket.logs.name
  }
}

output "accounts" {
  description = "E-mail addresses of the service accounts, by what they are for; the manifests name them"
  value       = { for name, account in google_service_account.of : name => account.email }
}

output "registry" {
  description = "Where images lie: HOST/PROJECT/REPOSITORY"
  value       = local.registry
}

output "workload_identity_provider" {
  description = "What GitHub's workflows authenticate with, as the variable WORKLOAD_IDENTITY_PROVIDER"
  value       = one(google_iam_workload_identity_pool_provider.github[*].name)
}
