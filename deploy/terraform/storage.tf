# Versions and records. Versions never change, records only grow; what is replaced or deleted by mistake comes back.
resource "google_storage_bucket" "store" {
  name                        = "${var.project}-${local.name}"
  location                    = var.location
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  versioning {
    enabled = true
  }

  soft_delete_policy {
    retention_duration_seconds = 604800
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = var.keep_days
      with_state                 = "ARCHIVED"
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 2
    }
  }

  # A checkpoint that nobody came back for: the training was given up.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 14
      matches_prefix = ["store/checkpoints/"]
    }
  }

  # The log of served requests. The platform removes its days itself; this holds where it does not run.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = var.prediction_days
      matches_prefix = ["store/predictions/"]
    }
  }

  # Nothing of it comes back: what was removed in time must be gone, and what was overwritten says nothing.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 1
      with_state                 = "ARCHIVED"
      matches_prefix             = ["store/predictions/"]
    }
  }

  # What Cloud Build was given, and what it said.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 90
      matches_prefix = ["builds/"]
    }
  }

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_project_service.used]
}

# What runs wrote to their output: kept for people, for a time.
resource "google_storage_bucket" "logs" {
  name                        = "${var.project}-${local.name}-logs"
  location                    = var.location
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age = 400
    }
  }

  depends_on = [google_project_service.used]
}
