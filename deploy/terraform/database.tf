# Dagster's runs, events and schedules.
resource "google_sql_database_instance" "dagster" {
  name                = "${local.name}-dagster"
  region              = var.region
  database_version    = "POSTGRES_16"
  deletion_protection = true

  settings {
    tier              = var.database_tier
    edition           = "ENTERPRISE"
    availability_type = var.environment == "production" ? "REGIONAL" : "ZONAL"
    disk_autoresize   = true

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
    }

    ip_configuration {
      ipv4_enabled    = false
      private_network = google_compute_network.this.id
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    insights_config {
      query_insights_enabled = true
    }
  }

  depends_on = [google_service_networking_connection.services]
}

resource "google_sql_database" "dagster" {
  name     = "dagster"
  instance = google_sql_database_instance.dagster.name
}

# Drawn anew with every plan, written only where the version below rises: so it is in no state and no plan.
ephemeral "random_password" "dagster" {
  length  = 40
  special = false # It stands in a URL.
}

locals {
  password_version = 1
}

resource "google_sql_user" "dagster" {
  name                = "dagster"
  instance            = google_sql_database_instance.dagster.name
  password_wo         = ephemeral.random_password.dagster.result
  password_wo_version = local.password_version
}

# gcloud secrets versions access latest --secret=NAME | kubectl create secret generic dagster-postgresql \
#   --namespace dagster --from-file=postgresql-password=/dev/stdin
resource "google_secret_manager_secret" "dagster" {
  secret_id = "${local.name}-dagster-postgresql"

  replication {
    user_managed {
      replicas {
        location = var.region
      }
    }
  }

  depends_on = [google_project_service.used]
}

resource "google_secret_manager_secret_version" "dagster" {
  secret                 = google_secret_manager_secret.dagster.id
  secret_data_wo         = ephemeral.random_password.dagster.result
  secret_data_wo_version = local.password_version
}
