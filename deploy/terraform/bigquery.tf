# What the platform makes. The company's raw dataset is not here: it is read, and belongs to others.
resource "google_bigquery_dataset" "made" {
  dataset_id                 = local.dataset
  description                = "Invoices, transfers, matches, labelled pairs and proposals of the matching platform"
  location                   = var.location
  max_time_travel_hours      = "168"
  delete_contents_on_destroy = false

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_project_service.used]
}

# Keys on their way to a join; each table is gone after two days, whatever became of its query.
resource "google_bigquery_dataset" "scratch" {
  dataset_id                  = "${local.dataset}_scratch"
  description                 = "Keys that the matching platform joins; tables lie here for two days"
  location                    = var.location
  default_table_expiration_ms = 172800000
  max_time_travel_hours       = "48"
  delete_contents_on_destroy  = true

  depends_on = [google_project_service.used]
}
