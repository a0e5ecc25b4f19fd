# The review desk's own database, on Dagster's instance: who may use it, and what was decided and booked.
resource "google_sql_database" "desk" {
  name     = "desk"
  instance = google_sql_database_instance.dagster.name
}

ephemeral "random_password" "desk" {
  length  = 40
  special = false # It stands in a URL.
}

locals {
  desk_password_version = 1
}

resource "google_sql_user" "desk" {
  name                = "desk"
  instance            = google_sql_database_instance.dagster.name
  password_wo         = ephemeral.random_password.desk.result
  password_wo_version = local.desk_password_version
}

# The URL as MATCHING_PLATFORM_DESK__DATABASE takes it:
# gcloud secrets versions access latest --secret=NAME | kubectl create secret generic desk \
#   --namespace desk-production --from-file=database=/dev/stdin
resource "google_secret_manager_secret" "desk" {
  secret_id = "${local.name}-desk-database"

  replication {
    user_managed {
      replicas {
        location = var.region
      }
    }
  }

  depends_on = [google_project_service.used]
}

resource "google_secret_manager_secret_version" "desk" {
  secret                 = google_secret_manager_secret.desk.id
  secret_data_wo         = "postgresql+psycopg2://${google_sql_user.desk.name}:${ephemeral.random_password.desk.result}@${trimsuffix(google_dns_record_set.postgres.name, ".")}:5432/${google_sql_database.desk.name}?sslmode=require"
  secret_data_wo_version = local.desk_password_version
}
