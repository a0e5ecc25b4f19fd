# Labels and taints are those that matching_platform/defs/pods.py, deploy/dagster/release/values.yaml and
# deploy/kubernetes select and tolerate.
locals {
  pools = {
    system = {
      machine     = "e2-standard-4"
      disk        = 100
      minimum     = 1
      maximum     = 4
      zones       = null
      spot        = false
      accelerator = null
      taints      = []
    }
    # A node takes three pods of production. With one in each zone there is room for staging and for production twice, so
    # a rollout or a rollback need not wait for a node; with all of them, for twice the autoscaler's most and a challenger.
    service = {
      machine     = "n2-standard-8"
      disk        = 100
      minimum     = 3
      maximum     = 8
      zones       = null
      spot        = false
      accelerator = null
      taints      = [{ key = "matching-platform/pool", value = "service", effect = "NO_SCHEDULE" }]
    }
    batch = {
      machine     = "n2-highmem-8"
      disk        = 200
      minimum     = 0
      maximum     = 8
      zones       = null
      spot        = false # A step that is taken away here would have to begin again.
      accelerator = null
      taints      = [{ key = "matching-platform/pool", value = "batch", effect = "NO_SCHEDULE" }]
    }
    gpu = {
      machine     = var.gpu.machine
      disk        = 200
      minimum     = 0
      maximum     = var.gpu.nodes
      zones       = var.gpu.zones
      spot        = var.gpu.spot
      accelerator = var.gpu.accelerator
      taints = [
        { key = "matching-platform/pool", value = "gpu", effect = "NO_SCHEDULE" },
        { key = "nvidia.com/gpu", value = "present", effect = "NO_SCHEDULE" },
      ]
    }
  }
}

resource "google_container_cluster" "this" {
  name                     = local.name
  location                 = var.region
  network                  = google_compute_network.this.id
  subnetwork               = google_compute_subnetwork.nodes.id
  deletion_protection      = true
  remove_default_node_pool = true # All pools are below.
  initial_node_count       = 1
  datapath_provider        = "ADVANCED_DATAPATH" # Network policies hold.

  release_channel {
    channel = "REGULAR"
  }

  workload_identity_config {
    workload_pool = "${var.project}.svc.id.goog"
  }

  ip_allocation_policy {
    cluster_secondary_range_name  = google_compute_subnetwork.nodes.secondary_ip_range[0].range_name
    services_secondary_range_name = google_compute_subnetwork.nodes.secondary_ip_range[1].range_name
  }

  private_cluster_config {
    enable_private_nodes    = true
    enable_private_endpoint = false
    master_ipv4_cidr_block  = var.network_range.control_plane
  }

  master_authorized_networks_config {
    dynamic "cidr_blocks" {
      for_each = var.administrators
      content {
        display_name = cidr_blocks.key
        cidr_block   = cidr_blocks.value
      }
    }
  }

  # The default pool lives for minutes, but not with more rights than the others.
  node_config {
    service_account = google_service_account.of["nodes"].email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
  }

  maintenance_policy {
    recurring_window {
      start_time = "2024-01-06T06:00:00Z" # Saturdays and Sundays, when no month comes in.
      end_time   = "2024-01-06T18:00:00Z"
      recurrence = "FREQ=WEEKLY;BYDAY=SA,SU"
    }
  }

  lifecycle {
    ignore_changes = [node_config] # Of the pool that was removed.
  }
}

resource "google_container_node_pool" "of" {
  for_each = local.pools

  name     = each.key
  cluster  = google_container_cluster.this.id
  location = var.region

  node_locations = each.value.zones # All of the region's, if none are named.

  # A region has three zones: counts are of all of them together.
  autoscaling {
    total_min_node_count = each.value.minimum
    total_max_node_count = each.value.maximum
    location_policy      = each.value.spot ? "ANY" : "BALANCED"
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  node_config {
    machine_type    = each.value.machine
    disk_size_gb    = each.value.disk
    disk_type       = "pd-balanced"
    image_type      = "COS_CONTAINERD"
    spot            = each.value.spot
    service_account = google_service_account.of["nodes"].email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    labels          = { "matching-platform/pool" = each.key }

    dynamic "taint" {
      for_each = each.value.taints
      content {
        key    = taint.value.key
        value  = taint.value.value
        effect = taint.value.effect
      }
    }

    dynamic "guest_accelerator" {
      for_each = each.value.accelerator == null ? [] : [each.value.accelerator]
      content {
        type  = guest_accelerator.value
        count = 1
        gpu_driver_installation_config {
          gpu_driver_version = "DEFAULT"
        }
      }
    }

    workload_metadata_config {
      mode = "GKE_METADATA"
    }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }
  }
}
