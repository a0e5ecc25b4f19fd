# A message asks for a training, see matching_platform/defs/requests.py.
resource "google_pubsub_topic" "training_requests" {
  name                       = "${local.name}-training-requests"
  message_retention_duration = "604800s"

  depends_on = [google_project_service.used]
}

resource "google_pubsub_topic" "dead_letters" {
  name                       = "${local.name}-dead-letters"
  message_retention_duration = "2678400s"

  depends_on = [google_project_service.used]
}

resource "google_pubsub_subscription" "training_requests" {
  name                       = "${local.name}-training-requests"
  topic                      = google_pubsub_topic.training_requests.id
  ack_deadline_seconds       = 60
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = "" # Never, however seldom somebody asks.
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  # The platform buries what it cannot understand itself, with the reason. This is for what kills it before it can.
  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = 100
  }
}

# So that somebody can read them.
resource "google_pubsub_subscription" "dead_letters" {
  name                       = "${local.name}-dead-letters"
  topic                      = google_pubsub_topic.dead_letters.id
  message_retention_duration = "2678400s"

  expiration_policy {
    ttl = ""
  }
}

data "google_project" "this" {
  project_id = var.project

  depends_on = [google_project_service.used]
}

# Pub/Sub itself moves a message to the dead letters.
resource "google_pubsub_topic_iam_member" "buries" {
  topic  = google_pubsub_topic.dead_letters.id
  role   = "roles/pubsub.publisher"
  member = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_pubsub_subscription_iam_member" "buries" {
  subscription = google_pubsub_subscription.training_requests.name
  role         = "roles/pubsub.subscriber"
  member       = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

# Once a month, whatever tags came in: an empty request is for the newest month.
resource "google_cloud_scheduler_job" "monthly_training" {
  name        = "${local.name}-monthly-training"
  description = "Asks for a training on the newest month"
  region      = var.region
  schedule    = "0 5 12 * *" # Most tags of a month are set by the tenth of the next.
  time_zone   = "Etc/UTC"

  pubsub_target {
    topic_name = google_pubsub_topic.training_requests.id
    data       = base64encode(jsonencode({}))
  }

  retry_config {
    retry_count = 3
  }
}
