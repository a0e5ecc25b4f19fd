# Images of the service and of the pipeline's code. Promotion gives an image another tag, so tags are not immutable;
# what serves is pinned by digest.
resource "google_artifact_registry_repository" "images" {
  repository_id          = local.name
  description            = "Images of the matching platform"
  location               = var.region
  format                 = "DOCKER"
  cleanup_policy_dry_run = false

  docker_config {
    immutable_tags = false
  }

  # Every image that ever served carries a tag, and a rollback may want any of them: none of them goes.
  cleanup_policies {
    id     = "keep-what-serves"
    action = "KEEP"
    condition {
      tag_state             = "TAGGED"
      package_name_prefixes = ["matching-service"]
    }
  }

  cleanup_policies {
    id     = "keep-newest-code"
    action = "KEEP"
    most_recent_versions {
      keep_count            = 20
      package_name_prefixes = ["user-code"]
    }
  }

  cleanup_policies {
    id     = "delete-old-code"
    action = "DELETE"
    condition {
      tag_state             = "ANY"
      older_than            = "7776000s"
      package_name_prefixes = ["user-code"]
    }
  }

  cleanup_policies {
    id     = "delete-untagged"
    action = "DELETE"
    condition {
      tag_state  = "UNTAGGED"
      older_than = "2592000s"
    }
  }

  depends_on = [google_project_service.used]
}
